"""Numbers that change when a structure or a label does."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from ase import Atoms

from mlip.data.sample import Sample

DECIMALS = 6
"""Geometries that agree to this many decimals of an Å are the same."""


def sample_hash(sample: Sample) -> int:
    """Return a 64-bit hash of a sample's structure and labels.

    Where samples come from (``info``) does not enter: the same data in another file have the same hash.
    """
    atoms = sample.atoms
    digest = hashlib.blake2b(b"%d;" % len(atoms), digest_size=8)
    for array, kind in ((atoms.numbers, "<i8"), (atoms.positions, "<f8"), (atoms.cell.array, "<f8"), (atoms.pbc, "u1")):
        digest.update(np.ascontiguousarray(array, dtype=kind).tobytes())
    for name in sorted(sample.labels):
        value = np.ascontiguousarray(sample.labels[name], dtype="<f8")
        digest.update(f"{name}{np.shape(sample.labels[name])}".encode() + value.tobytes())
    return int.from_bytes(digest.digest(), "little")


def geometry_hash(atoms: Atoms) -> int:
    """Return a 64-bit hash of numbers, positions, and cell along periodic axes, to a millionth of an Å.

    Copies that were moved or turned are other geometries.
    """
    cell = np.where(atoms.pbc[:, None], atoms.cell.array, 0.0)
    # Adding zero turns −0.0 into 0.0, which has other bytes.
    rounded = np.round(np.concatenate([atoms.positions, cell]), DECIMALS) + 0.0
    content = atoms.numbers.astype("<i8").tobytes() + rounded.astype("<f8").tobytes()
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def combined_hash(digests: Iterable[int]) -> str:
    """Return the SHA-256 of the hashes of samples, in order."""
    return hashlib.sha256(np.fromiter(digests, dtype="<u8").tobytes()).hexdigest()


def content_hash(samples: Iterable[Sample]) -> str:
    """Return one hash of all structures and labels, in order."""
    return combined_hash(map(sample_hash, samples))
