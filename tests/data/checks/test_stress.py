"""Sign and unit of stress and forces, told from the data alone."""

import json

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from mlip.core.units import BOHR, GPA, HARTREE, KBAR
from mlip.data.checks.base import Settings
from mlip.data.checks.consistency import Kept, _compare
from mlip.data.checks.run import run_checks
from mlip.data.datasets.extxyz import ExtxyzDataset
from mlip.data.sample import Sample
from mlip.data.subset import SampleList
from tests.components import repository_root
from tests.data.checks.generated import change, check_frames, crystals, found, labelled, serious, trajectory

SILICON = repository_root() / "data" / "silicon_dft" / "silicon.xyz"
BY_VOLUME, BY_ENERGY, BY_SIZE = "stress sign", "energy differences", "stress values"


def errors(report):
    return {finding.check: finding for finding in report.findings if finding.level == "error"}


def silicon(**options):
    dataset = ExtxyzDataset(SILICON, labels=["energy", "forces", "stress"], **options)
    return run_checks([dataset], Settings(5.0, {"train": 0.8, "valid": 0.2}))


def test_silicon_with_the_other_sign():
    found_errors = errors(silicon(stress_sign=-1))
    assert set(found_errors) == {BY_VOLUME, BY_ENERGY}
    assert "wrong sign: it falls with volume in 7 of 7 groups" in found_errors[BY_VOLUME].message
    assert "The stress has the wrong sign: -0.99" in found_errors[BY_ENERGY].message
    assert "stress_sign=-1" in found_errors[BY_VOLUME].advice


def test_silicon_in_gpa_that_is_taken_for_ev(tmp_path):
    text = []
    for line in SILICON.read_text().splitlines(keepends=True):
        before, key, rest = line.partition('stress="')
        numbers, quote, after = rest.partition('"')
        scaled = " ".join(str(float(number) / GPA) for number in numbers.split())
        text.append(before + key + scaled + quote + after)
    (tmp_path / "gpa.xyz").write_text("".join(text))
    dataset = ExtxyzDataset(tmp_path / "gpa.xyz", optional_labels=["stress"])
    found_errors = errors(run_checks([dataset], Settings()))
    assert set(found_errors) == {BY_VOLUME, BY_ENERGY, BY_SIZE}
    assert "The stress is in GPa: 161" in found_errors[BY_ENERGY].message or "160" in found_errors[BY_ENERGY].message
    assert "read as GPa it would be 103 GPa" in found_errors[BY_VOLUME].message
    right = ExtxyzDataset(tmp_path / "gpa.xyz", optional_labels=["stress"], stress_unit="GPa")
    assert serious(run_checks([right], Settings())) == []


def test_silicon_divided_twice():
    report = silicon(stress_unit="GPa")
    assert "0.00623 times" in found(report, BY_ENERGY).message or "0.0062" in found(report, BY_ENERGY).message
    assert "bulk modulus comes out as 0.64" in found(report, BY_VOLUME).message


def test_signs_are_confirmed_with_a_plausible_stiffness():
    (text,) = [text for text in silicon().passed if "sign of the stress" in text]
    # 88 GPa for diamond by its equation of state, other phases and compressed cells are stiffer.
    assert 80 < float(text.split("stiffness ")[1].split()[0]) < 130


@pytest.mark.parametrize(
    ("label", "factor", "words"),
    [
        ("stress", -1, "stress has the wrong sign"),
        ("stress", 1 / GPA, "stress is in GPa:"),
        ("stress", -1 / KBAR, "stress is in kbar and has the wrong sign"),
        ("stress", BOHR**3 / HARTREE, "stress is in Hartree/Bohr³:"),
        ("forces", -1, "forces have the wrong sign"),
        ("forces", BOHR / HARTREE, "forces are in Hartree/Bohr"),
        ("energy", 1 / HARTREE, "the energies in Hartree"),
    ],
)
def test_a_wrong_factor_is_named(tmp_path, label, factor, words):
    frames = change(trajectory(30), slice(None), lambda r: r.update({label: r[label] * factor}))
    messages = [f.message for f in check_frames(tmp_path, frames).findings if f.check == BY_ENERGY]
    assert any(words in message for message in messages), messages


