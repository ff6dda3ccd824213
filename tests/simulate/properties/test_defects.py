"""Vacancies, surfaces, adsorption and hulls against the same differences taken by hand with ASE and pymatgen."""

import json
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc100, fcc111, molecule
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.optimize import BFGS
from ase.units import J, m

from mlip.calculators.ase import MLIPCalculator
from mlip.core.errors import MlipError, SimulationError
from mlip.simulate.properties.defects import adsorption_energies, surface_energies, vacancies
from mlip.simulate.properties.hull import Entry, energies_above_hull, read_entries, relaxed_entries
from tests.simulate.pair_model import PairModel


def relaxed_energy(atoms: Atoms) -> float:
    atoms = atoms.copy()
    atoms.calc = EMT()
    BFGS(atoms, logfile=None).run(fmax=0.005, steps=300)
    return atoms.get_potential_energy()


def test_vacancy_by_hand() -> None:
    crystal = bulk("Cu", cubic=True, a=3.5899)
    result = vacancies(crystal, EMT(), supercell=(2, 2, 2), fmax=0.005)
    perfect = crystal * (2, 2, 2)
    hole = perfect.copy()
    del hole[5]
    expected = relaxed_energy(hole) - 31 / 32 * relaxed_energy(perfect)
    (found,) = result.vacancies
    assert found.formation_energy == pytest.approx(expected, abs=1e-4)
    assert (found.element, found.multiplicity, len(found.structure)) == ("Cu", 4, 31)
    assert "only 7.2 Å wide" in result.warnings[0]


@pytest.mark.slow
def test_vacancies_of_a_compound_at_each_site() -> None:
    crystal = bulk("Cu", cubic=True, a=3.75)
    crystal.symbols[0] = "Au"
    result = vacancies(crystal, EMT(), supercell=(2, 2, 2), relax_first=True, chemical_potentials={"Cu": 0.0})
    assert [(found.element, found.multiplicity) for found in result.vacancies] == [("Au", 1), ("Cu", 3)]
    gold, copper = result.vacancies
    assert gold.formation_energy is None
    assert copper.formation_energy == copper.removal_energy
    assert any("No chemical potential of Au" in text for text in result.warnings)


@pytest.mark.slow
def test_model_in_a_batch_as_one_by_one() -> None:
    crystal = bulk("Cu", cubic=True, a=3.4)
    result = vacancies(crystal, MLIPCalculator(PairModel(), kernels="off"), supercell=(2, 2, 2), relax_first=True)
    (found,) = result.vacancies
    again = found.structure.copy()
    again.calc = MLIPCalculator(PairModel(), kernels="off")
    assert again.get_potential_energy() == pytest.approx(found.structure.get_potential_energy(), abs=1e-5)
    assert np.abs(again.get_forces()).max() < 0.011
    assert found.formation_energy == pytest.approx(found.removal_energy + result.chemical_potentials["Cu"])


def test_surfaces_as_slabs_of_ase() -> None:
    a = 3.5899
    result = surface_energies(bulk("Cu", a=a), EMT(), [(1, 1, 1), (2, 0, 0)], fmax=0.005)
    bulk_energy = relaxed_energy(bulk("Cu", a=a))
    for make, found in zip((fcc111, fcc100), result.surfaces):
        slab = make("Cu", (1, 1, 7), a=a, vacuum=8)
        area = np.linalg.norm(np.cross(*slab.cell.array[:2]))
        expected = (relaxed_energy(slab) - 7 * bulk_energy) / (2 * area)
        assert found.energy == pytest.approx(expected, rel=5e-3)
        assert found.symmetric
        assert found.as_dict()["energy_J_per_m2"] == pytest.approx(found.energy / (J / m**2))
    assert [found.miller for found in result.surfaces] == [(1, 1, 1), (1, 0, 0)]


@pytest.mark.slow
def test_adsorption_by_hand() -> None:
    slab = fcc111("Cu", (2, 2, 2), a=3.6, vacuum=8)
    slab.set_constraint(FixAtoms(mask=slab.get_tags() > 1))
    result = adsorption_energies(slab, Atoms("O"), EMT(), [(0.0, 0.0), (1 / 6, 1 / 6)], height=1.5, fmax=0.01)
    for energy, structure in zip(result.energies, result.structures):
        assert energy == pytest.approx(
            structure.get_potential_energy() - relaxed_energy(slab) - relaxed_energy(Atoms("O")), abs=2e-3
        )
        np.testing.assert_array_equal(structure.positions[:4], slab.positions[:4])
    ontop, hollow = result.energies
    assert hollow < ontop < 0
    assert result.structures[1].positions[-1, 2] < result.structures[0].positions[-1, 2]


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: vacancies(molecule("H2O"), EMT()), "a molecule"),
        (lambda: vacancies(bulk("Cu"), EMT(), supercell=(1, 1, 1)), "single atom"),
        (lambda: surface_energies(bulk("Cu"), EMT(), [(0, 0, 0)]), "name no plane"),
        (lambda: surface_energies(bulk("Cu"), EMT(), [(1, 1)]), "three whole numbers"),
        (lambda: surface_energies(bulk("Cu"), EMT(), [(1, 1, 1, 0)]), "i is −h − k"),
        (lambda: surface_energies(bulk("Cu"), EMT(), []), "at least one plane"),
        (lambda: surface_energies(bulk("Cu"), EMT(), [(1, 1, 1)], vacuum=1), "vacuum"),
        (lambda: adsorption_energies(bulk("Cu") * (2, 2, 2), Atoms("O"), EMT(), [(0, 0)]), "of vacuum"),
        (lambda: adsorption_energies(molecule("H2O"), Atoms("O"), EMT(), [(0, 0)]), "first two axes"),
        (lambda: adsorption_energies(fcc111("Cu", (1, 1, 2), vacuum=9), Atoms("O"), EMT(), []), "at least one"),
        (
            lambda: adsorption_energies(fcc111("Cu", (1, 1, 2), vacuum=9), Atoms("O"), EMT(), [(0, 0)], height=0.4),
            "larger height",
        ),
    ],
)
def test_refusals(call, match: str) -> None:
    with pytest.raises(MlipError, match=match):
        call()


