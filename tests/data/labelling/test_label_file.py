"""Files of labels: QH9's layouts byte for byte, plans, and what is refused."""

from __future__ import annotations

import json
import sqlite3
import struct
from dataclasses import replace

import numpy as np
import pytest

from mlip.core.errors import ConfigError, DataError, MlipError
from mlip.data.datasets.qh9 import QH9Dataset
from mlip.data.labelling.label_file import LabelFile
from mlip.data.labelling.run import label_structures
from mlip.data.labelling.structures import Structure
from mlip.data.orbitals import reorder
from tests.data.fixtures.qh9 import BOHR_ANGSTROM, DYNAMIC_TABLE, HARTREE_EV, STABLE_TABLE
from tests.data.labelling.made import MadeUp, content, frames, moved, record


def make(path, structures, labeller=None, layout=None, **options):
    labeller = labeller or MadeUp()
    with LabelFile(path, record(structures, labeller, layout), keep_layout=layout is None) as file:
        report = label_structures(structures, labeller, file, **options)
        return report, file.counts(), file.failures()


def schema(path):
    connection = sqlite3.connect(path)
    found = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'data'").fetchone()[0]
    connection.close()
    return found


def test_dynamic_rows_are_those_of_qh9(tmp_path):
    """Table, types, units and the order of orbitals, as the published files have them."""
    structures = frames(3)
    report, counts, _ = make(tmp_path / "a.db", structures)
    assert (report.labelled, report.failed, report.known, report.copies) == (3, 0, 0, 0)
    assert counts == {"labelled": 3, "waiting": 0, "failed": 0}
    assert [path.name for path in tmp_path.iterdir()] == ["a.db"]
    assert schema(tmp_path / "a.db") == DYNAMIC_TABLE
    for frame, row in enumerate(content(tmp_path / "a.db")["data"]):
        labels = MadeUp().label(structures[frame].numbers, structures[frame].positions)
        rowid, molecule, geo_id, size, numbers, positions, ekin, epot, etot, time, matrix, converged = row
        assert (rowid, molecule, geo_id, size) == (frame, struct.pack("<q", 0), frame, 3)
        assert numbers == np.array([8, 1, 1], "<i4").tobytes()
        assert np.allclose(np.frombuffer(positions) * BOHR_ANGSTROM, structures[frame].positions.ravel(), atol=1e-15)
        assert (ekin, epot, etot, time, converged) == (0.0, labels.energy, labels.energy, 0.0, 1)
        in_pyscf_order = reorder(labels.hamiltonian, [8, 1, 1], "def2-svp", "mlip", "pyscf")
        assert matrix == in_pyscf_order.astype("<f8").tobytes()


def test_stable_rows_are_those_of_qh9(tmp_path):
    structures = [*frames(1), moved(0.5, "other.xyz", "SHH")]
    make(tmp_path / "a.db", structures)
    assert " ".join(schema(tmp_path / "a.db").split()) == STABLE_TABLE
    rows = content(tmp_path / "a.db")["data"]
    assert [row[1:3] for row in rows] == [(0, 3), (1, 3)]
    assert rows[1][3:5] == (np.array([16, 1, 1], "<i4").tobytes(), structures[1].positions.tobytes())
    # Frames of one molecule, too, if that is what was asked for.
    make(tmp_path / "b.db", frames(3), layout="stable")
    assert [row[1] for row in content(tmp_path / "b.db")["data"]] == [0, 1, 2]


@pytest.mark.parametrize("layout", ["stable", "dynamic"])
def test_the_reader_of_qh9_knows_them(layout, tmp_path):
    structures = frames(3)
    make(tmp_path / "a.db", structures, layout=layout)
    data = QH9Dataset(tmp_path / "a.db")
    assert (data.variant, data.provides, data.licence) == ("own", ("energy", "forces", "hamiltonian"), "not stated")
    assert data.citation == "computed with made up 1.0"
    assert data.level_of_theory["functional"] == "b3lyp5"
    assert data.level_of_theory["grid_level"] == "3"
    assert data.units["forces"] == "Hartree/Bohr"
    assert QH9Dataset.recognise(tmp_path / "a.db").options == {"variant": "own"}
    assert data.groups() == (["0"] * 3 if layout == "dynamic" else ["0", "1", "2"])
    for sample, wanted in zip(data, structures, strict=True):
        labels = MadeUp().label(wanted.numbers, wanted.positions)
        assert np.allclose(sample.atoms.positions, wanted.positions, rtol=0, atol=1e-15)
        assert np.array_equal(sample.labels["hamiltonian"], labels.hamiltonian)
        assert float(sample.labels["energy"]) == pytest.approx(labels.energy * HARTREE_EV, abs=1e-11)
        assert np.allclose(sample.labels["forces"], labels.forces * HARTREE_EV / BOHR_ANGSTROM, rtol=1e-14)
        assert (sample.info["functional"], sample.info["basis"]) == ("b3lyp5", "def2-svp")
    variant = "stable" if layout == "stable" else "dynamic_300k"
    assert len(QH9Dataset(tmp_path / "a.db", variant, basis="def2-SVP", functional="b3lyp5")) == 3
    with pytest.raises(ConfigError, match="its basis is def2-svp, not sto-3g"):
        QH9Dataset(tmp_path / "a.db", basis="sto-3g")
    with pytest.raises(ConfigError, match="its functional is b3lyp5, not functional: pbe"):
        QH9Dataset(tmp_path / "a.db", functional="pbe")


