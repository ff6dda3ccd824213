"""Read one shard: find a block with one look into an index, and read nothing but that block."""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mlip.core.errors import DataError
from mlip.data.neighbours import Pairs
from mlip.data.sample import Sample
from mlip.data.store.block import unpack, unpack_infos
from mlip.data.store.columns import Unstacked
from mlip.data.store.edges import unpack_pairs
from mlip.data.store.shard_writer import FORMAT_VERSION
from mlip.data.store.streams import damaged

MOST_OPEN = 64
"""Files that a process keeps open."""


class OpenFiles:
    """Reads bytes from many files, of which a few stay open."""

    def __init__(self) -> None:
        self._open: OrderedDict[Path, int] = OrderedDict()

    def read(self, path: Path, start: int, size: int) -> bytes:
        """Return bytes of a file; fewer where it ends.

        Raises:
            DataError: the file cannot be read.
        """
        try:
            if path not in self._open:
                if len(self._open) >= MOST_OPEN:
                    os.close(self._open.popitem(last=False)[1])
                self._open[path] = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
            self._open.move_to_end(path)
            return os.pread(self._open[path], size, start)
        except OSError as error:
            raise DataError(f"Cannot read '{path}' of the store: {error.strerror or error}.") from error

    def __del__(self) -> None:
        for handle in self._open.values():
            os.close(handle)


class ShardReader:
    """One shard, whose index (16 bytes a block) is in memory.

    Args:
        path: of the file.
        files: through which it is read.

    Attributes:
        header: what `ShardWriter.finish` was given.
        num_samples: in the shard.

    Raises:
        DataError: the file is not there, damaged, or written by a newer version.
    """

    def __init__(self, path: Path, files: OpenFiles) -> None:
        self.path, self._files = path, files
        with _opened(path) as file:
            _check_version(file, path)
            self.header: dict[str, Any] = json.loads(file["header"][()].tobytes())
            self._samples = file["block_samples"][()].astype(np.int64)
            self._offsets = file["block_offsets"][()].astype(np.int64)
            self._graph_offsets = file["graph_offsets"][()].astype(np.int64) if "graphs" in file else None
            self._places = {name: _extent(file[name]) for name in ("blocks", "graphs") if name in file}
        sizes = {"blocks": self._offsets} | ({} if self._graph_offsets is None else {"graphs": self._graph_offsets})
        for name, offsets in sizes.items():
            if len(offsets) == 0 or (np.diff(offsets) < 0).any() or offsets[-1] != self._places[name][1]:
                raise damaged(f"'{path}'")
        if len(self._samples) != len(self._offsets) or self._samples[0] != 0 or (np.diff(self._samples) <= 0).any():
            raise damaged(f"'{path}'")

    @property
    def num_samples(self) -> int:
        """Samples in the shard."""
        return int(self._samples[-1])

    @property
    def num_blocks(self) -> int:
        """Blocks in the shard."""
        return len(self._offsets) - 1

    def find(self, index: int) -> tuple[int, int]:
        """Return the block that holds a sample, and its place therein."""
        block = int(np.searchsorted(self._samples, index, side="right")) - 1
        return block, index - int(self._samples[block])

    def block(self, number: int) -> Unstacked:
        """Return the samples of a block.

        Raises:
            DataError: it is damaged.
        """
        where = f"block {number} of '{self.path}'"
        samples = unpack(self._record("blocks", self._offsets, number, where), where)
        if len(samples) != self._samples[number + 1] - self._samples[number]:
            raise damaged(where)
        return samples

    def sample(self, index: int) -> Sample:
        """Return one sample."""
        number, place = self.find(index)
        return self.block(number)[place]

    def infos(self) -> list[dict[str, Any]]:
        """Return the provenance of all samples, without decoding their numbers."""
        found = []
        for number in range(self.num_blocks):
            where = f"block {number} of '{self.path}'"
            found += unpack_infos(self._record("blocks", self._offsets, number, where), where)
        return found

    def pairs(self, index: int) -> Pairs | None:
        """Return the neighbour list of a sample; None if none are kept."""
        if self._graph_offsets is None:
            return None
        where = f"neighbour list {index} of '{self.path}'"
        return unpack_pairs(self._record("graphs", self._graph_offsets, index, where), where)

    def column(self, name: str) -> np.ndarray:
        """Return a column of the samples: ``num_atoms``, ``num_edges``, ``digest`` or ``geometry_digest``."""
        with _opened(self.path) as file:
            values = file[name][()]
        if len(values) != self.num_samples:
            raise damaged(f"'{self.path}'")
        return values

    def _record(self, name: str, offsets: np.ndarray, number: int, where: str) -> bytes:
        start, stop = int(offsets[number]), int(offsets[number + 1])
        record = self._files.read(self.path, self._places[name][0] + start, stop - start)
        if len(record) != stop - start:
            raise damaged(where)
        return record


class _opened:
    """An HDF5 file for reading, with everything that HDF5 raises for damaged bytes turned into one error."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> h5py.File:
        if not self._path.is_file():
            raise DataError(
                f"The store lacks '{self._path}'. Run the mlip data prepare command that made it again; only what is "
                "missing is made."
            )
        try:
            self._file = h5py.File(self._path, "r", locking=False)
        except (OSError, RuntimeError, ValueError) as error:
            raise damaged(f"'{self._path}'") from error
        return self._file

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        self._file.close()
        # ValueError includes what json raises.
        if isinstance(error, OSError | RuntimeError | ValueError | KeyError | TypeError | AttributeError):
            raise damaged(f"'{self._path}'") from error


def _check_version(file: h5py.File, path: Path) -> None:
    version = int(file.attrs["format_version"])
    if version > FORMAT_VERSION:
        raise DataError(
            f"'{path}' has format version {version}, this version of mlip reads up to {FORMAT_VERSION}. Update mlip."
        )


def _extent(dataset: h5py.Dataset) -> tuple[int, int]:
    """Return where the bytes of a contiguous data set are, and how many."""
    return dataset.id.get_offset() or 0, int(dataset.size)
