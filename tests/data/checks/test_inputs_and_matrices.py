"""Charge and multiplicity, Hamiltonian matrices, and elements in few structures."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from mlip.core.errors import DataError
from mlip.data.checks.base import Finding, Seen, Settings, structures, worse_first
from mlip.data.checks.energies import free_atom_energy
from mlip.data.checks.run import run_checks, unreadable
from mlip.data.sample import Sample
from mlip.data.subset import SampleList
from tests.data.checks.generated import found, serious

ORBITALS = {1: 5, 6: 14, 8: 14}


def check(samples, name):
    report = run_checks([SampleList(samples)], Settings(5.0))
    return [finding for finding in report.findings if finding.check == name], report


def charged(name, charge, spin, k=0):
    atoms = molecule(name)
    atoms.rattle(0.02, seed=k)
    labels = {"energy": np.array(-1.0), "charge": np.array(charge), "spin": np.array(spin)}
    return Sample(atoms, labels, {"source": f"{name}:{k}"})


def test_parity_of_electrons():
    good = [
        charged("H2O", 0, 1),
        charged("H2O", 1, 2, 1),
        charged("O2", 0, 3),
        charged("CH3", 0, 2),
        charged("CH3", -1, 1, 3),
    ]
    assert check(good, "charge and spin")[0] == []
    (finding,), _ = check([*good, charged("H2O", 1, 1, 7)], "charge and spin")
    assert (finding.level, finding.count) == ("warning", 1)
    assert finding.examples == ("H2O:7",)
    unpaired = [charged("H2O", 0, 2, k) for k in range(5)]
    (finding,), _ = check(unpaired, "charge and spin")
    assert finding.level == "error"
    assert "seems to be 2S" in finding.advice
    (finding,), _ = check([charged("H2O", 0, -1)], "charge and spin")
    assert "negative" in finding.message
    assert check([charged("H2O", 0, 0, k) for k in range(3)], "charge and spin")[0] == [], "0: not stated"


def matrices(name, k=0, **changes):
    atoms = molecule(name)
    atoms.rattle(0.02, seed=k)
    rng = np.random.default_rng(k)
    size = sum(ORBITALS[z] for z in atoms.numbers)
    noise = rng.normal(size=(size, size))
    labels = {
        "hamiltonian": noise + noise.T,
        "overlap": np.eye(size) + 0.001 * (noise + noise.T - 2 * np.diag(np.diag(noise))),
    }
    return Sample(
        atoms, labels | {key: value(labels[key]) for key, value in changes.items()}, {"source": f"{name}:{k}"}
    )


def test_matrices():
    good = [matrices(name, k) for k, name in enumerate(["H2O", "CH4", "CO2", "H2O"])]
    _, report = check(good, "matrices")
    assert serious(report) == []
    assert "matrices of 4 structures are symmetric" in report.passed
    cases = {
        "hamiltonian of 1 structure is not symmetric": {"hamiltonian": np.triu},
        "differ in size": {"overlap": lambda m: m[:-1, :-1]},
        "no overlap of normalised": {"overlap": lambda m: 2 * m},
        "no sum over atoms": {"hamiltonian": lambda m: m[:-1, :-1], "overlap": lambda m: m[:-1, :-1]},
    }
    for words, changes in cases.items():
        findings, _ = check([*good, matrices("H2O", 9, **changes)], "matrices")
        assert [f.level for f in findings] == ["error"], words
        assert words in findings[0].message


def test_overlap_must_be_positive():
    def spoil(matrix):
        spoiled = np.eye(len(matrix))
        spoiled[0, 1] = spoiled[1, 0] = 1.2
        return spoiled

    findings, _ = check([matrices("H2O", 1, overlap=spoil)], "matrices")
    assert "eigenvalues positive" in findings[0].advice


def test_rare_elements_of_a_large_set():
    samples = [Sample(Atoms("H2", [[0, 0, 0], [0, 0, 0.7 + 1e-4 * k]]), {"energy": np.array(-1.0)}) for k in range(120)]
    samples += [Sample(Atoms("HF", [[0, 0, 0], [0, 0, 0.9 + 1e-3 * k]]), {"energy": np.array(-2.0)}) for k in range(4)]
    (finding,), _ = check(samples, "rare elements")
    assert "F (4)" in finding.message
    assert check(samples[-10:], "rare elements")[0] == []


def test_energies_of_free_atoms_are_near_those_of_hartree_fock():
    # Hartree-Fock limits in Hartree.
    known = {6: 37.6886, 7: 54.4009, 8: 74.8094, 14: 288.8544, 17: 459.4821, 26: 1262.4437, 47: 5197.6985}
    for number, energy in known.items():
        assert free_atom_energy(np.array(float(number))) == pytest.approx(energy, rel=0.01)


def test_plain_pieces():
    assert structures(1, "have") == "1 structure has"
    assert structures(12345, "are") == "12 345 structures are"
    seen = Seen()
    assert not seen
    for k in range(9):
        seen.add(str(k))
    assert (seen.count, len(seen.examples)) == (9, 5)
    findings = [Finding("note", "a", "x"), Finding("error", "b", "y"), Finding("warning", "c", "z")]
    assert [f.level for f in worse_first(findings)] == ["error", "warning", "note"]
    report = unreadable(DataError("the file is damaged"), Settings())
    assert report.count("error") == 1
    assert report.as_dict()["findings"][0]["message"] == "the file is damaged"
    assert report.outliers() == {}


def test_unknown_labels_do_not_matter():
    sample = Sample(molecule("H2O"), {"energy": np.array(-1.0), "relaxed_positions": np.zeros((3, 3))})
    assert found(run_checks([SampleList([sample])], Settings()), "reference energies").level == "note"
