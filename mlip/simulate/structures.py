"""Reading the structure a simulation starts from, and writing the one it ends with."""

from __future__ import annotations

import os
import sqlite3
import struct
import zlib
from pathlib import Path

import ase.io
from ase import Atoms
from ase.io import ParseError
from ase.io.formats import UnknownFileTypeError

from mlip.core.errors import StructureError
from mlip.core.files import write_atomically
from mlip.simulate.carried import write_extxyz
from mlip.simulate.poscar import with_selective_dynamics
from mlip.simulate.trajectory import snapshot

# What ASE's many readers raise on damaged input; they share no base class.
_UNREADABLE = (
    ArithmeticError, AttributeError, EOFError, LookupError, OSError, ParseError, RuntimeError,
    SyntaxError, TypeError, UnknownFileTypeError, ValueError, AssertionError,
    ImportError, sqlite3.Error, struct.error, zlib.error,
)  # fmt: skip


def read_structure(path: str | os.PathLike[str], frame: int = -1) -> Atoms:
    """Read one structure from any file that ASE reads (CIF, POSCAR, xyz, traj, …).

    Args:
        path: the file; an ASE suffix ``@3`` is not interpreted, use ``frame``.
        frame: which structure of a file with several, counted from 0; negative from the end.

    Returns:
        Atoms with constraints and velocities as in the file, and no calculator.

    Raises:
        StructureError: no such file, a format that ASE does not know, damaged content, no such frame, no
            atoms, or sites that are partly occupied.
    """
    return _sound(Path(path), _read(Path(path), frame, f"frame {frame}"))[0]


def read_structures(path: str | os.PathLike[str]) -> list[Atoms]:
    """Read all structures from any file that ASE reads, as `read_structure` reads one.

    Raises:
        StructureError: as `read_structure`.
    """
    return _sound(Path(path), read_frames(path))


def read_frames(path: str | os.PathLike[str]) -> list[Atoms]:
    """Read what is in any file that ASE reads, frames without atoms among it, see `structure_problem`.

    Raises:
        StructureError: no such file, a format that ASE does not know, damaged content, or nothing in it.
    """
    return _read(Path(path), slice(None), "structures")


def _sound(path: Path, found: list[Atoms]) -> list[Atoms]:
    problem = next(filter(None, map(structure_problem, found)), None if found else "has no atoms")
    if problem is not None:
        raise StructureError(f"The structure in '{path}' {problem}.")
    return found


def _read(path: Path, index: int | slice, what: str) -> list[Atoms]:
    if not path.is_file():
        raise StructureError(f"There is no structure file '{path}'. Give the path of a file that ASE reads.")
    if path.stat().st_size == 0:
        raise StructureError(f"The structure file '{path}' is empty (0 bytes).")
    _refuse_foreign_database(path)
    try:
        read = ase.io.read(str(path), index=index, do_not_split_by_at_sign=True)
    except (IndexError, StopIteration) as error:
        raise StructureError(
            f"'{path}' has no {what}, or no structure at all: frames count from 0, -1 is the last."
        ) from error
    except _UNREADABLE as error:
        kind = path.suffix[1:].upper() or "structure"
        detail = " ".join(str(error).split())[:200] or f"it is no {kind} that ASE can read"
        raise StructureError(
            f"'{path}' cannot be read as a structure ({detail}). Give a file that ASE reads, such as CIF, "
            "POSCAR, extended XYZ or .traj, with its usual name."
        ) from error
    found = read if isinstance(read, list) else [read]
    for atoms in found:
        atoms.calc = None
    return found


def structure_problem(atoms: Atoms) -> str | None:
    """Return why what was read from a file is no structure to compute, as a clause; None if it is one."""
    if len(atoms) == 0:
        return "has no atoms"
    occupancy = atoms.info.get("occupancy")
    if isinstance(occupancy, dict):
        # ASE keeps the species that is most frequent on a site, and notes the others here.
        sites = [site for site in occupancy.values() if isinstance(site, dict)]
        if any(len(site) > 1 or any(share < 1 for share in site.values()) for site in sites):
            return "has partly occupied sites: order it first, for example with pymatgen"
    return None


def write_final_structure(folder: str | os.PathLike[str], atoms: Atoms, name: str = "final") -> list[Path]:
    """Write a structure as extended XYZ, and as CIF and POSCAR if it is periodic along all axes.

    Energy, forces and stress go into the extended XYZ if the calculator has them; CIF and POSCAR cannot say
    that an axis is not periodic, so slabs and molecules are not written in these. They have a right-handed cell, see
    `right_handed`; of constraints a POSCAR has what its flags express, see
    :func:`mlip.simulate.poscar.with_selective_dynamics`.

    Args:
        folder: where to; made if need be.
        atoms: the structure.
        name: file name without suffix.

    Returns:
        Paths of the files.

    Raises:
        MlipError: the folder cannot be written to, or the disk is full.
    """
    folder, atoms = Path(folder), snapshot(atoms)
    paths = [folder / f"{name}.xyz"]
    write_extxyz(paths[0], [atoms])
    if atoms.pbc.all():
        turned = right_handed(atoms)
        paths += [folder / f"{name}.cif", folder / f"{name}.vasp"]
        write_cif(paths[1], turned)
        flagged = with_selective_dynamics(turned)
        write_atomically(paths[2], lambda part: ase.io.write(str(part), flagged, format="vasp", sort=True))
    return paths


def write_cif(path: Path, atoms: Atoms) -> None:
    """Write a crystal as CIF, with a right-handed cell, and nothing but the cell and its atoms.

    Raises:
        MlipError: the file cannot be written.
    """
    # ASE looks into ``info`` and arrays for occupancies, which may be of another structure.
    plain = right_handed(Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc))
    write_atomically(path, lambda part: ase.io.write(str(part), plain, format="cif"))


def right_handed(atoms: Atoms) -> Atoms:
    """Return the same crystal with lattice vectors of a right-handed system; itself where they are, or no volume is.

    With a vector its negative belongs to a lattice: all three change their sign, atoms stay where they are. VASP
    refuses a left-handed cell, and CIF holds lengths and angles only, which makes the mirror image of it.
    """
    if atoms.cell.volume == 0 or atoms.cell.handedness == 1:
        return atoms
    turned = atoms.copy()
    turned.set_cell(-atoms.cell.array + 0.0, scale_atoms=False)  # No zeros with a sign.
    return turned


def _refuse_foreign_database(path: Path) -> None:
    """ASE makes its tables in any SQLite file that it is to read, and so changes it."""
    with path.open("rb") as file:
        if file.read(16) != b"SQLite format 3\0":
            return
    import sqlite3
    from contextlib import closing

    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            names = {str(name) for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    except sqlite3.Error as error:
        raise StructureError(f"'{path}' cannot be read as a database ({error}).") from error
    if "systems" not in names:
        raise StructureError(
            f"'{path}' is a database, but not one of ASE: give structures, such as extended XYZ or .traj; data sets "
            "are for mlip data prepare and mlip train."
        )