def test_a_variant_with_another_functional_is_refused(tmp_path):
    make(tmp_path / "a.db", frames(2))
    with pytest.raises(ConfigError, match="its functional is b3lyp5, not that of variant: dynamic_100k, b3lyp"):
        QH9Dataset(tmp_path / "a.db", "dynamic_100k")


def test_nothing_is_computed_twice(tmp_path):
    make(tmp_path / "a.db", frames(4))
    before = (tmp_path / "a.db").read_bytes()
    report, counts, _ = make(tmp_path / "a.db", frames(4, "renamed.xyz"))
    assert (report.labelled, report.known, counts["labelled"]) == (0, 4, 4)
    assert (tmp_path / "a.db").read_bytes() == before


def test_interrupted_after_any_row_the_content_is_the_same(tmp_path):
    structures = [*frames(4), moved(6.0), *frames(3, "other.xyz", start=10)]
    make(tmp_path / "whole.db", structures)

    class Stopped(MadeUp):
        left = 0

        def label(self, numbers, positions):
            Stopped.left -= 1
            if Stopped.left < 0:
                raise KeyboardInterrupt
            return super().label(numbers, positions)

    for rows in (0, 3, 5, 7):
        path = tmp_path / f"{rows}.db"
        Stopped.left = rows
        with pytest.raises(KeyboardInterrupt):
            make(path, structures, Stopped())
        found = content(path)
        assert len(found["mlip_structures"]) == 8
        assert len(found["data"]) == rows - (rows > 4)
        make(path, structures)
        assert content(path) == content(tmp_path / "whole.db")


def test_molecules_are_runs_of_a_file(tmp_path):
    """Frames of two files are two molecules; copies are left out; what is added later goes on."""
    structures = [*frames(2), *frames(2, "b.xyz", start=5), *frames(1, "b.xyz", start=5), moved(1.5, "b.xyz", "SHH")]
    report, _, _ = make(tmp_path / "a.db", structures)
    assert (report.labelled, report.copies) == (5, 1)
    rows = content(tmp_path / "a.db")["mlip_structures"]
    assert [row[:3] for row in rows] == [(0, 0, 0), (1, 0, 1), (2, 1, 0), (3, 1, 1), (4, 2, 0)]
    assert [row[4] for row in rows] == ["water.xyz:0", "water.xyz:1", "b.xyz:0", "b.xyz:1", "b.xyz:0"]
    report, _, _ = make(tmp_path / "a.db", [*frames(4), moved(2.5, "c.xyz")])
    assert (report.labelled, report.known) == (3, 2)
    rows = content(tmp_path / "a.db")["mlip_structures"]
    assert [row[:3] for row in rows[5:]] == [(5, 0, 2), (6, 0, 3), (7, 3, 0)]


def test_failures_are_noted_and_can_be_tried_again(tmp_path):
    refused = Structure(np.array([8]), np.zeros((1, 3)), "x.xyz", 4, refused="It is periodic.")
    structures = [moved(6.0), moved(4.0), refused, *frames(1)]
    report, counts, failures = make(tmp_path / "a.db", structures)
    assert (report.labelled, report.failed) == (1, 2)
    assert counts == {"labelled": 1, "waiting": 0, "failed": 3}
    assert failures == [
        ("bad.xyz:0", "The SCF did not converge."),
        ("bad.xyz:0", "RuntimeError: singular matrix"),
        ("x.xyz:4", "It is periodic."),
    ]
    assert len(QH9Dataset(tmp_path / "a.db")) == 1
    report, _, _ = make(tmp_path / "a.db", structures)
    assert (report.labelled, report.failed, report.known) == (0, 0, 4)

    class Patient(MadeUp):
        def label(self, numbers, positions):
            return super().label(numbers, positions / 10)

    report, counts, failures = make(tmp_path / "a.db", structures, Patient(), retry=True)
    assert (report.labelled, counts["failed"], len(failures)) == (2, 1, 1)


def test_other_settings_are_refused(tmp_path):
    path = tmp_path / "a.db"
    make(path, frames(2))
    before = path.read_bytes()
    for labeller, message in (
        (MadeUp(functional="pbe"), r"was made with functional b3lyp5 \(now: pbe\)"),
        (MadeUp(["energy", "hamiltonian"]), r"labels energy, forces, hamiltonian \(now: energy, hamiltonian\)"),
    ):
        with pytest.raises(ConfigError, match=message):
            make(path, frames(3), labeller)
    with pytest.raises(ConfigError, match=r"layout dynamic \(now: stable\)"):
        make(path, frames(3), layout="stable")
    assert path.read_bytes() == before
    make(path, [moved(1.5, "single.xyz", "SHH")])  # The file keeps its layout.
    assert len(QH9Dataset(path)) == 3


