"""Read ``OUTCAR``: one ionic step after the other, line by line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO

import numpy as np
from ase.data import atomic_numbers

from mlip.core.errors import DataError
from mlip.core.units import KBAR
from mlip.data.formats.vasp_step import VaspStep, numbers_of

END = "General timing and accounting"
"""Stands at the end of a file whose run was not killed."""

LONGEST_LINE = 2**20

_ITERATION = re.compile(r"-- Iteration\s+\d+\(\s*(\d+)\)")
_TOO_CLOSE = re.compile(r"(?<=\d)-(?=\d)")
_ENERGY = re.compile(r"=\s*(\S+)")


@dataclass
class _Run:
    """What has been read so far: of the file, and of the step that is being read."""

    titles: list[str] = field(default_factory=list)
    potentials: list[str] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    num_scf: int = 0
    converged: bool = False
    cell: np.ndarray | None = None
    stress: np.ndarray | None = None
    atoms: np.ndarray | None = None
    magmoms: np.ndarray | None = None
    vectors: bool = False

    @property
    def num_atoms(self) -> int:
        return sum(self.counts)

    @property
    def elements(self) -> list[str]:
        """Elements in order; the list of potentials stands twice in a file."""
        return self.titles or self.potentials[: max(len(self.counts), len(self.potentials) // 2)]

    def begin_step(self) -> None:
        """Forget the last step; a number of it must not be taken for one of the next."""
        self.num_scf, self.converged, self.vectors = 0, False, False
        self.cell = self.stress = self.atoms = self.magmoms = None


class _Cut(Exception):
    """The file ends inside of something."""


def read_outcar(handle: IO[bytes], where: str) -> Iterator[VaspStep | DataError]:
    """Read the ionic steps of a file.

    Args:
        handle: the file.
        where: its name, for messages.

    Yields:
        Steps whose lines are all there; a `DataError` for a step that is damaged.
    """
    run = _Run()
    number = 0
    lines = _whole_lines(handle)
    problem: DataError | None = None
    for line in lines:
        here = f"{where}:{number}"
        try:
            if "FREE ENERGIE OF THE ION-ELECTRON SYSTEM" in line:
                energies = _energies(lines, here)
                yield problem or _step(run, energies, here)
                number += 1
                problem = None
                run.begin_step()
            else:
                _take(line, lines, run, here)
        except _Cut:
            return
        except DataError as error:
            problem = problem or error
            if "FREE ENERGIE" in line:
                yield problem
                number += 1
                problem = None
                run.begin_step()
    if problem is not None:
        yield problem


def _whole_lines(handle: IO[bytes]) -> Iterator[str]:
    """Yield lines that have an end: half a number is a number, too."""
    # Titles may be in any encoding; what is read here is ASCII.
    while (line := handle.readline(LONGEST_LINE)).endswith(b"\n"):
        yield line.decode("latin-1")


def _next(lines: Iterator[str]) -> str:
    line = next(lines, None)
    if line is None:
        raise _Cut
    return line


def _take(line: str, lines: Iterator[str], run: _Run, where: str) -> None:
    """Take over what a line, and those after it, say."""
    if "TITEL  =" in line:
        run.titles.append(_element(line.split("=")[1], where))
    elif line.startswith(" POTCAR:") and run.num_scf == 0:
        run.potentials.append(_element(line.split(":", 1)[1], where))
    elif "ions per type =" in line:
        run.counts = [int(count) for count in numbers_of(line.split("=")[1], where)]
    elif match := _ITERATION.search(line):
        if int(match[1]) == 1:
            run.begin_step()
        run.num_scf = int(match[1])
    elif "aborting loop because EDIFF is reached" in line:
        run.converged = True
    elif "in kB" in line and line.split()[:2] == ["in", "kB"]:
        run.stress = _stress(line, where)
    elif "direct lattice vectors" in line:
        run.cell = _table(lines, 3, 6, f"{where}, the cell")[:, :3]
    elif "POSITION" in line and "TOTAL-FORCE" in line:
        _next(lines)
        run.atoms = _table(lines, run.num_atoms, 6, f"{where}, positions and forces")
    elif line.strip() == "magnetization (x)":
        for _ in range(3):
            _next(lines)
        run.magmoms = _table(lines, run.num_atoms, None, f"{where}, magnetization")[:, -1]
    elif line.strip() == "magnetization (y)":
        run.vectors = True


def _element(title: str, where: str) -> str:
    """Return the element of a potential such as "PAW_PBE Fe_pv 02Aug2007" or "PAW_PBE H1.25 07Sep2000"."""
    words = title.split()
    # Old potentials have no word for the functional: "TITEL  = US H".
    word = next((word for word in words[1:2] or words), "")
    match = re.match(r"[A-Z][a-z]?", word)
    if match is None or match[0] not in atomic_numbers:
        raise DataError(f"{where}: no element in the name of the potential {' '.join(words)!r}.")
    return match[0]


def _stress(line: str, where: str) -> np.ndarray:
    """Return (3, 3) eV/Å³ in ASE's sign, from XX YY ZZ XY YZ ZX in kB, pressure positive."""
    values = numbers_of(_TOO_CLOSE.sub(" -", line.split("kB", 1)[1]), f"{where}, stress")
    if values.size != 6:
        raise DataError(f"{where}: the stress must have six numbers, got {values.size}.")
    xx, yy, zz, xy, yz, zx = -KBAR * values
    return np.array([[xx, xy, zx], [xy, yy, yz], [zx, yz, zz]])


