"""Write one shard: an HDF5 file that is there as a whole or not at all.

Blocks and neighbour lists are two contiguous data sets of bytes, so that a reader needs HDF5 only to find them; the
columns of numbers are ordinary data sets with checksums. The bytes are collected first (in memory, or in a nameless
file where there are many) and copied by ordinary writing, which says clearly when a disk is full.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Any

import h5py
import numpy as np

from mlip.core.errors import MlipError
from mlip.core.files import write_atomically
from mlip.data.content_hash import geometry_hash, sample_hash
from mlip.data.neighbours import Pairs
from mlip.data.sample import Sample
from mlip.data.store.block import pack_columns
from mlip.data.store.columns import Columns
from mlip.data.store.edges import pack_pairs

FORMAT_VERSION = 1
"""Raised when a store is written in a way that older versions of mlip cannot read."""

IN_MEMORY = 1 << 26
"""Bytes of a shard that are collected in memory."""

COLUMNS = {
    "num_atoms": "<u4",
    "num_edges": "<u4",
    "digest": "<u8",
    "geometry_digest": "<u8",
    "block_samples": "<u8",
    "block_offsets": "<u8",
}
"""Columns of a shard: four with a row a sample, and two that say where blocks begin, and where the last ends."""


class ShardWriter:
    """Collects the blocks of a shard and writes it; a context, at whose end what was collected is forgotten.

    Args:
        path: of the shard.
        graphs: whether neighbour lists are kept.
    """

    def __init__(self, path: Path, graphs: bool) -> None:
        self.path, self.graphs = path, graphs
        self._columns: dict[str, list[int]] = {name: [] for name in COLUMNS}
        self._columns["block_samples"] = [0]
        self._columns["block_offsets"] = [0]
        self._graph_offsets = [0]
        self._open = ExitStack()
        self._blocks, self._pairs = (self._open.enter_context(_spool(path.parent)) for _ in range(2))

    def add(self, samples: Sequence[Sample], columns: Columns, num_edges: np.ndarray, pairs: Sequence[Pairs]) -> None:
        """Add a block.

        Args:
            samples: as they are to be read again.
            columns: the same, stacked.
            num_edges: (samples,).
            pairs: their neighbour lists, or nothing.

        Raises:
            MlipError: the disk is full.
        """
        record = pack_columns(columns)
        _append(self._blocks, record, self.path)
        self._columns["num_atoms"] += columns.num_atoms.tolist()
        self._columns["num_edges"] += num_edges.tolist()
        self._columns["digest"] += [sample_hash(sample) for sample in samples]
        self._columns["geometry_digest"] += [geometry_hash(sample.atoms) for sample in samples]
        self._columns["block_samples"].append(len(self._columns["num_atoms"]))
        self._columns["block_offsets"].append(self._columns["block_offsets"][-1] + len(record))
        for found, sample in zip(pairs, samples, strict=False):
            graph = pack_pairs(found, len(sample.atoms))
            _append(self._pairs, graph, self.path)
            self._graph_offsets.append(self._graph_offsets[-1] + len(graph))

    def finish(self, header: dict[str, Any]) -> None:
        """Write the file.

        Args:
            header: plain values about the shard as a whole.

        Raises:
            MlipError: the folder cannot be written to, or the disk is full.
        """
        write_atomically(self.path, lambda temporary: self._write(temporary, header))

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def _write(self, path: Path, header: dict[str, Any]) -> None:
        sources = {"blocks": self._blocks} | ({"graphs": self._pairs} if self.graphs else {})
        try:
            with h5py.File(path, "w", libver="latest") as file:
                file.attrs["format_version"] = FORMAT_VERSION
                _put(file, "header", np.frombuffer(json.dumps(header, sort_keys=True).encode(), np.uint8))
                for name, kind in COLUMNS.items():
                    _put(file, name, np.array(self._columns[name], dtype=kind))
                if self.graphs:
                    _put(file, "graph_offsets", np.array(self._graph_offsets, dtype="<u8"))
                places = {name: _reserve(file, name, source.tell()) for name, source in sources.items()}
        except RuntimeError as error:
            raise OSError(f"HDF5 cannot write ({' '.join(str(error).split())[:200]})") from error
        with path.open("r+b") as handle:
            for name, source in sources.items():
                if places[name] is not None:
                    source.seek(0)
                    handle.seek(places[name])
                    shutil.copyfileobj(source, handle)
            handle.flush()
            os.fsync(handle.fileno())


def _spool(folder: Path) -> Any:
    """Return a file in memory that moves to the disk, without a name there, when it has grown."""
    return SpooledTemporaryFile(max_size=IN_MEMORY, dir=folder)


def _append(spool: Any, content: bytes, path: Path) -> None:
    try:
        spool.write(content)
    except OSError as error:
        raise MlipError(
            f"Cannot write next to '{path}': {error.strerror or error}. Free some space and run the same command again."
        ) from error


def _put(file: h5py.File, name: str, values: np.ndarray) -> None:
    """Write a column with a checksum; what compresses is compressed."""
    if values.size == 0:
        file.create_dataset(name, data=values)
        return
    shrinks = values.dtype.itemsize != 8 or name.endswith(("offsets", "samples"))
    options = {"compression": "gzip", "compression_opts": 9, "shuffle": True} if shrinks else {}
    file.create_dataset(name, data=values, chunks=values.shape, fletcher32=True, **options)


def _reserve(file: h5py.File, name: str, size: int) -> int | None:
    """Make a contiguous data set of bytes without writing it, and return where in the file it is."""
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    # The same data give the same file.
    settings.set_obj_track_times(False)
    settings.set_layout(h5py.h5d.CONTIGUOUS)
    settings.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    settings.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    space = h5py.h5s.create_simple((size,))
    return h5py.h5d.create(file.id, name.encode(), h5py.h5t.NATIVE_UINT8, space, settings).get_offset()
