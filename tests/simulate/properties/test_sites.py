"""Moments, charges and isotopes go with their atoms into strained, displaced and cut cells, and lower the symmetry."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT

from mlip.calculators.ase import MLIPCalculator
from mlip.core.errors import SimulationError
from mlip.core.units import GPA
from mlip.simulate.properties.defects import surface_energies, vacancies
from mlip.simulate.properties.elastic import elastic_constants
from mlip.simulate.properties.phonon_spectrum import frequencies_at
from mlip.simulate.properties.phonons import phonons, save_phonopy
from mlip.simulate.properties.sites import site_kinds
from mlip.simulate.properties.symmetry import find_symmetry
from tests.simulate.pair_model import PairModel

A = 3.48714  # Å, nickel of EMT at rest.
COARSE = {"mesh": 15.0, "path_points": 5, "temperatures": (0, 300)}


def layered(crystal: Atoms | None = None) -> Atoms:
    """Nickel whose moments alternate from layer to layer along z."""
    atoms = bulk("Ni", cubic=True, a=A) if crystal is None else crystal
    atoms.set_initial_magnetic_moments(np.where(np.rint(2 * atoms.positions[:, 2] / A).astype(int) % 2, -2.0, 2.0))
    return atoms


class Magnet(EMT):
    """EMT whose energies and forces are half as large again where all moments are there, in layers along z."""

    factor = 1.5
    seen: int = 0

    def calculate(self, atoms: Atoms | None = None, *rest: Any, **more: Any) -> None:
        super().calculate(atoms, *rest, **more)
        if np.array_equal(atoms.get_initial_magnetic_moments(), layered(atoms.copy()).get_initial_magnetic_moments()):
            type(self).seen += 1
            for name in ("forces", "energy", "free_energy", "stress"):
                self.results[name] = self.results[name] * self.factor


class Spring(EMT):
    """EMT with 50 GPa along z where moments differ, by the square of the Lagrangian strain."""

    def calculate(self, atoms: Atoms | None = None, *rest: Any, **more: Any) -> None:
        super().calculate(atoms, *rest, **more)
        if np.ptp(atoms.get_initial_magnetic_moments()) > 1:
            c = atoms.cell.array[2] / A
            strain = (c @ c - 1) / 2
            self.results["energy"] += 25 * GPA * A**3 * strain**2
            stress = 50 * GPA * strain * np.outer(c, c) * A**3 / atoms.get_volume()
            self.results["stress"] = self.results["stress"] + stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]


class Levels(EMT):
    """EMT with 1 eV for each μB, of either sign, and each charge."""

    def calculate(self, atoms: Atoms | None = None, *rest: Any, **more: Any) -> None:
        super().calculate(atoms, *rest, **more)
        shift = np.abs(atoms.get_initial_magnetic_moments()).sum() + np.abs(atoms.get_initial_charges()).sum()
        for name in ("energy", "free_energy"):
            self.results[name] += shift


def test_kinds_and_their_symmetry() -> None:
    atoms = layered()
    kinds = site_kinds(atoms, EMT(), "It")
    np.testing.assert_array_equal(kinds, [0, 1, 1, 0])
    assert find_symmetry(atoms, 0.01).spacegroup == "Fm-3m (225)"
    assert find_symmetry(atoms, 0.01, kinds).spacegroup == "P4/mmm (123)"
    # A model of this package does not read them.
    assert not site_kinds(atoms, MLIPCalculator(PairModel()), "It").any()
    masses = atoms.get_masses()
    masses[3] = 60.0
    atoms.set_masses(masses)
    assert site_kinds(atoms, EMT(), "It", masses=True).tolist() == [0, 1, 1, 2]
    atoms.set_initial_magnetic_moments([2.0, 2.01, 2.0, 1.99])
    assert not site_kinds(atoms, EMT(), "It").any()


def test_elastic_tensor_of_a_magnet_is_not_cubic() -> None:
    with_spring, without = (
        elastic_constants(layered(), calculator(), relax_ions=False) for calculator in (Spring, EMT)
    )
    expected = without.as_given.copy()
    expected[2, 2] += 50 * GPA
    np.testing.assert_allclose(with_spring.as_given, expected, atol=0.2 * GPA)
    assert with_spring.spacegroup == "P4/mmm (123)"


def test_phonons_of_a_magnet() -> None:
    pytest.importorskip("seekpath")
    Magnet.seen = 0
    magnet = phonons(layered(), Magnet(), supercell=(2, 2, 2), **COARSE)
    assert Magnet.seen >= 1 + magnet.num_displacements
    plain = phonons(bulk("Ni", cubic=True, a=A), EMT(), supercell=(2, 2, 2), **COARSE)
    assert (magnet.formula, magnet.spacegroup) == ("Ni2", "P4/mmm (123)")
    # All modes of the smaller cell are among those of the larger one, at folded wave vectors.
    assert magnet.highest == pytest.approx(np.sqrt(1.5) * plain.highest, rel=2e-3)


def test_isotopes_are_no_primitive_cell(tmp_path: Path) -> None:
    phonopy = pytest.importorskip("phonopy")
    pytest.importorskip("seekpath")
    crystal = bulk("Cu", cubic=True, a=3.5899)
    crystal.set_masses([63.5, 63.5, 63.5, 6.35])
    result = phonons(crystal, EMT(), supercell=(2, 2, 2), **COARSE)
    cell = phonopy.structure.atoms.PhonopyAtoms(
        symbols=["Cu"] * 4, cell=crystal.cell.array, scaled_positions=crystal.get_scaled_positions(),
        masses=crystal.get_masses(),
    )  # fmt: skip
    other = phonopy.Phonopy(cell, np.diag([2, 2, 2]), "P", log_level=0)
    other.force_constants = _constants(crystal, other.supercell)
    points = np.array([[0, 0, 0], [0.5, 0, 0], [0, 0, 0.5], [0.1, 0.2, 0.3]])
    expected = other.run_qpoints(points).frequencies
    assert result.formula == "Cu4"
    assert expected.shape == (4, 12)
    assert np.sort(result.gamma())[-1] > 15
    np.testing.assert_allclose(frequencies_at(result.phonopy, points), expected, atol=5e-3)
    assert result.as_dict()["atoms_primitive"] == 4
    save_phonopy(tmp_path / "phonopy_params.yaml", result)
    loaded = phonopy.load(tmp_path / "phonopy_params.yaml", log_level=0)
    np.testing.assert_allclose(loaded.run_qpoints(points).frequencies, expected, atol=5e-3)


def _constants(crystal: Atoms, supercell: Any) -> np.ndarray:
    """Force constants (n, n, 3, 3) by displacing every atom of phonopy's supercell, without any symmetry."""
    atoms = Atoms(supercell.symbols, cell=supercell.cell, positions=supercell.positions, pbc=True, calculator=EMT())
    found = np.zeros((len(atoms), len(atoms), 3, 3))
    for i in range(len(atoms)):
        for axis in range(3):
            ends = []
            for step in (0.01, -0.02):
                atoms.positions[i, axis] += step
                ends.append(atoms.get_forces())
            atoms.positions[i, axis] += 0.01
            found[i, :, axis] = (ends[1] - ends[0]) / 0.02
    return (found + found.transpose(1, 0, 3, 2)) / 2


