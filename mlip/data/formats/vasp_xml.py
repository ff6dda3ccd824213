"""Read ``vasprun.xml``: one ionic step after the other, in memory of one step, without DTDs."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO
from xml.parsers import expat

import numpy as np

from mlip.core.errors import DataError
from mlip.core.units import KBAR
from mlip.data.formats.vasp_step import VaspStep, numbers_of

WANTED = ("parameters", "atominfo", "structure", "calculation")
"""Elements below the root that are kept."""

SKIPPED = frozenset({"eigenvalues", "eigenvalues_kpoints_opt", "dos", "projected", "dielectricfunction", "time"})
"""Large elements inside of them that are not."""

VASP_KBAR = 1e-22 / 1.60217733e-19
"""kB in eV/Å³ with the constant inside of VASP, which is what it added to an enthalpy."""

_BLOCK = 2**16


class _Doctype(Exception):
    """The file declares a document type."""


@dataclass
class _Run:
    """What stands in a file before its steps."""

    parameters: dict[str, str] = field(default_factory=dict)
    symbols: list[str] = field(default_factory=list)
    fixed: np.ndarray | None = None


class _Reader:
    """Collects the wanted elements of a file as trees."""

    def __init__(self) -> None:
        self.done: list[ET.Element] = []
        self._path: list[str] = []
        self._builder: ET.TreeBuilder | None = None
        self._skipping = 0
        self._parser = expat.ParserCreate()
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.StartDoctypeDeclHandler = self._refuse

    def feed(self, data: bytes, last: bool) -> None:
        """Parse a piece; complete elements are appended to `done`."""
        self._parser.Parse(data, last)

    def _refuse(self, *_: object) -> None:
        # VASP writes none; entities that a document type defines can expand a thousandfold, or read other files.
        raise _Doctype

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        self._path.append(tag)
        if self._builder is None:
            if len(self._path) != 2 or tag not in WANTED:
                return
            self._builder = ET.TreeBuilder()
            self._parser.CharacterDataHandler = self._builder.data
        elif self._skipping or tag in SKIPPED:
            self._skipping += 1
            self._parser.CharacterDataHandler = None
            return
        self._builder.start(tag, attributes)

    def _end(self, tag: str) -> None:
        self._path.pop()
        if self._builder is None:
            return
        if self._skipping:
            self._skipping -= 1
            if not self._skipping:
                self._parser.CharacterDataHandler = self._builder.data
            return
        self._builder.end(tag)
        if len(self._path) == 1:
            self.done.append(self._builder.close())
            self._builder = None
            self._parser.CharacterDataHandler = None


def read_xml(handle: IO[bytes], where: str, keep_incomplete: bool) -> Iterator[VaspStep | DataError]:
    """Read the ionic steps of a file.

    Args:
        handle: the file.
        where: its name, for messages.
        keep_incomplete: whether an end that is missing is no error.

    Yields:
        Steps; a `DataError` for a step that is damaged or not from DFT, or for what is wrong with the file.
    """
    reader = _Reader()
    run = _Run()
    number = 0
    while True:
        data = handle.read(_BLOCK)
        broken: Exception | None = None
        try:
            reader.feed(data, not data)
        except (expat.ExpatError, LookupError, ValueError, _Doctype) as error:  # Unknown encodings are no ExpatError.
            broken = error
        for element in reader.done:
            if element.tag != "calculation":
                _note(element, run, where)
                continue
            try:
                yield _step(element, run, f"{where}:{number}")
            except DataError as error:
                yield error
            number += 1
        reader.done.clear()
        if isinstance(broken, _Doctype):
            yield DataError(f"'{where}' declares a document type (DTD), which VASP never writes: it is refused.")
        elif broken is not None and not (keep_incomplete and not data):
            yield DataError(f"'{where}' is no whole vasprun.xml after step {number} ({broken}).")
        if broken is not None or not data:
            return


def _note(element: ET.Element, run: _Run, where: str) -> None:
    """Take over what stands before the steps."""
    if element.tag == "parameters":
        for item in element.iter("i"):
            run.parameters.setdefault(item.get("name", "").upper(), (item.text or "").strip())
    elif element.tag == "atominfo":
        rows = element.findall("array[@name='atoms']/set/rc")
        run.symbols = [(row.findtext("c") or "").strip() for row in rows]
    elif element.get("name") == "initialpos":
        flags = [(row.text or "").split() for row in element.findall("varray[@name='selective']/v")]
        if flags:
            run.fixed = np.array([all(flag == "F" for flag in row) for row in flags])


def _step(element: ET.Element, run: _Run, where: str) -> VaspStep:
    """Return one ionic step.

    Raises:
        DataError: something is missing or no number.
    """
    scf = element.findall("scstep")
    if not scf:
        raise DataError(
            f"{where} has no electronic steps: it is not from DFT (a step of VASP's machine-learned force field?)."
        )
    cell = _rows(element, "structure/crystal/varray[@name='basis']", 3, where)
    fractional = _rows(element, "structure/varray[@name='positions']", len(run.symbols), where)
    forces = _rows(element, "varray[@name='forces']", len(run.symbols), where)
    # With PSTRESS the energy of the step is an enthalpy; and its e_0_energy is wrong in many versions, so that the
    # difference to the free energy is taken from the last electronic step, which in turn lacks dispersion terms.
    pressure = float(numbers_of(run.parameters.get("PSTRESS", "0"), where)[0]) * VASP_KBAR
    free = _energy(element, "e_fr_energy", where) - pressure * abs(float(np.linalg.det(cell)))
    zero = _energy(scf[-1], "e_0_energy", where) + (free - _energy(scf[-1], "e_fr_energy", where))
    stress = element.find("varray[@name='stress']")
    most = run.parameters.get("NELM", "")
    return VaspStep(
        symbols=run.symbols,
        positions=fractional @ cell,
        cell=cell,
        free_energy=free,
        energy_sigma0=zero,
        forces=forces,
        stress=None if stress is None else -KBAR * _rows(element, "varray[@name='stress']", 3, where),
        magmoms=None,
        fixed=run.fixed if run.fixed is not None and len(run.fixed) == len(run.symbols) else None,
        converged=len(scf) < int(most) if most.isdecimal() and len(most) < 10 else None,
        num_scf=len(scf),
    )


def _rows(element: ET.Element, path: str, number: int, where: str) -> np.ndarray:
    """Return (number, 3) numbers of an array."""
    found = element.find(path)
    name = path.rsplit("'", 2)[-2]
    if found is None:
        raise DataError(f"{where} has no {name}.")
    values = numbers_of(" ".join(row.text or "" for row in found.iter("v")), f"{where}, {name}")
    if values.size != 3 * number:
        raise DataError(f"{where}: {name} must have {number} rows of 3 numbers, got {values.size} numbers.")
    return values.reshape(number, 3)


def _energy(element: ET.Element, name: str, where: str) -> float:
    text = element.findtext(f"energy/i[@name='{name}']")
    if text is None:
        raise DataError(f"{where} has no {name}.")
    return float(numbers_of(text, f"{where}, {name}")[0])
