"""Files of predictions: what is read back is what was predicted, in each order, and says what it is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from mlip import HamiltonianCalculator
from mlip.calculators.orbital_file import CONTENT, write_orbitals
from mlip.calculators.orbital_result import OrbitalResult
from mlip.core.errors import DataError, MlipError
from tests.calculators.hamiltonian_models import StoredHamiltonian, water

# By hand: of O (s s s p p d) and two H (s s p), rows of each order among those of the package, whose p is y, z, x.
ROWS = {
    "mlip": list(range(24)),
    "pyscf": [0, 1, 2, 5, 3, 4, 8, 6, 7, 9, 10, 11, 12, 13, 14, 15, 18, 16, 17, 19, 20, 23, 21, 22],
    "orca": [0, 1, 2, 4, 5, 3, 7, 8, 6, 11, 12, 10, 13, 9, 14, 15, 17, 18, 16, 19, 20, 22, 23, 21],
}


@pytest.fixture(scope="module")
def result() -> OrbitalResult:
    pytest.importorskip("pyscf")
    values = np.random.default_rng(0).normal(size=(24, 24))
    return HamiltonianCalculator(StoredHamiltonian(values + values.T)).predict(water(), orbitals=True)


@pytest.mark.parametrize("order", ROWS)
@pytest.mark.parametrize("suffix", [".h5", ".npz"])
def test_round_trip(result: OrbitalResult, order: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"made/here{suffix}"
    facts = [{"formula": "H2O", "cycles": 7}, {"formula": "again"}]
    write_orbitals(path, ((result.in_order(order), more) for more in facts), {"program": "test"})
    rows = ROWS[order]
    wanted = {
        "numbers": water().numbers,
        "positions": water().positions,
        "hamiltonian": result.hamiltonian[rows][:, rows],
        "overlap": result.overlap[rows][:, rows],
        "orbital_energies": result.orbital_energies,
        "coefficients": result.coefficients[rows],
        "occupations": [2.0] * 5 + [0.0] * 19,
    }
    assert set(wanted) == set(CONTENT)
    if suffix == ".h5":
        file = h5py.File(path)
        said = {name: dict(file["0"].attrs)[name] for name in file["0"].attrs}
        units = {name: (data.attrs["unit"], data.attrs["description"]) for name, data in file["0"].items()}
        arrays = {f"{k}/{name}": data[:] for k in "01" for name, data in file[k].items()}
        assert (file.attrs["program"], file["1"].attrs["formula"]) == ("test", "again")
    else:
        file = np.load(path)
        said = {name[2:]: file[name][()] for name in file.files if name.startswith("0/")}
        about = json.loads(str(file["about"]))
        units = {name: (entry["unit"], entry["description"]) for name, entry in about["arrays"].items()}
        arrays = {name: file[name] for name in file.files if file[name].shape}
        assert (about["program"], str(file["1/formula"])) == ("test", "again")
    assert set(arrays) == {f"{k}/{name}" for k in "01" for name in wanted}
    for name, array in arrays.items():
        assert np.array_equal(array, wanted[name[2:]]), name
    assert units == CONTENT
    assert [str(said[name]) for name in ("basis", "functional", "order")] == ["def2-svp", "b3lyp5", order]
    assert (said["cycles"], said["electrons"], str(said["formula"])) == (7, 10, "H2O")
    assert said["gap_Hartree"] == pytest.approx(said["lumo_Hartree"] - said["homo_Hartree"])
    file.close()


def test_what_was_not_asked_for_is_not_there(tmp_path: Path) -> None:
    bare = HamiltonianCalculator(StoredHamiltonian(np.eye(24), functional=None)).predict(water())
    write_orbitals(tmp_path / "bare.h5", [(bare, {})], {})
    with h5py.File(tmp_path / "bare.h5") as file:
        assert set(file["0"]) == {"numbers", "positions", "hamiltonian"}
        assert file["0"].attrs["functional"] == "unknown"
        assert "electrons" not in file["0"].attrs


@pytest.mark.parametrize("suffix", [".h5", ".npz"])
def test_a_failure_leaves_the_old_file(result: OrbitalResult, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"file{suffix}"
    path.write_text("old")

    def failing() -> Iterator[tuple[OrbitalResult, dict[str, str]]]:
        yield result, {}
        raise DataError("the second structure is damaged")

    with pytest.raises(DataError, match="second structure"):
        write_orbitals(path, failing(), {})
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert path.read_text() == "old"


def test_names_that_say_no_format(tmp_path: Path) -> None:
    with pytest.raises(MlipError, match=r"written to \.h5, \.hdf5, \.npz files, .*out\.txt' is none"):
        write_orbitals(tmp_path / "out.txt", [], {})


def test_no_sign_and_no_unknown_order(result: OrbitalResult) -> None:
    with pytest.raises(DataError, match=r"one of mlip, pyscf, orca, got 'pycsf'\. Did you mean 'pyscf'"):
        result.in_order("pycsf")