def test_slabs_of_a_magnet() -> None:
    magnet = layered()
    magnet.set_initial_charges([0.5, -0.5, -0.5, 0.5])
    magnet.set_tags([1, 2, 3, 4])
    options = {"thickness": 6.0, "vacuum": 6.0, "fmax": 0.05}
    for plane in ((1, 0, 0), (0, 0, 1)):
        (found,) = surface_energies(magnet, Levels(), [plane], **options).surfaces
        slab = found.structure
        moments, charges = slab.get_initial_magnetic_moments(), slab.get_initial_charges()
        np.testing.assert_array_equal(charges, moments / 4)
        assert moments.sum() == 0
        # Of 12 neighbours 4 are of the same layer, which is that of the bulk, and 8 of another one.
        repeated = slab * (3, 3, 1)
        pairs = repeated.get_all_distances(mic=True)
        neighbours = (pairs > 0.1) & (pairs < 0.8 * A)
        inner = neighbours.sum(axis=1) == 12
        alike = np.equal.outer(repeated.get_initial_magnetic_moments(), repeated.get_initial_magnetic_moments())
        assert inner.any()
        assert ((neighbours & alike).sum(axis=1)[inner] == 4).all()
        # As large as without moments: the levels cancel if all are there.
        (plain,) = surface_energies(bulk("Ni", cubic=True, a=A), EMT(), [(1, 0, 0)], **options).surfaces
        assert found.energy == pytest.approx(plain.energy, rel=0.02)


def test_vacancies_of_a_magnet_are_of_two_kinds() -> None:
    result = vacancies(layered(), Levels(), supercell=(2, 2, 2), fmax=0.5)
    assert [(found.site, found.multiplicity) for found in result.vacancies] == [(0, 2), (1, 2)]


@pytest.mark.parametrize(
    "compute", [elastic_constants, vacancies, phonons, lambda *both: surface_energies(*both, [(1, 1, 1)])]
)
def test_noncollinear_moments_are_refused(compute: Any) -> None:
    atoms = bulk("Ni", cubic=True, a=A)
    atoms.set_initial_magnetic_moments(None)
    atoms.set_initial_magnetic_moments(np.tile([2.0, 0.0, 0.0], (4, 1)))
    with pytest.raises(SimulationError, match="non-collinear"):
        compute(atoms, Levels())
