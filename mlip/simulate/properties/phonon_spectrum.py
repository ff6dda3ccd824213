"""What follows from force constants: bands along a path, density of states, thermodynamics, the lowest mode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase.units import kJ, mol

IMAGINARY = 0.05
"""THz by which a frequency must be imaginary to count: less is noise of the forces near Γ."""


ZERO = 0.01
"""THz up to which a mode does not count in the thermodynamics: the acoustic ones at Γ and imaginary ones."""


@dataclass(frozen=True)
class BandSegment:
    """Frequencies along one straight line of the path.

    Attributes:
        labels: of both ends, such as ``("Γ", "X")``.
        qpoints: (points, 3) in the reciprocal lattice of the primitive cell.
        distances: (points,) Å⁻¹ (without 2π) along the whole path.
        frequencies: (points, bands) THz; imaginary ones are negative.
    """

    labels: tuple[str, str]
    qpoints: np.ndarray
    distances: np.ndarray
    frequencies: np.ndarray


@dataclass(frozen=True)
class Thermodynamics:
    """Harmonic lattice at constant volume, of one primitive cell.

    Attributes:
        temperatures: (temperatures,) K.
        free_energy: eV, of vibration only, zero-point energy included.
        entropy: eV/K.
        heat_capacity: eV/K.
        left_out: share of the modes that are imaginary or zero, which do not count.
    """

    temperatures: np.ndarray
    free_energy: np.ndarray
    entropy: np.ndarray
    heat_capacity: np.ndarray
    left_out: float


def bands_along_path(phonon: Any, points: int) -> tuple[BandSegment, ...]:
    """Compute frequencies along the path of Hinuma et al., Comput. Mater. Sci. 128, 140 (2017) (seekpath).

    Args:
        phonon: object of phonopy with force constants.
        points: wave vectors of each segment.
    """
    from phonopy.phonon.band_structure import get_band_qpoints_by_seekpath

    # seekpath is told kinds of sites (isotopes, moments) as elements: by these it must find the same primitive cell.
    primitive = phonon.primitive
    described = type(primitive.copy())(
        numbers=np.asarray(primitive.species_ids) + 1, cell=primitive.cell, scaled_positions=primitive.scaled_positions
    )
    paths, labels, connected = get_band_qpoints_by_seekpath(described, points)
    phonon.run_band_structure(paths, path_connections=connected, labels=labels)
    found = phonon.get_band_structure_dict()
    names, ends = iter(labels), []
    start = None
    for joined in connected:
        # A label for the beginning of each connected part, then one for the end of each segment.
        start = next(names) if start is None else start
        end = next(names)
        ends.append((_plain(start), _plain(end)))
        start = end if joined else None
    return tuple(
        BandSegment(pair, np.array(q), np.array(d), np.array(f))
        for pair, q, d, f in zip(ends, found["qpoints"], found["distances"], found["frequencies"], strict=True)
    )


def density_and_thermodynamics(
    phonon: Any, mesh: float, temperatures: Sequence[float]
) -> tuple[np.ndarray, Thermodynamics]:
    """Compute the density of states (points, 2), THz and states per THz, and the thermodynamics.

    Args:
        phonon: object of phonopy with force constants.
        mesh: Å.
        temperatures: K.
    """
    phonon.run_mesh(mesh, is_gamma_center=True)
    frequencies, weights = np.array(phonon.mesh.frequencies), np.array(phonon.mesh.weights)
    low, high = float(frequencies.min()), float(frequencies.max())
    margin = 0.03 * (high - low)
    phonon.run_total_dos(freq_min=low - margin, freq_max=high + margin, freq_pitch=(high - low + 2 * margin) / 400)
    dos = phonon.get_total_dos_dict()
    phonon.run_thermal_properties(temperatures=np.array(temperatures, dtype=float), cutoff_frequency=ZERO)
    found = phonon.get_thermal_properties_dict()
    left_out = float(((frequencies <= ZERO) * weights[:, None]).sum() / (weights.sum() * frequencies.shape[1]))
    per_mole = kJ / mol
    return np.stack([dos["frequency_points"], dos["total_dos"]], axis=1), Thermodynamics(
        np.array(found["temperatures"]),
        np.array(found["free_energy"]) * per_mole,
        np.array(found["entropy"]) * per_mole / 1000,
        np.array(found["heat_capacity"]) * per_mole / 1000,
        left_out,
    )


def frequencies_at(phonon: Any, qpoints: np.ndarray) -> np.ndarray:
    """Return frequencies (points, bands) in THz at wave vectors (points, 3) of the primitive reciprocal lattice."""
    return np.array(phonon.run_qpoints(np.asarray(qpoints, dtype=float)).frequencies)


def lowest_frequency(phonon: Any, bands: Sequence[BandSegment]) -> tuple[float, np.ndarray, bool]:
    """Return the lowest frequency in THz, its wave vector, and whether that one fits into the supercell.

    Args:
        phonon: object of phonopy with force constants, after `density_and_thermodynamics`.
        bands: along the path.
    """
    from phonopy.harmonic.dynmat_to_fc import get_commensurate_points

    fitting = get_commensurate_points(
        np.rint(np.linalg.inv(phonon.primitive.cell.T) @ phonon.supercell.cell.T).astype(int)
    )
    exact = frequencies_at(phonon, fitting).min(axis=1)
    mesh = phonon.mesh
    qpoints = np.concatenate([*(segment.qpoints for segment in bands), np.array(mesh.qpoints)])
    lowest = np.concatenate(
        [*(segment.frequencies.min(axis=1) for segment in bands), np.array(mesh.frequencies).min(axis=1)]
    )
    between, at = int(np.argmin(lowest)), int(np.argmin(exact))
    # What is exact says more: among equals, and where it is imaginary itself.
    if exact[at] < -IMAGINARY or exact[at] <= lowest[between] + 0.001:
        return float(exact[at]), np.array(fitting[at]), True
    return float(lowest[between]), qpoints[between], False


def _plain(label: str) -> str:
    """Undo the TeX of phonopy's labels."""
    text = label.replace("$", "").replace("\\mathrm{", "").replace("}", "")
    return text.replace("\\Gamma", "Γ").replace("GAMMA", "Γ").replace("\\Sigma", "Σ").replace("\\_", "_")
