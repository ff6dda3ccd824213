"""Phonons against the dispersion of a pair potential in closed form, phonopy by hand, and statistics by hand."""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms

from mlip.calculators.ase import MLIPCalculator
from mlip.core.errors import ConfigError, SimulationError
from mlip.simulate.properties import phonons as module
from mlip.simulate.properties.phonon_spectrum import frequencies_at
from mlip.simulate.properties.phonons import phonons, save_phonopy
from tests.simulate.pair_model import PairModel

phonopy = pytest.importorskip("phonopy")
pytest.importorskip("seekpath")

MODEL = PairModel()
COARSE = {"mesh": 15.0, "path_points": 5, "temperatures": (0, 300, 3000)}


def dispersion(a: float, mass: float, wave: np.ndarray) -> np.ndarray:
    """THz of an fcc crystal of the pair model: D(k) = Σ_R [V'' r̂r̂ᵀ + V'/r (1 − r̂r̂ᵀ)] (1 − cos kR) / m."""
    sites = np.stack(np.meshgrid(*[np.arange(-3, 4)] * 3, indexing="ij"), -1).reshape(-1, 3)
    sites = sites[(sites.sum(1) % 2 == 0) & (sites != 0).any(1)] * a / 2
    h, matrix = 1e-3, np.zeros((3, 3))
    for site in sites[np.linalg.norm(sites, axis=1) < MODEL.cutoff]:
        r = np.linalg.norm(site)
        below, at, above = MODEL.pair_energy(np.array([r - h, r, r + h]), "Cu", "Cu")
        along = np.outer(site, site) / r**2
        slope, curve = (above - below) / (2 * h), (above - 2 * at + below) / h**2
        matrix += (curve * along + slope / r * (np.eye(3) - along)) * (1 - np.cos(site @ wave))
    return np.sqrt(np.linalg.eigvalsh(matrix / mass)) * units.s / (2 * np.pi * 1e12)


def test_pair_crystal_has_the_dispersion_in_closed_form() -> None:
    crystal = bulk("Cu", a=3.4, cubic=True)
    crystal.set_masses([60.0] * 4)
    result = phonons(
        crystal, MLIPCalculator(MODEL, kernels="off"), supercell=(3, 3, 3), relax_first=True, fmax=1e-5, **COARSE
    )
    a = result.structure.cell.lengths()[0]
    reciprocal = np.linalg.inv(np.array(result.phonopy.primitive.cell)).T * 2 * np.pi
    for segment in result.bands:
        for q, frequencies in zip(segment.qpoints, segment.frequencies):
            if np.abs(q).max() > 1e-9:
                np.testing.assert_allclose(frequencies, dispersion(a, 60.0, q @ reciprocal), atol=0.01)
    assert result.num_displacements == 1
    assert result.formula == "Cu"
    assert result.stable
    assert not result.warnings
    assert result.as_dict()["atoms_primitive"] == 1
    assert result.sum_rule < 1e-8
    assert [segment.labels for segment in result.bands][:3] == [("Γ", "X"), ("X", "U"), ("K", "Γ")]


@pytest.mark.slow
def test_aluminium_of_emt_as_phonopy_by_hand(tmp_path: Path) -> None:
    """Forces on displaced atoms given to phonopy in the way its manual has it."""
    result = phonons(bulk("Al", a=3.995), EMT(), supercell=(3, 3, 3), **COARSE)
    from phonopy.structure.atoms import PhonopyAtoms

    atoms = bulk("Al", a=3.995)
    cell = PhonopyAtoms(symbols=["Al"], cell=atoms.cell.array, scaled_positions=[[0, 0, 0]])
    other = phonopy.Phonopy(cell, np.diag([3, 3, 3]), "P", log_level=0)
    other.generate_displacements(distance=0.01)
    forces = []
    for supercell in other.supercells_with_displacements:
        displaced = Atoms(supercell.symbols, cell=supercell.cell, positions=supercell.positions, pbc=True)
        displaced.calc = EMT()
        forces.append(displaced.get_forces())
    other.forces = np.array(forces)
    other.produce_force_constants(show_drift=False)
    points = np.array([[0.5, 0.5, 0], [0.5, 0, 0], [0.1, 0.2, 0.3]])
    expected = other.run_qpoints(points).frequencies
    np.testing.assert_allclose(frequencies_at(result.phonopy, points), expected, atol=2e-4)
    save_phonopy(tmp_path / "phonopy_params.yaml", result)
    loaded = phonopy.load(tmp_path / "phonopy_params.yaml", log_level=0)
    np.testing.assert_allclose(loaded.run_qpoints(points).frequencies, expected, atol=2e-4)
    values = result.as_dict()
    assert values["imaginary_modes"] is False
    assert values["heat_capacity_J_per_K_mol"] == pytest.approx(23.3, abs=0.4)


