"""Geometries and groups that are in more than one part of the split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from mlip.core.errors import ConfigError, DataError
from mlip.data.checks.base import EXAMPLES, Check, Finding, Settings, structures
from mlip.data.checks.table import FrameTable
from mlip.data.parts import divide
from mlip.data.splits import PARTS

FILES = ("path", "valid_path", "test_path")


class Leakage(Check):
    """What is in two parts makes a test look better than it is."""

    name = "leakage"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._passed: str | None = None

    def findings(self, table: FrameTable) -> Iterator[Finding]:
        """Divide as a training would, and compare the parts."""
        owners = self._owners(table)
        if isinstance(owners, str):
            yield self.finding("note", owners)
            return
        used = {int(part) for owner in owners.values() for part in np.unique(owner) if part >= 0}
        if len(used) < 2:
            return
        self._passed = f"no geometry in two of {', '.join(PARTS[k] for k in sorted(used))}"
        yield from self._geometries(table, owners)
        if len(owners) == 1 and self.settings.split is not None and not self.settings.split.get("official"):
            yield from self._groups(table, owners[0])

    def passed(self) -> str | None:
        """The parts are disjoint."""
        return self._passed

    def _owners(self, table: FrameTable) -> dict[int, np.ndarray] | str:
        """Return, by file set, (structures,) the number of the part of each, −1 for none; or why that is unknown."""
        sizes = table.geometries.num_structures
        owners = {part: np.full(number, part, dtype=np.int8) for part, number in sizes.items()}
        if not self.settings.complete:
            return "Only a part of the data was read: leakage between the parts of the split was not looked for."
        if 0 in sizes and self.settings.split:
            try:
                divided = self._divide(table, sizes[0], [name for k, name in enumerate(PARTS) if k and k in sizes])
            except (ConfigError, DataError) as error:
                return f"The split of the configuration was not checked: {error}"
            owners[0][:] = -1
            for k, name in enumerate(PARTS):
                owners[0][np.asarray(divided[name], dtype=np.int64)] = k
        return owners

    def _divide(self, table: FrameTable, number: int, files: list[str]) -> Mapping[str, Sequence[int]]:
        """Divide the structures of ``path`` as a training does."""
        index = table.geometries

        def groups() -> list[str] | None:
            names = list(index.group_names)
            return None if -1 in index.groups else [names[k] for k in index.groups]

        def unknown(name: str) -> Mapping[str, Sequence[int]]:
            raise ConfigError("the published split is not known")

        return divide(self.settings.split or {}, number, files, groups, self.settings.official_split or unknown)

    def _geometries(self, table: FrameTable, owners: Mapping[int, np.ndarray]) -> Iterator[Finding]:
        shared, examples = 0, []
        for run in table.geometries.repeated():
            parts = np.array([owners[int(entry["part"])][entry["number"]] for entry in run])
            run, parts = run[parts >= 0], parts[parts >= 0]
            if len(set(parts.tolist())) < 2:
                continue
            other = int(np.flatnonzero(parts != parts[0])[0])
            shared += int(np.count_nonzero(parts != parts[0]))
            if len(examples) < EXAMPLES:
                names = [f"{table.name(run[k]['part'], run[k]['number'])} ({PARTS[parts[k]]})" for k in (0, other)]
                examples.append(" = ".join(names))
        if not shared:
            return
        self._passed = None
        allowed = bool((self.settings.split or {}).get("allow_duplicates"))
        yield Finding(
            "warning" if allowed else "error",
            self.name,
            f"{structures(shared, 'have')} a geometry that is in another part of the split, too.",
            "Remove the copies: a test on training data measures nothing."
            + ("" if allowed else " A training refuses them unless data.split.allow_duplicates=true."),
            shared,
            examples,
        )

    def _groups(self, table: FrameTable, owner: np.ndarray) -> Iterator[Finding]:
        index = table.geometries
        groups = np.frombuffer(index.groups, dtype=np.int32) if len(index.groups) else np.zeros(0, dtype=np.int32)
        known = (groups >= 0) & (owner >= 0)
        if len(index.group_names) < 2:
            return
        pairs = np.unique(np.stack([groups[known], owner[known].astype(np.int32)], axis=1), axis=0)
        spread = np.flatnonzero(np.bincount(pairs[:, 0]) > 1)
        if len(spread):
            names = list(index.group_names)
            yield Finding(
                "warning",
                self.name,
                f"{len(spread)} of {len(names)} groups (materials, trajectories) are spread over several parts.",
                "Frames of one group are near copies: set data.split.by=group.",
                len(spread),
                [names[k] for k in spread[:EXAMPLES]],
            )
