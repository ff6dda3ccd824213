"""From samples to batches of graphs, in an order that can be resumed exactly."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset
from torch_geometric.data import Batch

from mlip.core.errors import CheckpointError, MlipError
from mlip.data.graph import AtomGraph
from mlip.data.graph_dataset import GraphDataset
from mlip.data.sampling import EdgeBudgetSampler, Reservoir

__all__ = ["GraphDataset", "ResumableLoader"]


class ResumableLoader:
    """Loads one epoch at a time, and continues in the middle of it after `load_state_dict`.

    Iterating gives the batches of the epoch set by `set_epoch`, from its first batch, except once after
    `load_state_dict`: then it continues after the batches that had been handed out. Batches are counted when
    the consumer gets them, so prefetching workers make no difference. Batches are for models: they cannot be taken
    apart into graphs again; ``members`` are the numbers of their graphs in the data set.

    Args:
        dataset: the graphs.
        batch_edges: budget of edges of a batch, see `EdgeBudgetSampler`.
        max_graphs: most graphs in a batch.
        shuffle: draw a new order every epoch.
        seed: of the order.
        rank, world_size: this process and the number of processes.
        num_workers: processes that build graphs and collate batches; 0 does it in this one.
        pin_memory: copy batches to pinned memory, for faster transfer to a GPU.
        batch_atoms: budget of atoms of a batch.
        bucket: structures that are sorted by size together, see `EdgeBudgetSampler`.
        reservoir: the last graphs, if each epoch is to have only some of them.
    """

    def __init__(
        self,
        dataset: GraphDataset,
        batch_edges: int | None,
        max_graphs: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
        pin_memory: bool = False,
        batch_atoms: int | None = None,
        bucket: int = 0,
        reservoir: Reservoir | None = None,
    ) -> None:
        self.dataset = dataset
        self.sampler = EdgeBudgetSampler(
            dataset.num_edges, batch_edges, max_graphs, shuffle, seed, rank, world_size,
            num_atoms=None if batch_atoms is None else dataset.num_atoms, max_atoms=batch_atoms, bucket=bucket,
            reservoir=reservoir,
        )  # fmt: skip
        self.num_workers, self.pin_memory = num_workers, pin_memory
        self._batches_done = 0
        self._resume_at: tuple[int, int] | None = None

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that ``len`` and the next iteration speak of."""
        if epoch != self.sampler.epoch:
            self.sampler.set_epoch(epoch)
            self._batches_done = 0

    def __len__(self) -> int:
        """Batches of the current epoch on this rank."""
        return len(self.sampler)

    def __iter__(self) -> Iterator[Batch]:
        # A generator: nothing happens before the first batch is asked for, so that an epoch that is set
        # between iter() and next(), as Lightning does, is still heeded.
        epoch = self.sampler.epoch
        start = self._resume_at[1] if self._resume_at is not None and self._resume_at[0] == epoch else 0
        self._resume_at = None
        self._batches_done = start
        todo = self.sampler.batches(epoch)[start:]
        loader = DataLoader(
            _Outcomes(self.dataset),
            batch_sampler=todo,
            num_workers=self.num_workers,
            pin_memory=self.pin_memory,
            collate_fn=_collate,
            # Workers get seeds, which would otherwise be drawn from the global generator: a run that is resumed starts
            # workers more often, and must see the same random numbers.
            generator=torch.Generator(),
        )
        for batch, members in zip(loader, todo):
            if isinstance(batch, MlipError):
                raise batch
            batch.members = tuple(members)
            self._batches_done += 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Return the position: epoch, batches handed out in it, and what they depend on (plain values)."""
        return {
            "epoch": self.sampler.epoch,
            "batches_done": self._batches_done,
            "seed": self.sampler.seed,
            "fingerprint": self._fingerprint(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue after the batches of a `state_dict`.

        Raises:
            CheckpointError: the data, the seed or the batching are not the same, or the state is damaged.
        """
        try:
            epoch, done = int(state["epoch"]), int(state["batches_done"])
            seed, fingerprint = state["seed"], state["fingerprint"]
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"The checkpoint's loader state is damaged: {error!r}.") from error
        if seed != self.sampler.seed or fingerprint != self._fingerprint():
            raise CheckpointError(
                "The checkpoint was written with other training data, cutoff, seed, batch size or number of "
                "processes, so it cannot be continued exactly. Use the settings of that run, or start anew."
            )
        if epoch < 0 or not 0 <= done <= len(self.sampler.batches(epoch)):
            raise CheckpointError(f"The checkpoint's loader state is damaged: batch {done} of epoch {epoch}.")
        self.sampler.set_epoch(epoch)
        self._batches_done = done
        self._resume_at = epoch, done

    def _fingerprint(self) -> str:
        parts = (self.dataset.content_hash, self.dataset.graph_key, self.sampler.fingerprint)
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()


class _Outcomes(Dataset[AtomGraph | MlipError]):
    """Graphs, or the error in the place of one: torch would put a traceback of the worker into its message."""

    def __init__(self, graphs: GraphDataset) -> None:
        self._graphs = graphs

    def __getitem__(self, index: int) -> AtomGraph | MlipError:
        try:
            return self._graphs[index]
        except MlipError as error:
            return error


def _collate(outcomes: list[AtomGraph | MlipError]) -> Batch | MlipError:
    for outcome in outcomes:
        if isinstance(outcome, MlipError):
            return outcome
    batch = Batch.from_data_list(outcomes)
    # What takes a batch apart again is two small tensors a field, each of which would travel in a shared-memory file
    # of its own: a tenth of a worker's time.
    batch._slice_dict, batch._inc_dict = {}, {}
    return batch
