"""One endless stream of batches over reshuffled passes of the data, from which a run can be resumed anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch_geometric.data import Batch

from mlip.data.loading import ResumableLoader


class BatchStream:
    """Passes over the data, one after the other; Lightning sees a single epoch of ``total_steps`` batches.

    Batches are filled to a budget of edges, so passes differ in their number of batches. Counting steps,
    not passes, keeps schedules, validation and resume exact.

    Args:
        loader: yields one pass at a time.
        total_steps: length of the training in batches.
    """

    def __init__(self, loader: ResumableLoader, total_steps: int) -> None:
        self._loader, self.total_steps = loader, total_steps
        self.epoch = 0

    def __len__(self) -> int:
        return self.total_steps

    def __iter__(self) -> Iterator[Batch]:
        while True:
            yield from self._loader
            self.epoch += 1
            self._loader.set_epoch(self.epoch)

    def state_dict(self) -> dict[str, Any]:
        """Return the pass and the number of its batches that were handed out."""
        return self._loader.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue after the batches of :meth:`state_dict`."""
        self._loader.load_state_dict(state)
        self.epoch = int(state["epoch"])


class BatchPass:
    """One pass in a fixed order, for validation.

    Args:
        loader: unshuffled. It is hidden from Lightning, which would look for a sampler to replace in it.
    """

    def __init__(self, loader: ResumableLoader) -> None:
        self._loader = loader

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._loader)
