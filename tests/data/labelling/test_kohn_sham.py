"""Labels by PySCF: against stored ones, finite differences, and the limits that are refused."""

from __future__ import annotations

import pickle
import sqlite3
from functools import partial

import h5py
import numpy as np
import pytest

from mlip.core.errors import ConfigError, DataError
from mlip.core.units import BOHR
from mlip.data import pyscf_extra
from mlip.data.labelling.base import NotLabelled
from mlip.data.labelling.kohn_sham import KohnShamLabeller
from mlip.data.molecular_orbitals import molecular_orbitals
from mlip.data.orbitals import reorder
from mlip.data.quantum import overlap
from tests.data.labelling.made import WATER

NUMBERS = np.array([8, 1, 1])
CHEAP = {"xc": "lda,vwn", "basis": "sto-3g", "grid_level": 0, "conv_tol": 1e-11, "grad_tol": 1e-6}


@pytest.fixture(autouse=True)
def _pyscf():
    pytest.importorskip("pyscf")


@pytest.mark.reference
def test_stored_water(reference_data):
    """The first row of the sample: matrix, energy, forces, orbital energies."""
    path = reference_data / "qh9" / "QH9Dynamic_sample_water.db"
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)
    positions, matrix, energy = connection.execute("SELECT pos, Ham, epot FROM data WHERE rowid = 1").fetchone()
    connection.close()
    with h5py.File(path.with_name(f"{path.stem}_extras.h5")) as extras:
        forces, levels = extras["0_0"]["forces_Ha_per_bohr"][:], extras["0_0"]["mo_energy"][:]
    positions = np.frombuffer(positions).reshape(3, 3) * BOHR
    labels = KohnShamLabeller(["energy", "forces", "hamiltonian"]).label(NUMBERS, positions)
    assert abs(labels.energy - energy) < 1e-9
    stored = reorder(np.frombuffer(matrix).reshape(24, 24), NUMBERS, "def2-svp", "pyscf", "mlip")
    assert np.abs(labels.hamiltonian - stored).max() < 1e-6
    assert np.array_equal(labels.hamiltonian, labels.hamiltonian.T)
    # The stored forces leave out that the grid moves with the atoms; these add up to zero.
    assert np.abs(labels.forces - forces).max() < 1e-5
    assert np.abs(labels.forces.sum(0)).max() < 1e-12 < np.abs(forces.sum(0)).max()
    found = molecular_orbitals(labels.hamiltonian, overlap(NUMBERS, positions, "def2-svp")).energies
    assert np.abs(found - levels).max() < 1e-5


def test_forces_are_derivatives_of_the_energy():
    """Central differences, on a coarse grid, where forces without its response are wrong."""
    labeller = KohnShamLabeller(["energy", "forces"], **CHEAP)
    assert labeller.fields == ("energy", "forces")
    labels = labeller.label(NUMBERS, WATER)
    assert labels.hamiltonian is None
    step = 1e-3
    for atom, axis in ((0, 2), (1, 1)):
        shift = np.zeros((3, 3))
        shift[atom, axis] = step * BOHR
        plus, minus = (labeller.label(NUMBERS, WATER + sign * shift).energy for sign in (1, -1))
        assert labels.forces[atom, axis] == pytest.approx(-(plus - minus) / (2 * step), abs=3e-7)


def test_second_order_goes_on_where_diis_ends():
    whole = KohnShamLabeller(**CHEAP).label(NUMBERS, WATER)
    assert whole.cycles > 4
    helped = KohnShamLabeller(["energy", "forces", "hamiltonian"], **CHEAP, max_cycle=4)
    found = pickle.loads(pickle.dumps(helped)).label(NUMBERS, WATER)
    assert found.energy == pytest.approx(whole.energy, abs=1e-10)
    assert np.abs(found.hamiltonian - whole.hamiltonian).max() < 1e-6
    assert np.abs(found.forces.sum(0)).max() < 1e-10
    with pytest.raises(NotLabelled, match="did not converge in 1 cycles"):
        KohnShamLabeller(**CHEAP, max_cycle=1).label(NUMBERS, WATER)


def test_what_is_recorded():
    labeller = KohnShamLabeller(["hamiltonian", "energy"], xc="B3LYP", basis="STO-3G")
    assert labeller.fields == ("energy", "hamiltonian")
    assert labeller.level_of_theory == {
        "method": "restricted Kohn-Sham", "functional": "b3lyp", "basis": "sto-3g",
        "grid_level": 3, "conv_tol": 1e-13, "grad_tol": 3.16e-5,
    }  # fmt: skip
    assert KohnShamLabeller(xc="b3lypg").level_of_theory["functional"] == "b3lyp"
    assert KohnShamLabeller(xc="B3LYP5").level_of_theory["functional"] == "b3lyp5"
    assert KohnShamLabeller(xc="M06-2X").level_of_theory["functional"] == "m06-2x"
    assert labeller.program.startswith("PySCF 2.")


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"xc": "b3lp5"}, DataError, r"no functional 'b3lp5'\. Did you mean 'b3lyp5'\?"),
        ({"xc": " "}, ConfigError, "must name a functional"),
        ({"basis": "def2-svpp1"}, DataError, r"no basis 'def2-svpp1'\. Did you mean 'def2-svp"),
        ({"grid_level": 10}, ConfigError, "grid_level must be 0 to 9, got 10"),
        ({"conv_tol": 0.0}, ConfigError, "conv_tol must be a small positive number"),
        ({"grad_tol": -1e-5}, ConfigError, "grad_tol must be a small positive number"),
        ({"max_cycle": 0}, ConfigError, "max_cycle must be at least 1"),
        ({"fields": ["energy", "force"]}, ConfigError, "Did you mean 'forces'"),
        ({"fields": ["hamiltonian"]}, ConfigError, "must have the energy"),
    ],
)
def test_settings_that_are_refused(options, kind, message):
    with pytest.raises(kind, match=message):
        KohnShamLabeller(**options)


def test_molecules_that_are_refused():
    labeller = KohnShamLabeller()
    labeller.check(NUMBERS)
    with pytest.raises(DataError, match="even number of electrons, HO with charge 0 has 9"):
        labeller.check(np.array([8, 1]))
    with pytest.raises(DataError, match="The basis 6-31g has no orbitals for U"):
        KohnShamLabeller(basis="6-31G").check(np.array([92]))


def test_without_pyscf(monkeypatch):
    monkeypatch.setattr(pyscf_extra, "find_spec", lambda name: None)
    for make in (KohnShamLabeller, partial(KohnShamLabeller, basis="sto-3g")):
        with pytest.raises(DataError, match=r"PySCF is needed for computing labels .*pip install 'mlip-kit\[qm\]'"):
            make()


def test_forces_of_an_open_shell_are_derivatives_of_its_energy():
    """NH2, whose ground state is not degenerate; with a density functional and its grid."""
    from mlip.data.labelling.structures import Structure

    labeller = KohnShamLabeller(["energy", "forces"], **CHEAP)
    positions, step = np.array([[0, 0, 0], [0, 0.8, 0.63], [0, -0.8, 0.6]]), 1e-3
    shift = np.zeros((3, 3))
    shift[1, 2] = step * BOHR

    def computed(places):
        return labeller.compute(Structure(np.array([7, 1, 1]), places, "a", 0, spin=2))

    forces = computed(positions).forces
    plus, minus = (computed(positions + sign * shift).energy for sign in (1, -1))
    assert forces[1, 2] == pytest.approx(-(plus - minus) / (2 * step), abs=5e-7)
