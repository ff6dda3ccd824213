"""Samples are read once, in whatever order graphs and report ask, and few are kept."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from mlip.data.content_hash import content_hash
from mlip.data.sample import Sample
from mlip.data.subset import SampleList, Subset
from mlip.evaluation.one_pass import OnePass


class Counted(SampleList):
    """Counts how often each sample was read."""

    def __init__(self, count: int) -> None:
        super().__init__([Sample(Atoms("H"), {"energy": np.array(float(k))}, {}) for k in range(count)])
        self.read = np.zeros(count, dtype=int)

    def __getitem__(self, index: int) -> Sample:
        self.read[index] += 1
        return super().__getitem__(index)


@pytest.mark.parametrize("batch", [1, 3])
def test_each_is_read_once_and_few_are_kept(batch: int) -> None:
    data = Counted(10)
    order = [9, 2, 4, 1, 7, 5, 0]
    once, values, kept = OnePass(Subset(data, order)), [], []
    once[0]
    taken = once.taken()
    for start in range(0, len(order), batch):
        together = [once[k] for k in range(start, min(start + batch, len(order)))]
        for sample in together:
            assert next(taken) is sample
            values.append(float(sample.labels["energy"]))
            kept.append(len(once._kept))
    assert next(taken, None) is None
    assert values == order
    assert data.read.tolist() == [int(k in order) for k in range(10)]
    assert max(kept) <= batch + 1
    assert once.content_hash == Subset(data, order).content_hash == content_hash(data[k] for k in order)


def test_room_keeps_the_first_ones() -> None:
    data = Counted(5)
    once = OnePass(Subset(data, range(5)), room=3 * 8)
    assert len(list(once.taken())) == 5
    for k in range(5):
        assert float(once[k].labels["energy"]) == k
    assert data.read.tolist() == [1, 1, 1, 2, 2]
    assert len(once._kept) == 3
