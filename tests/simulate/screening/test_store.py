"""What is written comes back, with all digits."""

import csv
import io
import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms

from mlip.core.errors import DataError
from mlip.simulate.journal import parsed
from mlip.simulate.screening.record import Column, ScreenRecord, columns_of, decode, encode
from mlip.simulate.screening.report import FILES, as_csv, summary, write_results
from mlip.simulate.screening.store import open_results, write_store
from mlip.simulate.screening.tasks.registry import TASKS
from mlip.simulate.screening.tasks.relax import RelaxTask
from tests.simulate.screening.helpers import crystals

COLUMNS = {
    "b0": Column("bulk modulus", unit="GPa"),
    "steps": Column("taken", "integer"),
    "good": Column("whether", "truth"),
    "group": Column("space group", "text"),
    "volumes": Column("of the points", "numbers", "A3"),
}


def records() -> list[ScreenRecord]:
    first, second = crystals(2)
    rng = np.random.default_rng(0)
    for atoms in (first, second):
        atoms.calc = SinglePointCalculator(
            atoms, energy=rng.normal(), forces=rng.normal(size=(len(atoms), 3)), stress=rng.normal(size=6)
        )
    second.set_constraint(FixAtoms([1]))
    second.info["charge"] = -1
    values = {"b0": 1 / 3, "steps": 7, "good": True, "group": "Fm-3m (225)", "volumes": [1.0, 2 / 3]}
    return [
        ScreenRecord(0, "a\udcff.cif", "done", "Cu", 1, 0.25, values, first, "One. Two."),
        ScreenRecord(1, "b.cif", "unreadable", error="It cannot be read, because: „x“."),
        ScreenRecord(2, "c.cif", "done", "Cu4", 4, 1.5, {"b0": None, "volumes": [5.0]}, second),
    ]


def test_records_come_back() -> None:
    for record in records():
        found = decode(parsed(encode(record)))
        assert found.values == record.values
        assert encode(found) == encode(record)
    assert decode({"number": 1}) is None
    assert decode(None) is None


def test_store_comes_back(tmp_path: Path) -> None:
    written = records()
    write_store(tmp_path / "results.h5", written, COLUMNS, {"task": "eos", "options": {"span": 0.1}, "n": 3})
    with open_results(tmp_path) as results:
        assert len(results) == 3
        assert results.about == {"format": "mlip screen 1", "task": "eos", "options": {"span": 0.1}, "n": 3}
        assert results.units == {"b0": "GPa", "seconds": "s", "volumes": "A3"}
        assert results.arrays == ["volumes"]
        assert set(results.columns) == set(columns_of(COLUMNS)) - {"volumes"}
        np.testing.assert_array_equal(results.column("b0"), [1 / 3, np.nan, np.nan])
        assert results.column("steps").tolist() == [7, -1, -1]
        assert results.column("good").tolist() == [1, -1, -1]
        assert results.column("group").tolist() == ["Fm-3m (225)", "", ""]
        assert results.column("error")[1] == written[1].error
        assert [results.array("volumes", k).tolist() for k in range(3)] == [[1.0, 2 / 3], [], [5.0]]
        assert results.atoms(1) is None
        for number in (0, 2):
            found, wanted = results.atoms(number), written[number].structure
            np.testing.assert_array_equal(found.positions, wanted.positions)
            np.testing.assert_array_equal(found.cell.array, wanted.cell.array)
            assert found.get_potential_energy() == wanted.get_potential_energy()
            np.testing.assert_array_equal(found.get_forces(), wanted.get_forces())
            np.testing.assert_array_equal(found.get_stress(), wanted.get_stress())
            assert found.info == wanted.info
            assert [one.todict() for one in found.constraints] == [one.todict() for one in wanted.constraints]
        with pytest.raises(IndexError, match="count from 0 to 2"):
            results.atoms(3)


def test_a_store_of_nothing(tmp_path: Path) -> None:
    write_store(tmp_path / "results.h5", [], COLUMNS, {})
    with open_results(tmp_path / "results.h5") as results:
        assert len(results) == 0
        assert len(results.column("b0")) == 0


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "results.h5").write_text("x")
    with pytest.raises(DataError, match="cannot be read"), open_results(tmp_path):
        pass
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file.attrs["format"] = "x"
    with pytest.raises(DataError, match="no results"), open_results(tmp_path / "other.h5"):
        pass


def test_table_and_summary(tmp_path: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(records(), COLUMNS))))
    assert [row["status"] for row in rows] == ["done", "unreadable", "done"]
    assert float(rows[0]["b0_GPa"]) == 1 / 3
    assert "volumes_A3" not in rows[0]
    found = summary(records(), COLUMNS)
    assert (found["structures"], found["done"], found["unreadable"], found["with_warnings"]) == (3, 2, 1, 1)
    assert found["median"] == {"b0_GPa": 1 / 3, "steps": 7}
    assert found["true"] == {"good": 1}
    assert [one["name"] for one in found["slowest"]] == ["c.cif", "a?.cif"]
    assert found["not_done"] == [{"name": "b.cif", "status": "unreadable", "error": records()[1].error}]
    write_results(tmp_path, [records()[1]], RelaxTask(), {"task": "relax"}, {"seconds": 1.0})
    assert {path.name for path in tmp_path.iterdir()} == set(FILES[1:])
    assert json.loads((tmp_path / "summary.json").read_text())["unreadable"] == 1
    assert (tmp_path / "summary.png").read_bytes()[:4] == b"\x89PNG"


def test_every_task_says_what_its_columns_are() -> None:
    for task in TASKS.values():
        assert set(task.highlights) <= set(task.columns)
        assert all(column.meaning for column in task.columns.values())
        assert not set(task.columns) & {"number", "name", "status", "formula", "atoms", "seconds", "warnings", "error"}