@pytest.mark.slow
def test_thermodynamics_are_those_of_its_modes() -> None:
    result = phonons(bulk("Cu"), EMT(), supercell=(2, 2, 2), relax_first=True, **COARSE)
    mesh = result.phonopy.mesh
    energies = np.array(mesh.frequencies) * 1e12 * units._hplanck / units._e
    weights = np.array(mesh.weights)[:, None] / np.sum(mesh.weights)
    counted = np.where(energies > 0.01 * 1e12 * units._hplanck / units._e, energies, np.nan)
    t = 300 * units.kB
    expected = {
        "free_energy": counted / 2 + t * np.log(1 - np.exp(-counted / t)),
        "heat_capacity": units.kB * (counted / t) ** 2 * np.exp(counted / t) / (np.exp(counted / t) - 1) ** 2,
        "entropy": counted / 300 / (np.exp(counted / t) - 1) - units.kB * np.log(1 - np.exp(-counted / t)),
    }
    for name, values in expected.items():
        assert getattr(result.thermodynamics, name)[1] == pytest.approx(np.nansum(values * weights), rel=1e-5)
    assert result.thermodynamics.heat_capacity[2] / units.kB == pytest.approx(
        3 * (1 - result.thermodynamics.left_out), rel=2e-3
    )
    frequencies, states = result.dos.T
    assert np.trapezoid(states, frequencies) == pytest.approx(3, rel=0.02)


@pytest.mark.slow
def test_imaginary_modes_are_told() -> None:
    result = phonons(bulk("Cu", "bcc", a=2.86), EMT(), supercell=(4, 4, 4), relax_first=True, **COARSE)
    assert not result.stable
    assert result.lowest < -0.5
    assert any("Imaginary modes, down to" in text and "no minimum" in text for text in result.warnings)


@pytest.mark.slow
def test_small_supercells_and_constraints_are_told() -> None:
    atoms = bulk("Cu", a=3.59)
    atoms.set_constraint(FixAtoms([0]))
    result = phonons(atoms, EMT(), supercell=(1, 1, 2), relax_first=True, **COARSE)
    assert "constraints" in result.warnings[0]
    assert "only 2.07 Å wide, less than 8" in result.warnings[1]
    narrow = phonons(
        bulk("Cu", a=3.4), MLIPCalculator(MODEL, kernels="off"), supercell=(2, 2, 2), relax_first=True, **COARSE
    )
    assert "twice the model's cutoff, 8 Å" in narrow.warnings[0]


@pytest.mark.slow
def test_left_handed_cell_is_the_same_crystal() -> None:
    atoms = bulk("Cu")
    mirrored = atoms.copy()
    mirrored.set_cell(atoms.cell.array[[1, 0, 2]])
    first, second = (phonons(a, EMT(), supercell=(2, 2, 2), relax_first=True, **COARSE) for a in (atoms, mirrored))
    assert first.highest == pytest.approx(second.highest, abs=1e-3)


@pytest.mark.parametrize(
    ("atoms", "options", "match"),
    [
        (molecule("CH4"), {}, "a molecule"),
        (bulk("Cu", a=3.9), {}, "needs a relaxed crystal"),
        (bulk("Cu"), {"supercell": (2, 0, 2)}, "whole numbers"),
        (bulk("Cu"), {"supercell": (1, 1, 1)}, "single atom"),
        (bulk("Cu"), {"min_length": 500.0}, "more than 20000"),
        (bulk("Cu"), {"displacement": 0.0}, "positive"),
        (bulk("Cu"), {"temperatures": (-5,)}, "0 K or more"),
    ],
)
def test_refusals(atoms: Atoms, options: dict, match: str) -> None:
    with pytest.raises(SimulationError, match=match):
        phonons(atoms, EMT(), **options)


def test_a_mesh_of_a_single_point_is_told() -> None:
    """All modes of a cell of one atom have no frequency at Γ: no heat capacity, and no sign of it otherwise."""
    result = phonons(bulk("Cu", a=3.5899), EMT(), supercell=(2, 2, 2), **{**COARSE, "mesh": 2.0})
    assert result.thermodynamics.left_out == 1
    assert result.thermodynamics.heat_capacity[1] == 0
    assert any("leaves out 100 % of the modes" in text for text in result.warnings)
    assert any("larger --mesh" in text for text in result.warnings)


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "seekpath", None)
    with pytest.raises(ConfigError, match="pip install"):
        module.require_phonopy()
