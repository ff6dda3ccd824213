"""A store that ``mlip data prepare`` made: random access to any number of structures."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from mlip.core.errors import DataError
from mlip.data.datasets.base import Chunk, Dataset, Recognition
from mlip.data.neighbours import Pairs
from mlip.data.sample import Sample
from mlip.data.store.catalogue import STORE, missing, read_store, unfinished
from mlip.data.store.columns import Unstacked
from mlip.data.store.plan import PLAN, command, read_json, shard_name
from mlip.data.store.shard_reader import OpenFiles, ShardReader
from mlip.data.store.streams import damaged

KEPT_BLOCKS = 32
KEPT_NUMBERS = 1 << 22
"""Decoded blocks that a process keeps, and numbers in their labels (32 MB)."""


class StoreDataset(Dataset):
    """The structures of a store, in the order of its sources.

    One sample costs one read of a few kilobytes. A process keeps an index of about one byte a structure, a few open
    files and a few decoded blocks; copies that are sent to workers open the files themselves.

    Args:
        path: folder of the store.

    Attributes:
        statistics: of all structures, see `mlip.data.store.summary.Summary.as_dict`.
        options: what the store was made with: ``cutoff`` (Å), ``precision``, ``graphs``.
        sources: what it was made of.

    Raises:
        DataError: no store, an unfinished one, a newer version, or files that are missing or damaged.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        if path is None or str(path) in ("", "???"):
            raise DataError("A store needs a path: set data.path to the folder that mlip data prepare made.")
        self.path = Path(path).expanduser().resolve()
        if not self.path.is_dir():
            raise DataError(f"There is no folder '{path}', a store that mlip data prepare made was expected.")
        store = read_store(self.path)
        pending = read_json(self.path / PLAN)
        if pending is not None and unfinished(pending, store):
            giving_up = f", or give up adding by deleting '{self.path / PLAN}'" if store is not None else ""
            line = command(pending["source"], self.path, pending["options"], store is not None)
            raise DataError(f"The store '{path}' is not finished. Go on with: {line}{giving_up}.")
        if store is None:
            raise DataError(f"'{path}' is not a store: it has no {STORE}. Make one with mlip data prepare.")
        if lost := missing(self.path, store):
            raise DataError(
                f"The store '{path}' is damaged: '{lost[0].name}' is missing or has another size "
                f"({len(lost)} of {len(store['shards'])} shards). Run the mlip data prepare command that made it "
                "again; only what is missing is made."
            )
        self.statistics: dict[str, Any] = store["statistics"]
        self.options: dict[str, Any] = store["options"]
        self.sources: list[dict[str, Any]] = store["sources"]
        self.provides = tuple(store["provides"])
        self.licence, self.citation = store["licence"], store["citation"]
        units = [source["units"] for source in self.sources]
        self.units = units[0] if all(each == units[0] for each in units) else {"all": "several sources"}
        theories = [source["level_of_theory"] for source in self.sources if source["level_of_theory"]]
        self.level_of_theory = theories[0] if theories else {}
        self._isolated: dict[str, float] = store["isolated_atom_energies"]
        self._starts = np.concatenate([[0], np.cumsum([count for count, _ in store["shards"]])]).astype(np.int64)
        self._forget()

    def _forget(self) -> None:
        self._files = OpenFiles()
        self._shards: dict[int, ShardReader] = {}
        self._blocks: OrderedDict[tuple[int, int], Unstacked] = OrderedDict()
        self._kept = 0
        self._columns: dict[str, np.ndarray] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in _OF_A_PROCESS}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> Sample:
        number, place = self._find(index)
        shard = self._shard(number)
        block, place = shard.find(place)
        key = number, block
        if key in self._blocks:
            self._blocks.move_to_end(key)
        else:
            self._keep(key, shard.block(block))
        return self._blocks[key][place]

    def _keep(self, key: tuple[int, int], block: Unstacked) -> None:
        """Keep a decoded block, and forget the oldest ones where there are too many."""
        self._blocks[key] = block
        self._kept += block.num_numbers
        while len(self._blocks) > KEPT_BLOCKS or (self._kept > KEPT_NUMBERS and len(self._blocks) > 1):
            self._kept -= self._blocks.popitem(last=False)[1].num_numbers

    def _find(self, index: int) -> tuple[int, int]:
        """Return the shard of a sample and its place therein."""
        index = range(len(self))[index]
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        return number, index - int(self._starts[number])

    def _shard(self, number: int) -> ShardReader:
        if number not in self._shards:
            shard = ShardReader(self.path / shard_name(number), self._files)
            if shard.num_samples != self._starts[number + 1] - self._starts[number]:
                raise damaged(f"'{shard.path}'")
            self._shards[number] = shard
        return self._shards[number]

    def isolated_atom_energies(self) -> dict[str, float]:
        """Energies of single atoms by symbol, eV."""
        return dict(self._isolated)

    def chunks(self) -> Iterator[Chunk]:
        """One chunk a shard, after one of the isolated atoms."""
        if self._isolated:
            yield Chunk("isolated atoms", _ISOLATED, len(self._isolated))
        for number, count in enumerate(np.diff(self._starts).tolist()):
            if count:
                path = self.path / shard_name(number)
                yield Chunk(path.name, number, count, path.stat().st_size)

    def read(self, chunk: Chunk) -> Iterator[Sample | DataError]:
        """Read the samples of a shard in order."""
        if chunk.location == _ISOLATED:
            for symbol, energy in self._isolated.items():
                info = {"source": f"{self.path / STORE}:{symbol}"}
                yield Sample(Atoms(symbol), {"energy": np.array(energy)}, info, isolated=True)
            return
        shard = self._shard(chunk.location)
        for number in range(shard.num_blocks):
            yield from shard.block(number)

    def _column(self, name: str) -> np.ndarray:
        if name not in self._columns:
            parts = [self._shard(number).column(name) for number in range(len(self._starts) - 1)]
            self._columns[name] = np.concatenate(parts)
        return self._columns[name]

    def fields(self) -> set[str]:
        """Return the names of the fields that some sample has."""
        return {name for name, count in self.statistics["labels"].items() if count}

    def num_atoms(self) -> np.ndarray:
        """Return (samples,) atoms."""
        return self._column("num_atoms").astype(np.int64)

    def num_edges(self, cutoff: float) -> np.ndarray | None:
        """Return (samples,) edges at the cutoff that the store was made with; None for another."""
        return self._column("num_edges").astype(np.int64) if float(cutoff) == self.options["cutoff"] else None

    def digests(self, indices: Sequence[int]) -> np.ndarray:
        """Return (indices,) uint64: a hash of each sample's structure and labels, as they are stored."""
        return self._column("digest")[np.asarray(indices, dtype=np.int64)]

    def geometry_digests(self, indices: Sequence[int]) -> np.ndarray:
        """Return (indices,) uint64: a hash of each sample's structure, to a millionth of an Å."""
        return self._column("geometry_digest")[np.asarray(indices, dtype=np.int64)]

    def groups(self) -> list[str] | None:
        """Return the group of every sample (``info["group"]``), None where there are none."""
        found: list[str] = []
        for number in range(len(self._starts) - 1):
            for info in self._shard(number).infos():
                if info.get("group") is None:
                    return None
                found.append(str(info["group"]))
        return found or None

    def pairs(self, index: int, cutoff: float) -> Pairs | None:
        """Return a sample's neighbour list, None for another cutoff or where none are kept."""
        if not self.options["graphs"] or float(cutoff) != self.options["cutoff"]:
            return None
        number, place = self._find(index)
        return self._shard(number).pairs(place)

    @classmethod
    def recognise(cls, path: Path) -> Recognition | None:
        """A folder with a store.json, or with the plan of one."""
        folder = Path(path)
        return Recognition(3) if (folder / STORE).is_file() or (folder / PLAN).is_file() else None


_ISOLATED = -1
_OF_A_PROCESS = ("_files", "_shards", "_blocks", "_kept", "_columns")
