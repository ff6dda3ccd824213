"""Keys of text files that look like a label that is not read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from mlip.core.errors import did_you_mean
from mlip.data.checks.base import Check, Finding, Seen, Settings
from mlip.data.checks.frame import Frame
from mlip.data.checks.table import FrameTable
from mlip.data.labels import CANDIDATES

FRAMES = 20
"""Frames of each part that are looked at."""

STEMS = {"energy": ("energ",), "forces": ("forc",), "stress": ("stress", "virial"), "magmoms": ("magmom",)}
_KEY = re.compile(r"(?:^|\s)\"?([A-Za-z_][\w\-./]*)\"?\s*=")
_COLUMN = re.compile(r"([A-Za-z_][^:]*):[RISL]:\d+")


class UnreadKeys(Check):
    """A misspelt or unusual key of an optional label is skipped without a word by any reader; this one says it."""

    name = "unread keys"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._unread: dict[tuple[str, str], Seen] = {}
        self._looked: dict[str, int] = {}

    def update(self, frame: Frame) -> None:
        """Read the comment line of the first frames again."""
        found = re.fullmatch(r"(.+\.(?:ext)?xyz):(\d+)", frame.source)
        if found is None or self._looked.get(found[1], 0) >= FRAMES or len(self._looked) >= FRAMES:
            return
        self._looked[found[1]] = self._looked.get(found[1], 0) + 1
        line = _comment_line(Path(found[1]), int(found[2]))
        keys = [key for key in _KEY.findall(line) if key.lower() not in ("properties", "lattice", "pbc")]
        columns = re.search(r"Properties=(\"[^\"]*\"|\S+)", line, re.IGNORECASE)
        keys += _COLUMN.findall(columns[1].strip('"')) if columns else []
        for label, stems in STEMS.items():
            if label in frame.labels:
                continue
            for key in keys:
                plain = key.lower()
                if plain.endswith(("unit", "units")) or plain in ("species", "pos"):
                    continue
                if any(stem in plain for stem in stems) or did_you_mean(plain, [label, *stems]):
                    self._unread.setdefault((label, key), Seen()).add(frame.source)

    def findings(self, table: FrameTable) -> Iterator[Finding]:
        """Name the keys."""
        for (label, key), seen in self._unread.items():
            text = f"No {label} is read, but the file has a key '{key}' that looks like it."
            if label == "magmoms":
                advice = "Name it 'magmoms' and add magmoms to data.dataset.optional_labels if you train on it."
            else:
                advice = f"Say data.dataset.{label}_key={key} and put {label} into labels or optional_labels."
            # A usual key is left out because nobody asked for the label; others are likely to be a mistake.
            level = "note" if key.lower() in CANDIDATES[label] else "warning"
            yield Finding(level, self.name, text, advice, seen.count, tuple(seen.examples))


def _comment_line(path: Path, frame: int) -> str:
    """Return the second line of a frame of an extxyz file, "" if it is not there."""
    try:
        with path.open(encoding="utf-8", errors="replace") as handle:
            for _ in range(frame):
                for _ in range(int(next(handle)) + 1):
                    next(handle)
            next(handle)
            return next(handle)
    except (OSError, ValueError, StopIteration):
        return ""
