"""Everything that a folder of an MD run can tell, as tables and pictures."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from matplotlib.figure import Figure

from mlip.core.errors import SimulationError
from mlip.core.files import write_atomically, write_text_atomically
from mlip.core.units import KB, MEV
from mlip.simulate.analysis.dynamics import Diffusion, Vibrations, diffusion, vibrations
from mlip.simulate.analysis.motion import Motion, frames_of, motion_of
from mlip.simulate.analysis.pairs import Bonds, RadialDistribution, follow_bonds, radial_distribution
from mlip.simulate.analysis.settings import frames_since, last_change
from mlip.simulate.analysis.temperature import TemperatureTest, histogram, temperature_test
from mlip.simulate.md_folder import THERMO, TRAJECTORY
from mlip.simulate.output import write_summary
from mlip.simulate.thermo import ThermoRow, column, energy_drift, read_thermo


@dataclass(frozen=True)
class Thermodynamics:
    """Averages over a log; errors are standard errors from ten blocks, None with fewer than twenty rows.

    Attributes:
        temperature: K.
        temperature_error: K.
        temperature_std: K, fluctuation.
        freedom: degrees of freedom that the kinetic energy and the temperature of the log belong to.
        temperature_std_expected: K, of the canonical ensemble, sqrt(2 / freedom) T.
        drift: meV/atom/ps of what is conserved, or None.
        roughness: meV/atom, standard deviation of what is conserved about the line of the drift, or None.
        time, history: (rows,) fs and K, the temperature of the log.
        test: whether its distribution is canonical; None with too few independent rows.
    """

    temperature: float
    temperature_error: float | None
    temperature_std: float
    freedom: int
    temperature_std_expected: float
    drift: float | None
    roughness: float | None
    time: np.ndarray
    history: np.ndarray
    test: TemperatureTest | None


def thermodynamics(rows: Sequence[ThermoRow], num_atoms: int) -> Thermodynamics:
    """Average a log.

    Args:
        rows: at least one.
        num_atoms: energies are per atom.

    Raises:
        SimulationError: no row.
    """
    if not rows:
        raise SimulationError("The log has no row.")
    temperature, kinetic = column(rows, "temperature"), column(rows, "kinetic")
    hot = int(np.argmax(temperature))
    freedom = round(2 * kinetic[hot] / (KB * temperature[hot])) if temperature[hot] > 0 else 0
    time, conserved = column(rows, "time"), column(rows, "conserved")
    drift, roughness = energy_drift(time, conserved, num_atoms), None
    if drift is not None:
        line = np.polynomial.Polynomial.fit(time, conserved, 1)
        roughness = float(np.std(conserved - line(time))) / (num_atoms * MEV)
    mean = float(temperature.mean())
    return Thermodynamics(
        temperature=mean,
        temperature_error=_block_error(temperature),
        temperature_std=float(temperature.std()),
        freedom=freedom,
        temperature_std_expected=float(np.sqrt(2 / freedom)) * mean if freedom else 0.0,
        drift=drift,
        roughness=roughness,
        time=time,
        history=temperature,
        test=temperature_test(temperature, freedom) if freedom else None,
    )


def _block_error(values: np.ndarray, blocks: int = 10) -> float | None:
    if len(values) < 2 * blocks:
        return None
    means = values[: len(values) // blocks * blocks].reshape(blocks, -1).mean(axis=1)
    return float(means.std(ddof=1) / np.sqrt(blocks))


@dataclass
class Analysis:
    """The analysis of one run; None is what could not be computed, and the notes say why.

    Attributes:
        motion: the trajectory.
        thermodynamics: from the log.
        pairs: radial distribution functions.
        diffusion: by atomic number.
        vibrations: spectrum.
        bonds: of the first frame.
        notes: what the user should know.
    """

    motion: Motion
    thermodynamics: Thermodynamics | None = None
    pairs: RadialDistribution | None = None
    diffusion: dict[int, Diffusion] = field(default_factory=dict)
    vibrations: Vibrations | None = None
    bonds: Bonds | None = None
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers with their units in the names, ready for JSON."""
        values: dict[str, Any] = {"frames": len(self.motion.time), "interval_fs": self.motion.interval}
        if self.thermodynamics is not None:
            thermo = self.thermodynamics
            values |= {
                "temperature_K": thermo.temperature,
                "temperature_error_K": thermo.temperature_error,
                "temperature_std_K": thermo.temperature_std,
                "temperature_std_expected_K": thermo.temperature_std_expected,
                "energy_drift_meV_per_atom_per_ps": thermo.drift,
                "energy_roughness_meV_per_atom": thermo.roughness,
            }
            if thermo.test is not None:
                values |= thermo.test.as_dict()
        values["diffusion_cm2_per_s"] = {
            chemical_symbols[number]: {"value": one.constant, "error": one.error, "exponent": one.exponent}
            for number, one in self.diffusion.items()
        }
        if self.vibrations is not None:
            values["spectrum_peak_per_cm"] = self.vibrations.peak
            values["spectrum_highest_per_cm"] = self.vibrations.highest
        if self.bonds is not None:
            values["bonds"] = len(self.bonds.pairs)
            values["largest_bond_deviation_A"] = float(self.bonds.deviation.max())
            values["stable_time_fs"] = self.bonds.stable_time
        return values | {"notes": self.notes}


