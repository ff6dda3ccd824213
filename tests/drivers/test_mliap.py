"""The unified ML-IAP class against what LAMMPS would hand it: own atoms, ghosts and pairs."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

from mlip.calculators.ase import MLIPCalculator
from mlip.core.errors import ConfigError, StructureError
from mlip.data.neighbours import neighbour_list
from mlip.drivers.mliap import MLIAPModel
from mlip.models.base import AtomisticModel
from tests.components import compose_model, random_model
from tests.simulate.pair_model import PairModel


class Data:
    """Stands in for LAMMPS: its arrays, and how it adds up forces of pairs."""

    def __init__(self, atoms: Atoms, element_types: list[str], cutoff: float) -> None:
        pairs = neighbour_list(atoms.positions, atoms.cell.array, atoms.pbc, cutoff + 1.0)
        senders, receivers, shifts = pairs
        images = {(atom, 0, 0, 0): atom for atom in range(len(atoms))}
        for sender, shift in zip(senders.tolist(), shifts.tolist(), strict=True):
            images.setdefault((sender, *shift), len(images))
        self.owners = np.array([image[0] for image in images])
        where = np.array([atoms.positions[image[0]] + image[1:] @ atoms.cell.array for image in images])
        self.nlocal, self.ntotal, self.npairs = len(atoms), len(images), len(senders)
        self.elems = np.array([element_types.index(atoms.symbols[owner]) for owner in self.owners], dtype=np.int32)
        # LAMMPS orders pairs by atom, neighbours at will.
        order = np.random.default_rng(0).permutation(len(senders))
        order = order[np.argsort(receivers[order], kind="stable")]
        ghosts = [images[(s, *shift)] for s, shift in zip(senders.tolist(), shifts.tolist(), strict=True)]
        self.pair_i, self.pair_j = receivers[order].astype(np.int32), np.array(ghosts, dtype=np.int32)[order]
        self.rij = where[self.pair_j] - where[self.pair_i]
        self.eatoms, self.energy = np.zeros(len(atoms)), 0.0
        self.f, self.virial = np.zeros((self.ntotal, 3)), np.zeros((3, 3))

    def update_pair_forces(self, fij: np.ndarray) -> None:
        np.add.at(self.f, self.pair_i, fij)
        np.subtract.at(self.f, self.pair_j, fij)
        self.virial -= self.rij.T @ fij

    def forces(self) -> np.ndarray:
        """Forces of ghosts go back to their atoms."""
        found = np.zeros((self.nlocal, 3))
        np.add.at(found, self.owners, self.f)
        return found


def alloy() -> Atoms:
    atoms = bulk("H", "fcc", a=3.185, cubic=True) * (2, 1, 1)
    atoms.rattle(0.1, seed=1)
    atoms.numbers[::3] = 6
    return atoms


def one_interaction() -> AtomisticModel:
    options = ("model.num_layers=1", "model.cutoff=3.5")
    return random_model(compose_model("nequip", *options)).double()


@pytest.mark.parametrize("model", [PairModel(), one_interaction()], ids=["pairs", "nequip"])
def test_numbers_are_ases(model: AtomisticModel) -> None:
    atoms, unified = alloy(), MLIAPModel(model, ["H", "C"])
    assert 2 * unified.rcutfac == model.cutoff
    data = Data(atoms, unified.element_types, model.cutoff)
    unified.compute_descriptors(data)
    unified.compute_gradients(data)
    unified.compute_forces(data)
    atoms.calc = MLIPCalculator(model)
    assert data.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-10)
    assert data.eatoms == pytest.approx(atoms.get_potential_energies(), abs=1e-10)
    assert np.abs(data.forces() - atoms.get_forces()).max() < 1e-10
    assert np.abs(atoms.get_forces()).max() > 0.1
    assert np.abs(data.virial + atoms.get_stress(voigt=False) * atoms.get_volume()).max() < 1e-9


def test_atoms_without_neighbours_have_an_energy() -> None:
    atoms = Atoms("Cu2", [[0, 0, 0], [20, 0, 0]], cell=[40, 40, 40], pbc=True)
    unified = MLIAPModel(PairModel())
    data = Data(atoms, unified.element_types, 4.0)
    unified.compute_forces(data)
    assert data.energy == pytest.approx(-2 * 1.29)
    assert not data.f.any()


def test_what_ml_iap_cannot_do_is_refused() -> None:
    with pytest.raises(ConfigError, match="several interactions"):
        MLIAPModel(random_model(compose_model("nequip", "model.num_layers=2")))
    with pytest.raises(StructureError, match="does not know Si"):
        MLIAPModel(PairModel(), ["Si"])


def test_coinciding_atoms_are_an_error() -> None:
    model = PairModel()
    unified = MLIAPModel(model)
    data = Data(alloy(), unified.element_types, model.cutoff)
    with torch.no_grad():
        unified.model.weights.fill_(float("nan"))
    with pytest.raises(StructureError, match="coincide"):
        unified.compute_forces(data)
