"""What one worker gets at a time: structures that make batches together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlip.simulate.screening.task import Item

CHUNKS_OF_A_WORKER = 4
"""So that all end at about the same time, unless the chunks were too small for batches then."""

SMALLEST_BATCH = 0.25
"""Share of the atoms of a batch below which a chunk wastes the time of its worker."""

BATCHES_OF_A_CHUNK = 4
"""At most: while a chunk lasts, structures that end are replaced in the batch by the next ones."""


@dataclass(frozen=True)
class Chunk:
    """Structures for a worker.

    Attributes:
        number: tells chunks apart; one that is tried again gets another.
        items: at least one.
    """

    number: int
    items: tuple[Item, ...]


def divide(items: Sequence[Item], workers: int, batch_atoms: int) -> list[tuple[Item, ...]]:
    """Divide structures into chunks of about as many atoms, the largest structures first.

    Args:
        items: structures.
        workers: at least as many as there will be.
        batch_atoms: evaluated together by a worker.
    """
    total = sum(len(item.atoms) for item in items)
    share = total // workers
    wanted = max(share // CHUNKS_OF_A_WORKER, min(share, int(SMALLEST_BATCH * batch_atoms)), 1)
    wanted = min(wanted, BATCHES_OF_A_CHUNK * batch_atoms)
    chunks: list[list[Item]] = []
    atoms = wanted
    # The longest work begins first, and structures of about the same size share a batch.
    for item in sorted(items, key=lambda one: (-len(one.atoms), one.number)):
        if atoms >= wanted:
            chunks.append([])
            atoms = 0
        chunks[-1].append(item)
        atoms += len(item.atoms)
    return [tuple(chunk) for chunk in chunks]
