"""What Hamiltonian models refuse: one sentence, before anything is computed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from ase import Atoms

from mlip import HamiltonianCalculator, MLIPCalculator
from mlip.calculators.pyscf_guess import predicted_initial_guess, scf_cycles
from mlip.core.errors import ConfigError, DataError, StructureError
from mlip.data import pyscf_extra
from mlip.models.committee import committee_of
from tests.calculators.hamiltonian_models import StoredHamiltonian, random_hamiltonian_model, water
from tests.components import small_facet


class NeverRun(StoredHamiltonian):
    """Fails when it is evaluated."""

    def forward(self, graph):
        raise AssertionError("a structure that is refused was evaluated")


def changed(change: Callable[[Atoms], object]) -> Atoms:
    atoms = water()
    change(atoms)
    return atoms


def scale(factor: float) -> Callable[[Atoms], object]:
    return lambda atoms: atoms.set_positions(atoms.positions * factor)


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (Atoms("NH3", np.eye(4, 3)), "The structure contains N, which the model does not know; it knows H, O"),
        (Atoms(), "needs at least one atom"),
        (changed(lambda a: a.positions.__setitem__((0, 0), np.nan)), "Positions must be finite"),
        (
            changed(lambda a: (a.center(5), a.set_pbc(True))),
            "periodic along a, b, c, and the model knows neutral closed-shell molecules only: if it",
        ),
        (changed(lambda a: a.set_pbc([False, True, False])), "periodic along b"),
        (changed(lambda a: a.info.update(charge=1)), "says charge 1, and the model knows neutral closed-shell"),
        (changed(lambda a: a.info.update(charge="-1")), "says charge -1"),
        (changed(lambda a: a.info.update(charge="plus")), "says charge plus"),
        (changed(lambda a: a.info.update(Total_Charge=1)), "says Total_Charge 1"),
        (changed(lambda a: a.info.update(spin=3)), r"says spin 3 \(the multiplicity 2S \+ 1\).*, spin 1\."),
        (changed(lambda a: a.info.update(spin=0)), "says spin 0"),
        (changed(lambda a: a.info.update(multiplicity=2)), "says multiplicity 2"),
        (changed(lambda a: a.set_initial_charges([1, 0, 0])), "The structure's initial_charges add up to 1 e"),
        (changed(lambda a: a.set_initial_charges([np.nan, 0, 0])), "add up to nan e"),
        (changed(lambda a: a.set_initial_magnetic_moments([2, 0, 0])), "add up to 2 unpaired electrons"),
        (changed(lambda a: a.__delitem__(2)), "HO has an odd number of electrons, 9.*is an atom missing?"),
        (changed(scale(1 / 0.529177)), r"1\.87 times a bond: the positions are probably in Bohr, .* by 0\.529177"),
        (changed(scale(0.529177)), r"0\.52 times a bond: do atoms overlap, or are the positions in another unit"),
    ],
)
def test_structures(atoms: Atoms, message: str) -> None:
    calculator = HamiltonianCalculator(NeverRun(np.eye(24)))
    with pytest.raises(StructureError, match=message) as caught:
        calculator.predict(atoms, orbitals=True)
    assert "\n" not in str(caught.value)


def test_what_is_right_is_not_refused() -> None:
    calculator = HamiltonianCalculator(StoredHamiltonian(np.eye(24)))
    atoms = water()
    atoms.info.update(charge=0, spin=1, name="water")
    atoms.set_initial_charges([-0.8, 0.4, 0.4])
    assert calculator.predict(atoms).num_orbitals == 24
    stretched = changed(scale(1.8))
    assert HamiltonianCalculator(StoredHamiltonian(np.eye(24)), check_distances=False).predict(stretched)


def test_a_charge_that_is_stated_later_is_seen() -> None:
    pytest.importorskip("pyscf")
    atoms = water()
    atoms.calc = HamiltonianCalculator(StoredHamiltonian(np.diag(np.arange(24.0))))
    atoms.get_dipole_moment()
    for key in ("charge", "total_charge"):
        atoms.info = {}
        atoms.get_dipole_moment()
        atoms.info[key] = 1
        with pytest.raises(StructureError, match=f"says {key} 1"):
            atoms.get_dipole_moment()


def test_models_of_the_other_kind() -> None:
    with pytest.raises(ConfigError, match=r"A Hamiltonian model is needed.* predicts energy.*Use MLIPCalculator"):
        HamiltonianCalculator(small_facet())
    with pytest.raises(ConfigError, match=r"predicts hamiltonian. Use HamiltonianCalculator \(mlip hamiltonian\)"):
        MLIPCalculator(random_hamiltonian_model())
    with pytest.raises(ConfigError, match="takes one model or the path of its file, got"):
        HamiltonianCalculator([random_hamiltonian_model()])
    with pytest.raises(ConfigError, match="Models of Hamiltonians cannot form a committee"):
        committee_of([random_hamiltonian_model()] * 2)


def test_without_pyscf(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pyscf_extra, "find_spec", lambda name: None)
    calculator = HamiltonianCalculator(StoredHamiltonian(np.eye(24)))
    assert calculator.predict(water()).overlap is None
    for options in ({"overlap": True}, {"orbitals": True}):
        with pytest.raises(DataError, match=r"PySCF is needed for overlaps and orbitals .* 'mlip-kit\[qm\]'"):
            calculator.predict(water(), **options)
    with pytest.raises(DataError, match="PySCF is needed for self-consistent calculations"):
        scf_cycles(water(), calculator)
    with pytest.raises(DataError, match="PySCF is needed for starting PySCF from a prediction"):
        predicted_initial_guess(None, calculator)
    difference = random_hamiltonian_model("model/target=difference", "model.onsite=null")
    with pytest.raises(DataError, match="PySCF is needed"):
        HamiltonianCalculator(difference).predict(water())


def test_levels_of_theory_that_are_not_known() -> None:
    pytest.importorskip("pyscf")
    nameless = StoredHamiltonian(np.eye(24), functional=None)
    with pytest.raises(ConfigError, match=r"name no functional: give one \(--functional b3lyp5\)"):
        scf_cycles(water(), nameless)
    with pytest.raises(DataError, match=r"no functional 'b3lp'\. Did you mean 'b3lyp'\?"):
        scf_cycles(water(), nameless, "b3lp")
    nameless.needs = ("initial_hamiltonian",)
    with pytest.raises(ConfigError, match="did not say with which functional"):
        HamiltonianCalculator(nameless).predict(water())
    unknown = StoredHamiltonian(np.eye(24), basis="def2-svpx")
    with pytest.raises(DataError, match="Did you mean 'def2-svp'"):
        HamiltonianCalculator(unknown).predict(water(), overlap=True)


def molecules() -> dict[str, tuple[dict[str, object], type[Exception], str]]:
    atoms = "O 0 0 0.1173; H 0 0.7572 -0.4692; H 0 -0.7572 -0.4692"
    return {
        "basis": ({"basis": "sto-3g"}, DataError, r"degrees \[0, 0, 1\], not \[0, 0, 0, 1, 1, 2\] as in def2-svp"),
        "exponents": ({"basis": {"O": "def2-svp", "H": "6-31g**"}}, DataError, r"atom 1 \(H\) have other exponents"),
        "cartesian": ({"cart": True}, DataError, "Cartesian orbitals, the model spherical ones"),
        "charge": ({"charge": 2}, StructureError, "has charge 2 and 0 unpaired electrons"),
        "spin": ({"spin": 2}, StructureError, "has charge 0 and 2 unpaired electrons"),
        "unit": ({"atom": atoms.replace("0.7572", "1.4309").replace("0.4692", "1.1084")}, StructureError, "in Bohr"),
        "ghost": ({"atom": atoms + "; ghost-O 0 0 5"}, StructureError, "Atom 3 is a ghost atom"),
        "core": ({"ecp": {"O": "bfd"}}, DataError, r"Atom 0 \(O\) has 2 electrons in an effective core .* with no ecp"),
        "elements": (
            {"atom": "C 0 0 0; O 0 0 1.13"},
            StructureError,
            "The structure contains C, which the model does not know; it knows H, O",
        ),
    }


@pytest.mark.parametrize("name", molecules())
def test_molecules_of_pyscf(name: str) -> None:
    gto = pytest.importorskip("pyscf.gto")
    options, kind, message = molecules()[name]
    atoms = "O 0 0 0.1173; H 0 0.7572 -0.4692; H 0 -0.7572 -0.4692"
    mol = gto.M(**{"atom": atoms, "basis": "def2-svp", "verbose": 0, **options})
    calculator = HamiltonianCalculator(NeverRun(np.eye(24)))
    with pytest.raises(kind, match=message):
        predicted_initial_guess(mol, calculator)
    with pytest.raises(kind, match=message):
        scf_cycles(mol, calculator)


def test_what_is_no_molecule_of_pyscf() -> None:
    gto = pytest.importorskip("pyscf.gto")
    from pyscf.pbc.gto import Cell

    calculator = HamiltonianCalculator(NeverRun(np.eye(24)))
    for wrong in (water(), gto.Mole()):
        with pytest.raises(DataError, match=r"A pyscf\.gto\.Mole is needed, built with its atoms"):
            predicted_initial_guess(wrong, calculator)
    with pytest.raises(StructureError, match="periodic cell of PySCF"):
        predicted_initial_guess(Cell(), calculator)
