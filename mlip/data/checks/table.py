"""A few numbers of every structure under check: what needs a second look once all have been seen."""

from __future__ import annotations

import re
from functools import cached_property

import numpy as np

from mlip.data.checks.frame import Frame
from mlip.data.checks.geometry_index import GeometryIndex
from mlip.data.checks.residuals import EnergyResiduals, energy_residuals

MAX_ROWS = 2_000_000
"""Structures that the table holds; of more it keeps a random half, again and again."""

MAX_PREFIXES = 200_000
"""Different beginnings of sources that are remembered."""

ROW = np.dtype(
    [
        ("part", "u1"),
        ("number", "i8"),
        ("prefix", "i4"),
        ("suffix", "i8"),
        ("formula", "i4"),
        ("group", "i4"),
        ("atoms", "i4"),
        ("energy", "f8"),
        ("volume", "f4"),
        ("tension", "f4"),
        ("stress_max", "f4"),
        ("force_max", "f4"),
        ("force_rms", "f4"),
    ]
)
"""Energy in eV, volume in Å³, tension (a third of the trace) and largest component of the stress in eV/Å³, norm of the
largest force and root mean square of the components in eV/Å; NaN where there is none. Formula and group are numbers of
those of `FrameTable`, group −1 for none."""


class FrameTable:
    """Columns of `ROW`, one row a structure, in memory that stays below a bound.

    Args:
        max_rows: rows kept.
        seed: of the random choice where there are more.
    """

    def __init__(self, max_rows: int = MAX_ROWS, seed: int = 0) -> None:
        self.num_seen = 0
        self.isolated: dict[str, float] = {}
        self.geometries = GeometryIndex()
        self.compositions: list[tuple[tuple[int, int], ...]] = []
        self.elements: dict[int, int] = {}
        self._formulas: dict[tuple[tuple[int, int], ...], int] = {}
        self._groups: dict[str, int] = {}
        self._prefixes: dict[str, int] = {}
        self._rows = np.empty(1024, dtype=ROW)
        self._length = 0
        self._max_rows = max_rows
        self._kept_share = 1.0
        self._rng = np.random.default_rng(seed)

    def add(self, frame: Frame) -> None:
        """Add a structure."""
        self.num_seen += 1
        self.geometries.add(frame)
        for number, _ in frame.composition:
            self.elements[number] = self.elements.get(number, 0) + 1
        if self._kept_share < 1 and self._rng.random() >= self._kept_share:
            return
        if self._length == len(self._rows):
            self._make_room()
        prefix, suffix = self._split_source(frame.source)
        energy, forces, stress = (frame.label(name) for name in ("energy", "forces", "stress"))
        group = "\n".join(str(frame.sample.info.get(key, "")) for key in ("group", "config_type"))
        self._rows[self._length] = (
            frame.part,
            frame.number,
            prefix,
            suffix,
            self._number_of(frame.composition),
            self._groups.setdefault(group, len(self._groups)) if group != "\n" else -1,
            len(frame),
            np.nan if energy is None else energy,
            frame.volume,
            np.nan if stress is None else np.trace(stress) / 3,
            np.nan if stress is None else np.abs(stress).max(),
            np.nan if forces is None else np.sqrt((forces**2).sum(axis=1).max(initial=0.0)),
            np.nan if forces is None else np.sqrt(np.mean(forces**2)),
        )
        self._length += 1

    def __len__(self) -> int:
        return self._length

    @property
    def rows(self) -> np.ndarray:
        """(rows,) of `ROW`."""
        return self._rows[: self._length]

    def __getitem__(self, column: str) -> np.ndarray:
        """Return a column (rows,), energies and the like as float64."""
        values = self.rows[column]
        return values.astype(np.float64) if values.dtype.kind == "f" else values

    def source(self, row: int) -> str:
        """Return where the structure of a row is."""
        entry = self.rows[row]
        if entry["prefix"] < 0:
            return f"structure {entry['number']}"
        prefix = self._prefix_names[entry["prefix"]]
        return prefix if entry["suffix"] < 0 else f"{prefix}{entry['suffix']}"

    def name(self, part: int, number: int) -> str:
        """Return where a structure is, given the number it has in its part."""
        found = np.flatnonzero((self.rows["number"] == number) & (self.rows["part"] == part))
        return self.source(int(found[0])) if len(found) else f"structure {number}"

    def counts(self, rows: np.ndarray, elements: list[int]) -> np.ndarray:
        """Return (rows, elements) how many atoms of each element, given by atomic number, some rows have."""
        column = {number: k for k, number in enumerate(elements)}
        formulas, which = np.unique(self.rows["formula"][rows], return_inverse=True)
        counts = np.zeros((len(formulas), len(elements)))
        for k, formula in enumerate(formulas):
            for number, count in self.compositions[formula]:
                counts[k, column[number]] = count
        return counts[which]

    @cached_property
    def energies(self) -> EnergyResiduals:
        """The energies against a robust fit; ask when all structures have been added."""
        return energy_residuals(self)

    @cached_property
    def _prefix_names(self) -> list[str]:
        return list(self._prefixes)

    def _number_of(self, composition: tuple[tuple[int, int], ...]) -> int:
        number = self._formulas.setdefault(composition, len(self._formulas))
        if number == len(self.compositions):
            self.compositions.append(composition)
        return number

    def _split_source(self, source: str) -> tuple[int, int]:
        """Return a source as the number of its beginning and the number at its end, −1 for what cannot be kept."""
        found = re.fullmatch(r"(.*?)(0|[1-9]\d{0,17})", source, re.DOTALL)
        prefix, suffix = (found[1], int(found[2])) if found else (source, -1)
        if prefix not in self._prefixes and len(self._prefixes) >= MAX_PREFIXES:
            return -1, -1
        return self._prefixes.setdefault(prefix, len(self._prefixes)), suffix

    def _make_room(self) -> None:
        if len(self._rows) < self._max_rows:
            larger = np.empty(min(2 * len(self._rows), self._max_rows), dtype=ROW)
            larger[: self._length] = self._rows[: self._length]
            self._rows = larger
            return
        keep = self._rows[: self._length][self._rng.random(self._length) < 0.5]
        self._kept_share /= 2
        self._rows[: len(keep)] = keep
        self._length = len(keep)
        # Formulas that nobody has any more would gather without end.
        alive, which = np.unique(keep["formula"], return_inverse=True)
        self.compositions = [self.compositions[k] for k in alive]
        self._formulas = {composition: k for k, composition in enumerate(self.compositions)}
        self._rows["formula"][: len(keep)] = which