class TestHull:
    references = (Entry("A", "Cu4", -16.0), Entry("B", "Au", -3.0), Entry("AB", "CuAu", -7.8))

    def test_by_hand(self) -> None:
        entries = [Entry("rich", "Cu3Au", -15.2), Entry("poor", "Cu3Au", -14.0), Entry("worse", "CuAu", -7.0)]
        rich, poor, worse = energies_above_hull(entries, self.references)
        assert rich.formation_energy == pytest.approx((-15.2 + 3 * 4 + 3) / 4)
        # Between Cu and CuAu (−0.4 eV/atom) the line is at −0.2; the mixture keeps the elements' shares.
        assert rich.above_hull == pytest.approx(-0.05 + 0.2)
        assert poor.above_hull == pytest.approx(0.25 + 0.2)
        assert worse.above_hull == pytest.approx(0.4)
        assert worse.decomposition == {"CuAu": pytest.approx(1.0)}
        assert poor.decomposition == {"Cu": pytest.approx(0.5), "CuAu": pytest.approx(0.5)}
        (stable,) = energies_above_hull([Entry("new", "CuAu", -8.0)], self.references)
        assert stable.above_hull == 0

    def test_files(self, tmp_path: Path) -> None:
        (tmp_path / "r.csv").write_text("name,formula,energy_eV,energy_eV_per_atom\na,Cu4,-16,\n,Au,,-3\n")
        (tmp_path / "r.json").write_text(json.dumps([{"formula": "CuAu", "energy_eV_per_atom": -3.9}]))
        found = read_entries(tmp_path / "r.csv") + read_entries(tmp_path / "r.json")
        assert [(e.formula, e.energy) for e in found] == [("Cu4", -16), ("Au", -3), ("CuAu", -7.8)]

    @pytest.mark.parametrize("text", ["", "formula,energy_eV\nCu,\n", "formula,energy_eV\nXq9,-1\n", "a,b\n1,2\n"])
    def test_bad_files(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "r.csv").write_text(text)
        with pytest.raises(SimulationError):
            read_entries(tmp_path / "r.csv")
        with pytest.raises(SimulationError):
            read_entries(tmp_path / "none.json")

    def test_an_element_below_its_reference_is_told(self) -> None:
        entries = [Entry("better", "Cu2", -8.4), Entry("same", "Cu", -4.0005), Entry("mix", "Cu3Au", -15.2)]
        better, same, mix = energies_above_hull(entries, self.references)
        (text,) = better.warnings
        assert "'better' (-4.2000 eV/atom) lies below the reference 'A' of Cu (-4.0000)" in text
        assert better.as_dict()["warnings"] == [text]
        assert not same.warnings + mix.warnings
        assert mix.formation_energy == pytest.approx((-15.2 + 3 * 4.2 + 3) / 4)

    def test_charged_structures_are_refused(self) -> None:
        ion = Atoms("H", info={"charge": 1, "spin": 1})
        with pytest.raises(SimulationError, match="'ion' has the charge 1: "):
            relaxed_entries([("atom", Atoms("H", info={"charge": 0, "spin": 2})), ("ion", ion)], EMT())

    def test_missing_element(self) -> None:
        with pytest.raises(SimulationError, match="element\\(s\\) O"):
            energies_above_hull([Entry("x", "CuO", -1.0)], self.references)

    def test_relaxed_references(self) -> None:
        calculator = MLIPCalculator(PairModel(), kernels="off")
        structures = [("copper", bulk("Cu", a=3.4)), ("gas", Atoms("H2", [[0, 0, 0], [0, 0, 2.4]]))]
        entries, warnings = relaxed_entries(structures, calculator, fmax=0.001)
        assert [entry.formula for entry in entries] == ["Cu", "H2"]
        assert entries[1].energy == pytest.approx(-2 * 1.01 - 0.4 * 1.01 * (1 - (2.4 / 4) ** 2) ** 3, abs=0.05)
        assert not warnings
