"""The bundled matrices: what is in the file, and that PySCF computes them again."""

from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np
import pytest

from mlip.core.units import BOHR, HARTREE
from mlip.data.bond_lengths import CLOSEST, closest_atoms
from mlip.data.datasets.qh9 import QH9Dataset
from mlip.data.labelling.kohn_sham import KohnShamLabeller
from tests.components import repository_root

FOLDER = repository_root() / "data" / "small_molecules"
FIRST = {"H2O": 0, "H3N": 60, "CH4": 90, "CH4O": 120, "C2H6O": 136}
"""First row of each molecule."""


@pytest.fixture(scope="module")
def data() -> QH9Dataset:
    return QH9Dataset(FOLDER / "qh9.db")


def test_what_is_in_the_file(data):
    assert (FOLDER / "qh9.db").stat().st_size < 3e6
    assert (data.variant, data.licence) == ("own", "CC0-1.0")
    assert data.level_of_theory == {
        "method": "restricted Kohn-Sham", "functional": "b3lyp5", "basis": "def2-svp", "grid_level": "3",
        "conv_tol": "1e-11", "grad_tol": "1e-06", "code": "PySCF 2.14.0",
    }  # fmt: skip
    formulas = [sample.atoms.get_chemical_formula() for sample in data]
    assert Counter(formulas) == {"H2O": 60, "H3N": 30, "CH4": 30, "CH4O": 16, "C2H6O": 12}
    assert {name: formulas.index(name) for name in FIRST} == FIRST
    for sample in data:
        assert CLOSEST[0] < closest_atoms(sample.atoms.numbers, sample.atoms.positions)[1] < CLOSEST[1]
        # Neither a force on the whole nor a torque; the grid does not turn with the molecule.
        assert np.abs(sample.labels["forces"].sum(0)).max() < 1e-8
        assert np.abs(np.cross(sample.atoms.positions, sample.labels["forces"]).sum(0)).max() < 0.01


def test_its_page_names_the_file(data):
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert hashlib.sha256((FOLDER / "qh9.db").read_bytes()).hexdigest() in text
    assert f"{(FOLDER / 'qh9.db').stat().st_size} bytes" in text
    assert f"{len(data)} rows" in text


@pytest.mark.slow
@pytest.mark.parametrize("name", FIRST)
def test_rows_are_computed_again(name, data):
    pytest.importorskip("pyscf")
    sample = data[FIRST[name]]
    labeller = KohnShamLabeller(["energy", "forces", "hamiltonian"], conv_tol=1e-11, grad_tol=1e-6)
    labels = labeller.label(sample.atoms.numbers, sample.atoms.positions)
    assert abs(labels.energy - float(sample.labels["energy"]) / HARTREE) < 1e-9
    assert np.abs(labels.hamiltonian - sample.labels["hamiltonian"]).max() < 1e-6
    assert np.abs(labels.forces - sample.labels["forces"] * BOHR / HARTREE).max() < 1e-6