def test_energy_differences_against_emt():
    """The expansion behind it, to third order in the step, for positions, cell and both."""
    start = bulk("Cu", "fcc", a=3.7, cubic=True)
    start.rattle(0.1, seed=3)
    rng = np.random.default_rng(0)
    step, strain = rng.normal(size=(4, 3)), rng.normal(size=(3, 3))
    for moved, strained in ((1.0, 0.0), (0.0, 1.0), (1.0, 1.0)):
        remainders = []
        for size in (0.02, 0.01):
            atoms = start.copy()
            # Not symmetric: the rotation in it must not count.
            atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.5 * size * strained * strain), scale_atoms=True)
            atoms.positions += size * moved * step
            atoms.wrap()
            change_, by_forces, by_stress = _compare(_kept(labelled(start)), _kept(labelled(atoms)))
            assert abs(change_) > 1e-3
            remainders.append(abs(change_ - by_forces - by_stress))
        # A rotation of the frame between the two forces is of higher order, too; first and second order are gone.
        assert remainders[1] < 0.3 * remainders[0], (moved, strained, remainders)


def _kept(atoms):
    results = atoms.calc.results
    xx, yy, zz, yz, xz, xy = results["stress"]
    stress = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    return Kept(atoms, "", False, float(results["energy"]), results["forces"], stress)


def test_strange_tensors():
    def sample(stress, pbc=True, k=0):
        atoms = Atoms("Cu4", [[0, 0, 0], [0, 1.8, 1.8], [1.8, 0, 1.8], [1.8, 1.8, 0.01 * k]], cell=[3.6] * 3, pbc=pbc)
        return Sample(
            atoms, {"energy": np.array(-1.0), "stress": np.asarray(stress, dtype=float)}, {"source": f"f:{k}"}
        )

    lopsided = np.array([[0.01, 0.01, 0], [0, 0.02, 0], [0, 0, 0.03]])
    samples = [sample(lopsided, k=1), sample(np.zeros((3, 3)), k=2), sample(np.eye(3) * 0.01, pbc=False, k=3)]
    messages = {
        f.examples[0]: f.message for f in run_checks([SampleList(samples)], Settings()).findings if f.check == BY_SIZE
    }
    assert "symmetric" in messages["f:1"]
    assert "zero" in messages["f:2"]
    assert "without periodic axes" in messages["f:3"]


def maml(paths, sign):
    """Samples of the JSON files of materialsvirtuallab: kbar, VASP's sign and order, read without the package."""
    samples = []
    for path in paths:
        for number, entry in enumerate(json.loads(path.read_text())):
            structure, outputs = entry["structure"], entry["outputs"]
            lattice = np.array(structure["lattice"]["matrix"])
            symbols = [site["species"][0]["element"] for site in structure["sites"]]
            scaled = np.array([site["abc"] for site in structure["sites"]])
            xx, yy, zz, xy, yz, xz = sign * KBAR * np.array(outputs.get("virial_stress", outputs.get("stress")))
            labels = {
                "energy": np.array(outputs["energy"]),
                "forces": np.array(outputs["forces"]),
                "stress": np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]),
            }
            atoms = Atoms(symbols, positions=scaled @ lattice, cell=lattice, pbc=True)
            samples.append(Sample(atoms, labels, {"source": f"{path.name}:{number}", "config_type": entry["group"]}))
    return run_checks([SampleList(samples)], Settings(5.0, {"train": 0.9, "valid": 0.1}))


@pytest.mark.slow
@pytest.mark.reference
@pytest.mark.parametrize(
    "names",
    [
        ["mlearn/Si/training.json"],
        ["mlearn/Li/training.json"],
        ["mlearn/Ni/test.json"],
        ["monbtaw/NbMo_Test.json", "monbtaw/Nb_Elastic.json"],
        ["monbtaw/TaW_Test.json"],
    ],
)
def test_real_data_right_and_flipped(reference_data, names):
    paths = [reference_data / name for name in names]
    right = maml(paths, -1)
    assert serious(right) == []
    assert any("sign of the stress" in text for text in right.passed)
    assert BY_VOLUME in errors(maml(paths, 1))


def test_too_few_to_tell(tmp_path):
    frames = crystals(3)
    assert not [f for f in check_frames(tmp_path, frames).findings if f.check in (BY_VOLUME, BY_ENERGY)]