def analyse(
    folder: str | os.PathLike[str], skip: float = 0.0, r_max: float | None = None, interval: float | None = None
) -> Analysis:
    """Analyse the folder of an MD run, or a trajectory file; only from where its settings were changed last.

    Args:
        folder: with ``trajectory.traj`` and ``thermo.csv``, or a trajectory that ASE reads.
        skip: fs at the start of the run that are left out, for equilibration. The bonds are those of the first frame
            that is left.
        r_max: Å, of radial distributions.
        interval: fs between frames, for files that do not state it.

    Raises:
        SimulationError: no trajectory, or one that cannot be analysed.
    """
    path = Path(folder)
    source = path / TRAJECTORY if path.is_dir() else path
    notes: list[str] = []
    frames = frames_of(source)
    since = last_change(path, frames, notes)
    motion = motion_of(frames_since(since, frames, skip, notes), interval, str(source))
    motion = motion.after(skip, frames[0].info.get("time_fs")) if skip else motion
    found = Analysis(motion, notes=notes)
    log = path / THERMO
    if log.is_file():
        rows = read_thermo(log)
        rows = [row for row in rows if row.step > since and row.time >= rows[0].time + skip]
        if rows:
            found.thermodynamics = thermodynamics(rows, len(motion.numbers))
    if motion.pbc.all():
        found.pairs = radial_distribution(motion, r_max)
    else:
        found.notes.append("No radial distribution: the structure is not periodic along all axes.")
    if len(motion.time) >= 8:
        moving = np.unique(motion.numbers[motion.mobile]).tolist()
        found.diffusion = {number: diffusion(motion, number) for number in moving}
    else:
        found.notes.append("No diffusion constant: it needs 8 frames.")
    if not motion.mobile.all():
        found.notes.append(f"{int((~motion.mobile).sum())} fixed atom(s) are left out of the diffusion constants.")
    bound = [chemical_symbols[number] for number, one in found.diffusion.items() if one.exponent < 0.5]
    if bound:
        found.notes.append(
            f"{', '.join(bound)} does not diffuse in this time (msd grows slower than the square root of time): its "
            "constant means nothing."
        )
    if motion.velocities is not None and len(motion.time) >= 16:
        found.vibrations = vibrations(motion)
        found.notes.append(
            f"Frames every {motion.interval:g} fs show vibrations up to {found.vibrations.highest:.0f} 1/cm; faster "
            "ones appear at wrong, lower places."
        )
    else:
        found.notes.append("No spectrum: it needs velocities and 16 frames.")
    found.bonds = follow_bonds(motion)
    return found