def _table(lines: Iterator[str], num_rows: int, num_columns: int | None, where: str) -> np.ndarray:
    """Read rows of numbers; None takes any number of columns that all rows have."""
    rows = [numbers_of(_TOO_CLOSE.sub(" -", _next(lines)), where) for _ in range(num_rows)]
    widths = {row.size for row in rows}
    if not rows or len(widths) != 1 or (num_columns is not None and widths != {num_columns}):
        raise DataError(f"{where}: {num_rows} rows of {num_columns or 'as many'} numbers were expected.")
    return np.stack(rows)


def _energies(lines: Iterator[str], where: str) -> tuple[float, float]:
    """Return the free energy and the one extrapolated to no smearing."""
    _next(lines)
    free = _next(lines)
    if "enthalpy" in free.lower() or "TOTEN" not in free:
        raise DataError(f"{where}: the free energy TOTEN was expected, got {free.strip()[:60]!r}.")
    _next(lines)
    zero = _next(lines)
    if "sigma->0" not in zero:
        raise DataError(f"{where}: energy(sigma->0) was expected, got {zero.strip()[:60]!r}.")
    first, second = _ENERGY.search(free), _ENERGY.search(zero.split("sigma->0", 1)[1])
    if first is None or second is None:
        raise DataError(f"{where}: the energies cannot be read.")
    return float(numbers_of(first[1], where)[0]), float(numbers_of(second[1], where)[0])


def _step(run: _Run, energies: tuple[float, float], where: str) -> VaspStep:
    if len(run.elements) != len(run.counts) or not run.counts:
        raise DataError(
            f"{where}: {len(run.elements)} potentials and {len(run.counts)} counts (ions per type) were found."
        )
    if run.num_scf == 0:
        raise DataError(
            f"{where} has no electronic steps: it is not from DFT (a step of VASP's machine-learned force field?)."
        )
    if run.cell is None or run.atoms is None:
        raise DataError(f"{where} has no {'cell' if run.cell is None else 'positions and forces'}.")
    return VaspStep(
        symbols=[symbol for symbol, count in zip(run.elements, run.counts, strict=True) for _ in range(count)],
        positions=run.atoms[:, :3],
        cell=run.cell,
        free_energy=energies[0],
        energy_sigma0=energies[1],
        forces=run.atoms[:, 3:],
        stress=run.stress,
        magmoms=None if run.vectors else run.magmoms,
        fixed=None,
        converged=run.converged,
        num_scf=run.num_scf,
    )
