"""Write `.aselmdb`, the database of OC20, OMol25 and OMat24."""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import lmdb
import numpy as np
import orjson

from mlip.core.errors import DataError, MlipError
from mlip.core.files import write_atomically
from mlip.data.content_hash import sample_hash
from mlip.data.formats.ase_rows_metadata import FILE_NAME
from mlip.data.labels import CANDIDATES
from mlip.data.sample import Sample
from mlip.data.writers.base import Writer, info_to_write

_RESULTS = ("energy", "forces", "magmoms")
_INPUTS = ("charge", "spin")
_VOIGT = ([0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1])
_TAKEN = frozenset(key for keys in CANDIDATES.values() for key in keys)

FIRST_SIZE = 2**26
"""Bytes of the memory map to begin with; it is doubled when it is full."""

BATCH_BYTES = 2**23


class AseLmdbWriter(Writer):
    """Rows with ids from 1: results as ASE stores them, ``charge``, ``spin`` and ``info`` in ``data``.

    ``metadata.npz`` with the sizes of all rows is written beside a database that is alone in its folder.
    """

    name: ClassVar[str] = "aselmdb"
    suffixes: ClassVar[tuple[str, ...]] = (".aselmdb",)
    fields: ClassVar[frozenset[str]] = frozenset({*_RESULTS, *_INPUTS, "stress", "tags", "fixed"})

    def write(self, samples: Iterable[Sample], path: Path, record: Mapping[str, Any] | None = None) -> int:
        """Write samples, see `Writer.write`; the record becomes the database's metadata.

        Raises:
            MlipError: the folder has metadata of other databases or data, which would be wrong with this one.
        """
        metadata = path.parent / FILE_NAME
        others = [file for file in path.parent.glob("*.aselmdb") if file.name != path.name]
        if metadata.exists() and (others or not path.exists()):
            what = "describes the databases beside it" if others else "is of something else"
            raise MlipError(
                f"'{metadata}' {what} and would be wrong with '{path.name}'. Choose a folder of its own: "
                f"{path.parent / path.stem / path.name}"
            )
        sizes = array("q")
        write_atomically(path, lambda temporary: self._write(samples, temporary, sizes, record or {}, metadata))
        if not others:
            write_atomically(metadata, lambda temporary: np.savez(temporary, natoms=np.array(sizes, dtype=np.int64)))
        return len(sizes)

    def _write(
        self, samples: Iterable[Sample], path: Path, sizes: array[int], record: Mapping[str, Any], metadata: Path
    ) -> None:
        environment = lmdb.open(
            str(path), subdir=False, lock=False, map_size=FIRST_SIZE, meminit=False, sync=False, metasync=False
        )
        try:
            batch: list[tuple[bytes, bytes]] = []
            pending = 0
            for sample in self.checked(samples):
                sizes.append(len(sample.atoms))
                try:
                    value = zlib.compress(orjson.dumps(row_of(sample), option=orjson.OPT_SERIALIZE_NUMPY))
                except TypeError as error:
                    raise DataError(f"{sample.source}: its info cannot be written as JSON ({error}).") from error
                batch.append((b"%d" % len(sizes), value))
                pending += len(value)
                if pending >= BATCH_BYTES:
                    _put(environment, batch)
                    batch, pending = [], 0
            batch.append((b"nextid", zlib.compress(b"%d" % (len(sizes) + 1))))
            batch.append((b"metadata", zlib.compress(orjson.dumps(dict(record)))))
            _put(environment, batch)
            environment.sync(True)
        except lmdb.Error as error:
            raise MlipError(f"Cannot write '{path.parent}': {error}. Nothing was written.") from error
        finally:
            environment.close()
        # An old file's sizes must not outlive it.
        metadata.unlink(missing_ok=True)


def _put(environment: lmdb.Environment, batch: list[tuple[bytes, bytes]]) -> None:
    """Store some entries, with a larger map if it takes that."""
    while True:
        try:
            with environment.begin(write=True) as transaction:
                for key, value in batch:
                    transaction.put(key, value)
            return
        except lmdb.MapFullError:
            environment.set_mapsize(2 * environment.info()["map_size"])


def row_of(sample: Sample) -> dict[str, Any]:
    """Return a sample as the JSON object of an ASE row."""
    atoms, labels = sample.atoms, sample.labels
    row: dict[str, Any] = {
        "numbers": atoms.numbers.astype(np.int64),
        "positions": np.ascontiguousarray(atoms.positions),
        "cell": np.ascontiguousarray(atoms.cell.array),
        "pbc": atoms.pbc.tolist(),
        "unique_id": f"{sample_hash(sample):032x}",
        "ctime": 0.0,
        "mtime": 0.0,
        "user": "",
        "calculator": "unknown",
        "calculator_parameters": {},
        "key_value_pairs": {},
    }
    row |= {name: np.ascontiguousarray(labels[name]).tolist() for name in _RESULTS if name in labels}
    if "stress" in labels:
        stress = np.asarray(labels["stress"])
        row["stress"] = (stress[_VOIGT] if np.array_equal(stress, stress.T) else stress).tolist()
    if "tags" in labels:
        row["tags"] = np.asarray(labels["tags"]).tolist()
    if "fixed" in labels:
        row["constraints"] = [{"name": "FixAtoms", "kwargs": {"indices": np.flatnonzero(labels["fixed"]).tolist()}}]
    row["data"] = {name: int(labels[name]) for name in _INPUTS if name in labels} | info_to_write(sample, _TAKEN)
    return row