def write_analysis(folder: str | os.PathLike[str], found: Analysis) -> list[Path]:
    """Write ``analysis.json`` and for each part a CSV and a PNG; return the paths.

    Raises:
        MlipError: a file cannot be written.
    """
    folder = Path(folder)
    written = [folder / "analysis.json"]
    write_summary(written[0], found.as_dict())
    symbol = chemical_symbols
    if found.thermodynamics is not None:
        written += _write_temperature(folder, found.thermodynamics)
    if found.pairs is not None:
        columns = {f"{symbol[a]}-{symbol[b]}": values for (a, b), values in found.pairs.values.items()}
        written += _write(folder, "rdf", {"r_A": found.pairs.r}, columns, "g(r)", "r / Å")
    if found.diffusion:
        shown = len(found.motion.time) // 2
        time = found.motion.interval * np.arange(shown)
        columns = {f"{symbol[number]}_A2": one.msd[:shown] for number, one in found.diffusion.items()}
        written += _write(folder, "msd", {"time_fs": time}, columns, "mean square displacement / Å²", "time / fs")
    if found.vibrations is not None:
        seen = found.vibrations
        half = len(seen.time) // 2
        time = {"time_fs": seen.time[:half]}
        written += _write(folder, "vacf", time, {"vacf": seen.autocorrelation[:half]}, "⟨v(0) v(t)⟩", "time / fs")
        place = {"wave_number_per_cm": seen.wave_number}
        label = "wave number / 1/cm"
        written += _write(folder, "spectrum", place, {"density_cm": seen.spectrum}, "spectrum / cm", label)
    if found.bonds is not None:
        time = {"time_fs": found.motion.time}
        deviation = {"largest_deviation_A": found.bonds.deviation}
        written += _write(folder, "bond_deviation", time, deviation, "largest change of a bond / Å", "time / fs")
        written.append(folder / "bonds.csv")
        names = ("start", "mean", "std", "shortest", "longest")
        lines = ["first,second," + ",".join(f"{name}_A" for name in names)]
        for k, (first, second) in enumerate(found.bonds.pairs):
            cells = [f"{getattr(found.bonds, name)[k]:.6f}" for name in names]
            lines.append(",".join([str(first), str(second), *cells]))
        write_text_atomically(written[-1], "\n".join(lines) + "\n")
    return written


def _write_temperature(folder: Path, thermo: Thermodynamics) -> list[Path]:
    """Write the temperature against time, and its distribution beside the canonical one."""
    paths = _write(
        folder, "temperature", {"time_fs": thermo.time}, {"temperature_K": thermo.history}, "T / K", "t / fs"
    )
    if thermo.freedom and len(thermo.history) >= 20:
        places, density, canonical = histogram(thermo.history, thermo.freedom)
        columns = {"found_per_K": density, "canonical_per_K": canonical}
        paths += _write(
            folder, "temperature_distribution", {"temperature_K": places}, columns, "density / 1/K", "T / K"
        )
    return paths


def _write(
    folder: Path, name: str, x: Mapping[str, np.ndarray], columns: Mapping[str, np.ndarray], y_label: str, x_label: str
) -> list[Path]:
    """Write curves over one axis as CSV and PNG."""
    (x_name, places), *_ = x.items()
    table = np.stack([places, *columns.values()], axis=1)
    lines = [",".join([x_name, *columns]), *(",".join(f"{value:.9g}" for value in row) for row in table)]
    write_text_atomically(folder / f"{name}.csv", "\n".join(lines) + "\n")
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for label, values in columns.items():
        axes.plot(places, values, label=label.removesuffix("_A2"), linewidth=1.2)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    if len(columns) > 1:
        axes.legend(fontsize=8)
    picture = folder / f"{name}.png"
    write_atomically(picture, lambda part: figure.savefig(str(part), format="png", dpi=130))
    return [folder / f"{name}.csv", picture]
