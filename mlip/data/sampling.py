"""Which graphs form a batch: as many as fit into a budget of edges."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from mlip.core.errors import ConfigError


class EdgeBudgetSampler(Sampler[list[int]]):
    """Batches of graphs with at most ``max_edges`` edges together.

    Time and memory of a model go with the edges, so batches of a fixed number of graphs waste one or burst
    the other. The batches of an epoch are a pure function of the settings and (seed, epoch): a permutation,
    filled greedily in order. Every rank gets the same number of batches; where their number is no multiple
    of the ranks, the batches with most graphs are halved, so that no graph is dropped or seen twice. Only
    if there are too few graphs for that are batches repeated.

    Args:
        num_edges: edges of each graph.
        max_edges: budget of a batch; a graph above it gets a batch of its own. None for no budget.
        max_graphs: most graphs in a batch. None for no limit.
        shuffle: draw a new order every epoch.
        seed: of the order.
        rank, world_size: this process and the number of processes.

    Raises:
        ConfigError: neither limit is set, or a limit is below 1.
    """

    def __init__(
        self,
        num_edges: Sequence[int],
        max_edges: int | None,
        max_graphs: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        for name, limit in (("batch_edges", max_edges), ("max_graphs", max_graphs)):
            if limit is not None and limit < 1:
                raise ConfigError(f"{name} must be at least 1 or null, got {limit}.")
        if max_edges is None and max_graphs is None:
            raise ConfigError("A batch needs a limit: set batch_edges, max_graphs, or both.")
        if not 0 <= rank < world_size:
            raise ConfigError(f"rank must be 0 to {world_size - 1} for {world_size} processes, got {rank}.")
        self.num_edges = [int(count) for count in num_edges]
        self.max_edges, self.max_graphs = max_edges, max_graphs
        self.shuffle, self.seed = shuffle, int(seed)
        self.rank, self.world_size = rank, world_size
        self.epoch = 0
        self._known: tuple[int, list[list[int]]] | None = None

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose batches ``len`` and iteration speak of."""
        self.epoch = int(epoch)

    def batches(self, epoch: int) -> list[list[int]]:
        """Return this rank's batches of an epoch."""
        # Without shuffling all epochs are the same one.
        epoch = epoch if self.shuffle else 0
        if self._known is None or self._known[0] != epoch:
            self._known = epoch, self._equal_shares(self._fill(self._order(epoch)))
        return self._known[1][self.rank :: self.world_size]

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches(self.epoch))

    def __len__(self) -> int:
        return len(self.batches(self.epoch))

    @property
    def fingerprint(self) -> str:
        """Hash of everything that the batches depend on, besides the epoch and the rank."""
        settings = [self.num_edges, self.max_edges, self.max_graphs, self.shuffle, self.seed, self.world_size]
        return hashlib.sha256(json.dumps(settings).encode()).hexdigest()

    def _order(self, epoch: int) -> Sequence[int]:
        if not self.shuffle:
            return range(len(self.num_edges))
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.num_edges)).tolist()

    def _fill(self, order: Sequence[int]) -> list[list[int]]:
        batches: list[list[int]] = []
        room = 0
        for index in order:
            # A graph without edges still has atoms, so it does not come for free.
            cost = max(1, self.num_edges[index])
            full = self.max_graphs is not None and batches and len(batches[-1]) >= self.max_graphs
            if not batches or full or (self.max_edges is not None and cost > room):
                batches.append([])
                room = self.max_edges or 0
            batches[-1].append(index)
            room -= cost
        return batches

    def _equal_shares(self, batches: list[list[int]]) -> list[list[int]]:
        originals = list(batches)
        while len(batches) % self.world_size:
            largest = max(range(len(batches)), key=lambda number: len(batches[number]))
            graphs = batches[largest]
            if len(graphs) > 1:
                half = len(graphs) // 2
                batches[largest : largest + 1] = [graphs[:half], graphs[half:]]
            else:
                batches.append(originals[(len(batches) - len(originals)) % len(originals)])
        return batches