def test_files_that_are_something_else(tmp_path):
    (tmp_path / "text.db").write_text("no database " * 100)
    sqlite3.connect(tmp_path / "other.db").execute("CREATE TABLE data (id INTEGER)").connection.close()
    for name in ("text.db", "other.db"):
        before = (tmp_path / name).read_bytes()
        with pytest.raises(ConfigError, match=rf"{name}' is there already, and is not a file of mlip data label"):
            make(tmp_path / name, frames(1))
        assert (tmp_path / name).read_bytes() == before
    (tmp_path / "folder.db").mkdir()
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "folder.db", tmp_path / "file" / "a.db"):
        with pytest.raises(MlipError, match="Cannot write"):
            make(path, frames(1))
    make(tmp_path / "new" / "folder" / "a.db", frames(1))
    (tmp_path / "empty.db").touch()
    make(tmp_path / "empty.db", frames(1))


def test_two_processes_do_not_write_one_file(tmp_path):
    labeller, structures = MadeUp(), frames(2)
    with (
        LabelFile(tmp_path / "a.db", record(structures, labeller)),
        pytest.raises(MlipError, match="Another process writes"),
        LabelFile(tmp_path / "a.db", record(structures, labeller)),
    ):
        pass
    make(tmp_path / "a.db", structures)


def test_a_full_disk_keeps_what_is_there(tmp_path):
    labeller, structures = MadeUp(), frames(12)
    with LabelFile(tmp_path / "a.db", record(structures, labeller)) as file:
        file._connection.execute("PRAGMA max_page_count = 16")
        with pytest.raises(MlipError, match=r"Cannot write .*full. What is labelled is kept; free some space"):
            label_structures(structures, labeller, file)
        done = file.counts()["labelled"]
        assert 0 < done < 12
    assert len(QH9Dataset(tmp_path / "a.db")) == done
    make(tmp_path / "a.db", structures)
    make(tmp_path / "whole.db", structures)
    assert content(tmp_path / "a.db") == content(tmp_path / "whole.db")


def test_without_matrices(tmp_path):
    """What a potential learns from, in the units of the package."""
    structures, labeller = frames(2), MadeUp(["energy"])
    with LabelFile(tmp_path / "a.db", record(structures, labeller, "none")) as file:
        label_structures(structures, labeller, file)
        samples = list(file.samples())
        assert file.num_molecules() == 1
    assert "data" not in content(tmp_path / "a.db")
    for sample, wanted in zip(samples, structures, strict=True):
        energy = MadeUp().label(wanted.numbers, wanted.positions).energy
        assert sample.labels.keys() == {"energy"}
        assert float(sample.labels["energy"]) == pytest.approx(energy * HARTREE_EV, abs=1e-11)
        assert np.array_equal(sample.atoms.positions, wanted.positions)
        assert sample.info == {
            "source": wanted.source,
            "group": "0",
            "functional": "b3lyp5",
            "basis": "def2-svp",
            "program": "made up 1.0",
        }
    with pytest.raises(DataError, match="is not a QH9 file"):
        QH9Dataset(tmp_path / "a.db")


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE mlip SET value = '2' WHERE key = 'format'", "of format 2, this version reads 1"),
        ("UPDATE mlip SET value = '{' WHERE key = 'fields'", "must hold JSON values"),
        ("DELETE FROM mlip WHERE key = 'level_of_theory'", "lacks the level of theory"),
        ("UPDATE mlip_structures SET energy = NULL", "no energy of this row"),
        ("UPDATE mlip_structures SET forces = x'00'", "the forces must have 72 bytes"),
        ("DROP TABLE mlip_structures", "damaged"),
    ],
)
def test_damaged_records(statement, message, tmp_path):
    make(tmp_path / "a.db", frames(2))
    connection = sqlite3.connect(tmp_path / "a.db")
    connection.execute(statement)
    connection.commit()
    connection.close()
    with pytest.raises(DataError, match=message):
        list(QH9Dataset(tmp_path / "a.db"))


def test_programs_add_up_and_a_licence_stays(tmp_path):
    labeller, path = MadeUp(), tmp_path / "a.db"
    first = record(frames(1), labeller)
    with LabelFile(path, replace(first, licence="CC0-1.0")):
        pass
    labeller.program = "made up 2.0"
    make(path, frames(2), labeller)
    stored = {key: json.loads(value) for key, value in content(path)["mlip"]}
    assert (stored["programs"], stored["licence"]) == (["made up 1.0", "made up 2.0"], "CC0-1.0")
    assert QH9Dataset(path).licence == "CC0-1.0"


def test_a_refused_structure_does_not_stand_for_the_same_geometry(tmp_path):
    plain = frames(1)[0]
    charged = replace(plain, frame=7, refused="It has a charge.")
    for order in ([charged, plain], [plain, charged]):
        path = tmp_path / f"{order[0].frame}.db"
        report, counts, failures = make(path, order)
        assert (report.labelled, report.copies, counts["labelled"]) == (1, 0, 1)
        assert [reason for _, reason in failures] == ["It has a charge."]
        again, _, _ = make(path, order)
        assert again.labelled == 0
