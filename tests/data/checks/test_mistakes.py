"""Each mistake is found where it was made, and nothing is found where none was."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import fcc111

from mlip.core.units import GPA, HARTREE
from mlip.data.checks.base import Settings
from mlip.data.checks.run import run_checks
from mlip.data.datasets.extxyz import ExtxyzDataset
from mlip.data.sample import Sample
from mlip.data.subset import SampleList
from tests.components import repository_root
from tests.data.checks.generated import (
    change,
    check_frames,
    crystals,
    found,
    labelled,
    molecules,
    serious,
    trajectory,
)

BUNDLED = repository_root() / "data"


@pytest.mark.parametrize("make", [crystals, molecules, trajectory])
def test_good_data_are_quiet(tmp_path, make):
    report = check_frames(tmp_path, make())
    assert serious(report) == []
    assert report.overview.num_structures == len(make())


@pytest.mark.parametrize(
    ("name", "labels"),
    [("ethanol_dft/ethanol.xyz", ["energy", "forces"]), ("silicon_dft/silicon.xyz", ["energy", "forces", "stress"])],
)
def test_bundled_data_are_quiet(name, labels):
    report = run_checks([ExtxyzDataset(BUNDLED / name, labels=labels)], Settings(5.0, {"train": 0.8, "valid": 0.2}))
    assert serious(report) == []
    assert any("isolated atoms" in text for text in report.passed)


def test_energies_in_hartree(tmp_path):
    frames = molecules()
    # Total energies of all electrons (Hartree-Fock limit of the atoms), bound by what EMT says.
    atoms_ha = {"H": -0.5, "C": -37.7, "O": -74.8}
    for atoms in frames:
        total = sum(atoms_ha[symbol] for symbol in atoms.symbols) + atoms.calc.results["energy"] / HARTREE
        atoms.calc.results["energy"] = total
    finding = found(check_frames(tmp_path, frames), "energy unit")
    assert finding.level == "error"
    assert "in Hartree" in finding.message
    assert "energy_unit=Hartree" in finding.advice
    report = check_frames(tmp_path, frames, energy_unit="Hartree")
    assert not [f for f in report.findings if f.check == "energy unit"]
    assert "energies are all-electron totals in eV" in report.passed


@pytest.mark.parametrize(("unit", "factor"), [("kcal/mol", 23.060548), ("kJ/mol", 96.48533), ("Rydberg", 2 / HARTREE)])
def test_other_units_of_real_energies(tmp_path, unit, factor):
    text = (BUNDLED / "ethanol_dft/ethanol.xyz").read_text().splitlines(keepends=True)[: 3 * 3 + 20 * 11]
    scaled = [
        " ".join(f"energy={float(w[7:]) * factor!r}" if w.startswith("energy=") else w for w in line.split(" "))
        for line in text
    ]
    (tmp_path / "data.xyz").write_text("".join(scaled))
    report = run_checks([ExtxyzDataset(tmp_path / "data.xyz")], Settings())
    assert f"in {unit}" in found(report, "energy unit").message


def test_energies_that_are_per_atom_already():
    data = ExtxyzDataset(BUNDLED / "silicon_dft" / "silicon.xyz")
    divided = [
        Sample(sample.atoms, sample.labels | {"energy": sample.labels["energy"] / len(sample.atoms)}, sample.info)
        for sample in data
    ]
    report = run_checks([SampleList(divided)], Settings())
    assert [finding.check for finding in report.findings if finding.level == "error"] == ["energy per atom"]


def test_one_wrong_energy(tmp_path):
    for shift, level in ((3.0, "warning"), (500.0, "error")):
        frames = change(crystals(60), slice(17, 18), lambda r, shift=shift: r.update(energy=r["energy"] + 4 * shift))
        finding = found(check_frames(tmp_path, frames), "energy outliers")
        assert finding.level == level
        assert finding.count == 1
        assert finding.examples[0].endswith("data.xyz:17")


def test_forces_zeroed_on_fixed_atoms(tmp_path):
    def slab(k):
        atoms = fcc111("Cu", (2, 2, 3), vacuum=8.0, periodic=True)
        atoms.info.clear()
        atoms.rattle(0.05, seed=k)
        fixed = np.flatnonzero(atoms.positions[:, 2] < atoms.positions[:, 2].mean() - 1)
        return atoms, fixed

    good, bad = [], []
    for k in range(12):
        atoms, fixed = slab(k)
        good.append(labelled(atoms))
        forces = good[-1].calc.results["forces"].copy()
        forces[fixed] = 0
        bad.append(labelled(atoms, forces=forces))
    assert serious(check_frames(tmp_path, good)) == []
    finding = found(check_frames(tmp_path, bad), "zero forces")
    assert finding.level == "error"
    assert finding.count == 12
    assert "atoms 0, 1, 2, 3" in finding.examples[0]


def test_zero_by_symmetry_is_no_mistake(tmp_path):
    perfect = [labelled(atoms) for atoms in crystals(10)]
    for k, atoms in enumerate(perfect):
        atoms.positions[:] = [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]] @ atoms.cell.array
        perfect[k] = labelled(atoms, forces=np.zeros((4, 3)))
    assert not [f for f in check_frames(tmp_path, perfect).findings if f.check == "zero forces"]
    rattled = change(crystals(10), slice(None), lambda r: r.update(forces=np.zeros((4, 3))))
    finding = found(check_frames(tmp_path, rattled), "zero forces")
    assert "All forces of 10 structures" in finding.message


def test_net_force_of_shuffled_rows(tmp_path):
    def cut(results):
        results["forces"][0] += [30.0, 0, 0]

    finding = found(check_frames(tmp_path, change(molecules(), slice(0, 6), cut)), "net force")
    assert (finding.level, finding.count) == ("warning", 6)
    assert "30 eV/Å" in finding.message


def test_duplicates_and_leakage(tmp_path):
    frames = crystals()
    report = check_frames(tmp_path, [*frames, *frames[:6]])
    finding = found(report, "duplicates")
    assert (finding.level, finding.count) == ("warning", 6)
    assert finding.examples[0].endswith("data.xyz:30")
    assert "data.xyz:0 = " in finding.examples[0]
    leak = found(report, "leakage")
    # The oracle: the split itself, and which of the copies it takes apart.
    order = np.random.default_rng(0).permutation(36)
    train = set(order[:29].tolist())
    assert leak.count == sum((k in train) != (k + 30 in train) for k in range(6)) > 0
    assert leak.level == "error"


def test_contradicting_copies(tmp_path):
    frames = crystals()
    other = change(crystals()[:2], slice(None), lambda r: r.update(energy=r["energy"] + 0.4))
    finding = found(check_frames(tmp_path, [*frames, *other]), "duplicates")
    assert finding.level == "error"
    assert finding.count == 2
    assert "0.1 eV/atom" in finding.message


def test_leakage_between_files(tmp_path):
    frames = crystals()
    sets = []
    for name, part in (("train", frames), ("valid", None), ("test", [*crystals(8, seed=3), frames[5]])):
        if part is None:
            sets.append(None)
            continue
        check_frames(tmp_path, part)
        sets.append(ExtxyzDataset((tmp_path / "data.xyz").rename(tmp_path / f"{name}.xyz")))
    report = run_checks(sets, Settings(5.0, {"train": 1.0, "valid": 0, "test": 0}))
    finding = found(report, "leakage")
    assert finding.count == 1
    assert "train.xyz:5 (train)" in finding.examples[0]
    assert "test.xyz:8 (test)" in finding.examples[0]


def test_reference_energies_that_nothing_determines(tmp_path):
    salt = []
    for k in range(12):
        atoms = Atoms("CuAu", positions=[[0, 0, 0], [0, 0, 2.5 + 0.01 * k]]) * (1, 1, 1)
        salt.append(labelled(atoms))
        salt.append(labelled(Atoms("Al2", positions=[[0, 0, 0], [0, 0, 2.5 + 0.01 * k]])))
    finding = found(check_frames(tmp_path, salt), "reference energies")
    assert finding.level == "warning"
    assert "2 of 3 reference energies" in finding.message
    assert "of Cu, Au only Cu + Au together" in finding.message
    assert found(check_frames(tmp_path, salt[::2]), "reference energies").level == "note", "one composition alone"


def test_isolated_atoms_for_some_elements(tmp_path):
    lonely = Atoms("Cu", info={"config_type": "IsolatedAtom"})
    finding = found(check_frames(tmp_path, [*crystals(), labelled(lonely, energy=0.0)]), "reference energies")
    assert finding.level == "error"
    assert "not for Au" in finding.message


def test_mixed_and_lost_periodic_axes(tmp_path):
    frames = [*crystals(), *molecules()]
    assert "30 not periodic, 30 fully periodic" in found(check_frames(tmp_path, frames), "periodicity").message
    lost = crystals()
    for atoms in lost[:10]:
        atoms.pbc = False
    findings = [f for f in check_frames(tmp_path, lost).findings if f.check == "periodicity"]
    assert [f.level for f in findings] == ["warning", "warning", "note"]
    assert "fill a cell like a crystal" in findings[0].message
    assert findings[0].count == 10


def test_lonely_atoms_and_overlaps(tmp_path):
    frames = molecules()
    frames[3] = Atoms("CuH", positions=[[0, 0, 0], [0, 0, 9.0]])
    frames[4] = Atoms("H3", positions=[[0, 0, 0], [0, 0, 0.8], [0, 0, 9.0]])
    frames[6] = Atoms("Cu2", positions=[[0, 0, 0], [0, 0, 0.3]])
    frames[7] = Atoms("Cu2", positions=[[0, 0, 0], [0, 0, 1.3]])
    for k in (3, 4, 6, 7):
        frames[k] = labelled(frames[k], energy=0.0, forces=np.zeros((len(frames[k]), 3)))
    report = check_frames(tmp_path, frames)
    empty, alone = (f for f in report.findings if f.check == "neighbours")
    assert empty.examples[0].endswith("data.xyz:3")
    assert alone.examples[0].endswith("data.xyz:4 (atom 2)")
    close = {f.level: f.examples[0] for f in report.findings if f.check == "distances"}
    assert "data.xyz:6 (Cu0-Cu1 0.3 Å)" in close["error"]
    assert "data.xyz:7 (Cu0-Cu1 1.3 Å)" in close["warning"]
    assert not [f for f in check_frames(tmp_path, frames[:6], cutoff=10.0).findings if f.check == "neighbours"]


@pytest.mark.parametrize(("unit", "scale"), [("Bohr", 1.8897261), ("nm", 0.1)])
def test_lengths_in_another_unit(tmp_path, unit, scale):
    frames = molecules()
    for atoms in frames:
        atoms.positions *= scale
    frames = [labelled(a, energy=-1.0, forces=np.zeros((len(a), 3))) for a in frames]
    assert f"in {unit}" in found(check_frames(tmp_path, frames), "distances").message


def test_labels_that_some_structures_lack(tmp_path):
    frames = change(crystals(), slice(0, 4), lambda r: r.pop("forces"))
    finding = found(check_frames(tmp_path, frames), "labels")
    assert (finding.level, finding.count) == ("warning", 4)
    assert "4 of 30 structures lack forces" in finding.message
    # A molecule has no stress to lack.
    assert not [f for f in check_frames(tmp_path, [*crystals(), *molecules()]).findings if f.check == "labels"]


def test_misspelt_key_of_an_optional_label(tmp_path):
    frames = crystals()
    for atoms in frames:
        atoms.info["stres"] = atoms.calc.results.pop("stress")
    finding = found(check_frames(tmp_path, frames), "unread keys")
    assert "No stress is read, but the file has a key 'stres'" in finding.message
    assert "stress_key=stres" in finding.advice
    report = check_frames(tmp_path, frames, stress_key="stres")
    assert not [f for f in report.findings if f.check == "unread keys"]
    assert any("stress" in text for text in report.passed)


def test_nan_is_an_error_that_names_the_frame(tmp_path):
    frames = change(molecules(), slice(2, 3), lambda r: r["forces"].__setitem__((0, 0), np.nan))
    finding = found(check_frames(tmp_path, frames), "reading")
    assert finding.level == "error"
    assert "data.xyz:2" in finding.message


def test_large_stress_is_said_in_other_units(tmp_path):
    frames = change(crystals(), slice(None), lambda r: r.update(stress=r["stress"] / GPA))
    messages = [f.message for f in check_frames(tmp_path, frames).findings if "stress" in f.check]
    assert any("as another unit" in m or "another unit" in m for m in messages)
