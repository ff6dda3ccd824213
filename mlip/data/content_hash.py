"""One number that changes when a structure or a label does."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

from mlip.data.sample import Sample


def content_hash(samples: Iterable[Sample]) -> str:
    """Return the SHA-256 of all structures and labels, in order.

    Where samples come from (``info``) does not enter: the same data in another file have the same hash.
    """
    digest = hashlib.sha256()
    for sample in samples:
        atoms = sample.atoms
        digest.update(b"sample %d;" % len(atoms))
        for array, kind in ((atoms.numbers, "<i8"), (atoms.positions, "<f8"), (atoms.cell.array, "<f8")):
            digest.update(np.ascontiguousarray(array, dtype=kind).tobytes())
        digest.update(np.ascontiguousarray(atoms.pbc, dtype="u1").tobytes())
        for name in sorted(sample.labels):
            value = np.ascontiguousarray(sample.labels[name], dtype="<f8")
            digest.update(f"{name}{value.shape}".encode() + value.tobytes())
    return digest.hexdigest()
