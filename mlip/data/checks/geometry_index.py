"""Hashes of all geometries under check, to find those that are there twice."""

from __future__ import annotations

from array import array

import numpy as np

from mlip.data.checks.frame import Frame

MAX_ENTRIES = 8_000_000
"""Geometries that are kept. Of more, those with an even hash stay: copies of a geometry stay or go together."""

ENTRY = np.dtype([("hash", "u8"), ("part", "u1"), ("number", "i8"), ("energy", "f8"), ("force", "f4")])
"""Energy in eV/atom and root mean square force in eV/Å; NaN where there is none."""


class GeometryIndex:
    """One `ENTRY` for each structure, and the group of every structure of the first part."""

    def __init__(self, max_entries: int = MAX_ENTRIES) -> None:
        self.num_structures: dict[int, int] = {}
        self.group_names: dict[str, int] = {}
        self.groups = array("i")
        self._entries = np.empty(1024, dtype=ENTRY)
        self._length = 0
        self._shift = 0
        self._max_entries = max_entries

    def add(self, frame: Frame) -> None:
        """Add a structure."""
        self.num_structures[frame.part] = self.num_structures.get(frame.part, 0) + 1
        if frame.part == 0:
            group = frame.sample.info.get("group")
            self.groups.append(-1 if group is None else self.group_names.setdefault(str(group), len(self.group_names)))
        if frame.geometry & ((1 << self._shift) - 1):
            return
        if self._length == len(self._entries):
            self._make_room()
            if frame.geometry & ((1 << self._shift) - 1):
                return
        energy, forces = frame.label("energy"), frame.label("forces")
        self._entries[self._length] = (
            frame.geometry,
            frame.part,
            frame.number,
            np.nan if energy is None else energy / len(frame),
            np.nan if forces is None else np.sqrt(np.mean(forces**2)),
        )
        self._length += 1

    @property
    def share(self) -> float:
        """Share of the geometries that was kept."""
        return 0.5**self._shift

    def repeated(self) -> list[np.ndarray]:
        """Return the entries of every geometry that is there more than once, in the order they were added."""
        entries = self._entries[: self._length]
        order = np.argsort(entries["hash"], kind="stable")
        hashes = entries["hash"][order]
        starts = np.flatnonzero(np.diff(hashes, prepend=hashes[:1] + np.uint64(1)))
        lengths = np.diff(np.append(starts, len(hashes)))
        several = np.flatnonzero(lengths > 1)
        return [entries[order[starts[k] : starts[k] + lengths[k]]] for k in several]

    def _make_room(self) -> None:
        if len(self._entries) < self._max_entries:
            larger = np.empty(min(2 * len(self._entries), self._max_entries), dtype=ENTRY)
            larger[: self._length] = self._entries
            self._entries = larger
            return
        self._shift += 1
        entries = self._entries[: self._length]
        kept = entries[entries["hash"] & np.uint64((1 << self._shift) - 1) == 0]
        self._entries[: len(kept)] = kept
        self._length = len(kept)
