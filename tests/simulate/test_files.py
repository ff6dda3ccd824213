"""Structures, trajectories and output folders: what is read back is what was written."""

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.io import read

from mlip.core.errors import SimulationError, StructureError
from mlip.simulate import md_folder, relax_output
from mlip.simulate.contacts import closest_contact, count_pieces
from mlip.simulate.output import claim_folder
from mlip.simulate.result_files import RESULTS
from mlip.simulate.screening import report as screening_report
from mlip.simulate.structures import read_structure, write_final_structure
from mlip.simulate.trajectory import FrameWriter, last_frame


@pytest.mark.parametrize("name", ["a.cif", "POSCAR", "a.xyz", "a.traj", "a@2.xyz", "a.json"])
def test_structures_are_read(tmp_path: Path, name: str) -> None:
    atoms = bulk("Si", cubic=True)
    atoms.calc = SinglePointCalculator(atoms, energy=1.0)
    atoms.write(tmp_path / name, format="extxyz" if name.endswith("xyz") else None)
    found = read_structure(tmp_path / name)
    assert found.get_chemical_formula() == "Si8"
    assert found.pbc.all()
    np.testing.assert_allclose(found.cell.lengths(), atoms.cell.lengths(), rtol=1e-6)
    assert found.calc is None


def test_a_frame_is_chosen(tmp_path: Path) -> None:
    with FrameWriter(tmp_path / "a.traj") as frames:
        for size in (1, 2, 3):
            frames.write(bulk("Cu") * (size, 1, 1), step=size)
    assert [len(read_structure(tmp_path / "a.traj", frame)) for frame in (0, 1, -1)] == [1, 2, 3]
    with pytest.raises(StructureError, match="no frame 3"):
        read_structure(tmp_path / "a.traj", 3)


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("none.xyz", None, "no structure file"),
        ("empty.xyz", b"", "is empty"),
        ("a.xyz", b"3\n\nH 0 0 0\nH 0 0 1\n", "cannot be read"),
        ("a.xyz", b"2\n\nH 0 0 zero\nH 0 0 1\n", "cannot be read"),
        ("a.xyz", b"1\n\nQq 0 0 0\n", "cannot be read"),
        ("a.cif", b"data_x\n_cell_length_a 3\nloop_\n", "cannot be read|no structure at all"),
        ("a.cif", b"hello\n", "cannot be read|no structure at all"),
        ("POSCAR", b"Si\n1.0\n1 0 0\n", "cannot be read|no structure at all"),
        ("a.traj", b"- of UlmASE-Trajectory" + bytes(40), "cannot be read"),
        ("a.json", b"{", "cannot be read"),
        ("a.unheard", b"what", "cannot be read"),
        ("a.xyz", b"\x00\xff\xfe" * 30, "cannot be read"),
        ("a.xyz", b"0\n\n", "no atoms"),
    ],
)
def test_damaged_files_are_one_sentence(tmp_path: Path, name: str, content: bytes | None, match: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(StructureError, match=match) as caught:
        read_structure(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_folders_and_missing_folders_are_no_structures(tmp_path: Path) -> None:
    with pytest.raises(StructureError, match="no structure file"):
        read_structure(tmp_path)


def test_final_structures(tmp_path: Path) -> None:
    crystal = bulk("NaCl", "rocksalt", a=5.6)
    crystal.calc = SinglePointCalculator(crystal, energy=-1.5, forces=np.zeros((2, 3)))
    names = [path.name for path in write_final_structure(tmp_path, crystal)]
    assert names == ["final.xyz", "final.cif", "final.vasp"]
    assert read(tmp_path / "final.xyz").get_potential_energy() == -1.5
    for name in names:
        assert read(tmp_path / name).get_volume() == pytest.approx(crystal.get_volume(), rel=1e-4)
    assert len(write_final_structure(tmp_path / "new", fcc111("Cu", (1, 1, 2), vacuum=3))) == 1
    assert len(write_final_structure(tmp_path / "new", molecule("CH4"))) == 1


def test_trajectory_keeps_every_bit(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    atoms = bulk("Cu", cubic=True)
    atoms.positions += rng.normal(0, 0.1, (4, 3))
    atoms.set_momenta(rng.normal(0, 1, (4, 3)))
    atoms.set_constraint(FixAtoms([2]))
    forces = rng.normal(0, 1, (4, 3))
    atoms.calc = SinglePointCalculator(atoms, energy=1 / 3, forces=forces)
    atoms.info["left over"] = object()
    with FrameWriter(tmp_path / "new" / "a.traj") as frames:
        frames.write(atoms, step=12, time_fs=1 / 7)
    with FrameWriter(tmp_path / "new" / "a.traj", append=True) as frames:
        assert frames.num_frames == 1
    frame = last_frame(tmp_path / "new" / "a.traj")
    np.testing.assert_array_equal(frame.positions, atoms.positions)
    np.testing.assert_array_equal(frame.get_momenta(), atoms.get_momenta())
    np.testing.assert_array_equal(frame.get_forces(apply_constraint=False), forces)
    assert frame.get_potential_energy() == 1 / 3
    assert frame.info == {"step": 12, "time_fs": 1 / 7}
    assert frame.constraints[0].index.tolist() == [2]


def test_a_frame_cut_short_is_not_counted(tmp_path: Path) -> None:
    with FrameWriter(tmp_path / "a.traj") as frames:
        frames.write(bulk("Cu"), step=0)
        frames.write(bulk("Cu"), step=1)
    with open(tmp_path / "a.traj", "ab") as handle:
        handle.write(b"half a frame")
    assert last_frame(tmp_path / "a.traj").info["step"] == 1
    with FrameWriter(tmp_path / "a.traj", append=True) as frames:
        frames.write(bulk("Cu"), step=2)
    assert [frame.info["step"] for frame in read(tmp_path / "a.traj", ":")] == [0, 1, 2]


def test_trajectories_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(SimulationError, match="Cannot write the trajectory"):
        FrameWriter(tmp_path / "file" / "a.traj")
    with FrameWriter(tmp_path / "a.traj") as frames:
        frames.write(bulk("Cu"), step=0)

        class Full:
            def write(self, atoms: Atoms) -> None:
                raise OSError(28, "No space left on device")

            def close(self) -> None:
                pass

        real, frames._file = frames._file, Full()
        with pytest.raises(SimulationError, match=r"No space left on device.* first 1 frames are kept"):
            frames.write(bulk("Cu"), step=1)
        real.close()
    assert last_frame(tmp_path / "a.traj").info["step"] == 0


def test_output_folders_are_claimed_once(tmp_path: Path) -> None:
    folder = claim_folder(tmp_path / "run", "trajectory.traj", overwrite=False, advice="x")
    folder.mkdir()
    (folder / "trajectory.traj").touch()
    with pytest.raises(SimulationError, match="is there already: choose"):
        claim_folder(folder, "trajectory.traj", overwrite=False, advice="choose another")
    assert claim_folder(folder, "trajectory.traj", overwrite=True, advice="") == folder
    with pytest.raises(SimulationError, match="is a file"):
        claim_folder(folder / "trajectory.traj", "t", overwrite=True, advice="")


def test_folders_of_other_commands_are_refused(tmp_path: Path) -> None:
    for name in ("relaxed.jsonl", "summary.json"):
        (tmp_path / name).touch()
    for overwrite in (False, True):
        with pytest.raises(SimulationError, match=r"results of mlip relax, whose summary.json would be replaced"):
            claim_folder(tmp_path, "trajectory.traj", overwrite, "x", "md")
    # Their files have other names.
    assert claim_folder(tmp_path, "eos.json", False, "x") == tmp_path
    (tmp_path / "eos.csv").touch()
    with pytest.raises(SimulationError, match=r"eos.csv' is there already"):
        claim_folder(tmp_path, "eos.json", False, "x")
    assert claim_folder(tmp_path, "eos.json", True, "x") == tmp_path


def test_commands_write_what_is_known_of_them(tmp_path: Path) -> None:
    assert {*relax_output.ONE, relax_output.TABLE, relax_output.STRUCTURES, relax_output.PLOT} <= {*RESULTS["relax"]}
    assert {*screening_report.FILES} == {*RESULTS["screen"]}
    assert {*md_folder.RESULTS, md_folder.THERMO, md_folder.TRAJECTORY} <= {*RESULTS["md"]}
    assert {path.name for path in md_folder.checkpoints_in(tmp_path)} <= {*RESULTS["md"]}


def test_contacts_see_periodic_images() -> None:
    atoms = Atoms("HCu", [[0, 0, 0.1], [0, 0, 4.9]], cell=[5, 5, 5], pbc=True)
    contact = closest_contact(atoms)
    assert contact.describe(atoms) == "atoms 0 (H) and 1 (Cu) are 0.20 Å apart"
    assert contact.ratio == pytest.approx(0.2 / (0.31 + 1.32))
    atoms.pbc = False
    assert closest_contact(atoms) is None
    assert closest_contact(molecule("C60")) is None


def test_pieces() -> None:
    methane = molecule("CH4")
    two = methane + methane
    two.positions[5:] += 5
    assert count_pieces(methane) == 1
    assert count_pieces(two) == 2
    assert count_pieces(Atoms("He")) == 1
    assert count_pieces(bulk("Cu")) == 1


def test_databases_that_are_not_of_ase_are_refused_and_not_changed(tmp_path: Path) -> None:
    """ASE would make its tables in them."""
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE data (id INTEGER)")
        connection.commit()
    before = path.read_bytes()
    with pytest.raises(StructureError, match="a database, but not one of ASE"):
        read_structure(path)
    assert path.read_bytes() == before
    path.write_bytes(before[:1000])
    with pytest.raises(StructureError, match="cannot be read as a database"):
        read_structure(path)
    molecule("H2O").write(tmp_path / "own.db")
    assert read_structure(tmp_path / "own.db").get_chemical_formula() == "H2O"


def test_a_left_handed_cell_is_written_as_the_same_crystal(tmp_path: Path) -> None:
    """VASP refuses it, and CIF would make the mirror image of it: neighbours stay where they are."""
    atoms = Atoms("CuAuAg", [[0, 0, 0], [1, 1.5, 0.3], [0.4, 2.2, 1.8]], cell=[4, 5, 6], pbc=True)
    atoms.set_cell(atoms.cell[[1, 0, 2]])
    assert atoms.cell.handedness == -1
    write_final_structure(tmp_path, atoms)
    assert np.allclose(read(tmp_path / "final.xyz").cell, atoms.cell)
    for name in ("final.vasp", "final.cif"):
        found = read(tmp_path / name)
        assert found.cell.handedness == 1
        places = [found.get_chemical_symbols().index(symbol) for symbol in ("Cu", "Au", "Ag")]
        assert volume(found, places) == pytest.approx(volume(atoms, [0, 1, 2]), abs=1e-6)


def volume(atoms: Atoms, places: list[int]) -> float:
    """Signed, of two bonds and the longest lattice vector on their side: a mirror image has its negative."""
    first, second = atoms.get_distances(places[0], places[1:], mic=True, vector=True)
    third = atoms.cell.array[np.argmax(np.linalg.norm(atoms.cell.array, axis=1))]
    return float(np.dot(np.cross(first, second), third * np.sign(third @ (first + second))))


def test_noise_is_no_cif(tmp_path: Path) -> None:
    (tmp_path / "noise.cif").write_bytes(bytes(range(128, 256)))
    with pytest.raises(StructureError, match=r"cannot be read as a structure \(.*\)\. Give a file") as caught:
        read_structure(tmp_path / "noise.cif")
    assert "AssertionError" not in str(caught.value)
