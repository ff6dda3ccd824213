"""Which graphs form a batch: as many as fit into a budget of edges and atoms."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Sampler

from mlip.core.errors import ConfigError


@dataclass(frozen=True)
class Reservoir:
    """The last graphs of a data set, of which each epoch sees some: the next ones of an endless shuffle.

    Attributes:
        size: graphs of the reservoir.
        drawn: graphs that an epoch takes from it; all have their turn before one comes again.
    """

    size: int
    drawn: int

    def members(self, seed: int, epoch: int) -> np.ndarray:
        """Return (drawn,) numbers from 0 to size - 1, a function of the seed and the epoch."""
        first, end = epoch * self.drawn, (epoch + 1) * self.drawn
        rounds = range(first // self.size, -(-end // self.size))
        # The third number keeps these apart from the orders of the epochs.
        shuffled = [np.random.default_rng([seed, number, 1]).permutation(self.size) for number in rounds]
        skipped = first - rounds.start * self.size
        return np.concatenate(shuffled)[skipped : skipped + self.drawn]


class EdgeBudgetSampler(Sampler[list[int]]):
    """Batches of graphs with at most ``max_edges`` edges and ``max_atoms`` atoms together.

    Time and memory of a model go with the edges, so batches of a fixed number of graphs waste one or burst
    the other. The batches of an epoch are a pure function of the settings and (seed, epoch): a permutation,
    filled greedily in order. Every rank gets the same number of batches; where their number is no multiple
    of the ranks, the batches with most graphs are halved, so that no graph is dropped or seen twice. Only
    if there are too few graphs for that are batches repeated.

    With ``bucket`` graphs of like size come together: each run of ``bucket`` graphs of the permutation is sorted by
    edges before it is filled into batches, whose order is then drawn anew: what padding or per-structure work costs
    is then alike within a batch, at the price of batches that are less mixed.

    Args:
        num_edges: edges of each graph.
        max_edges: budget of a batch; a graph above it gets a batch of its own. None for no budget.
        max_graphs: most graphs in a batch. None for no limit.
        shuffle: draw a new order every epoch.
        seed: of the order.
        rank, world_size: this process and the number of processes.
        num_atoms: atoms of each graph; needed for ``max_atoms``.
        max_atoms: budget of a batch, like ``max_edges``.
        bucket: graphs that are sorted by size together; 0 sorts nothing. Only where the order is drawn.
        reservoir: the last graphs, if an epoch is to have only some of them; where the order is drawn.

    Raises:
        ConfigError: no limit is set, or a limit is below 1.
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
        num_atoms: Sequence[int] | None = None,
        max_atoms: int | None = None,
        bucket: int = 0,
        reservoir: Reservoir | None = None,
    ) -> None:
        for name, limit in (("batch_edges", max_edges), ("max_graphs", max_graphs), ("batch_atoms", max_atoms)):
            if limit is not None and limit < 1:
                raise ConfigError(f"{name} must be at least 1 or null, got {limit}.")
        if max_edges is None and max_graphs is None and max_atoms is None:
            raise ConfigError("A batch needs a limit: set batch_edges, batch_atoms or max_graphs.")
        if not 0 <= rank < world_size:
            raise ConfigError(f"rank must be 0 to {world_size - 1} for {world_size} processes, got {rank}.")
        if bucket < 0:
            raise ConfigError(f"bucket must be a number of structures or 0, got {bucket}.")
        self.num_edges = np.asarray(num_edges, dtype=np.int64)
        if max_atoms is not None and (num_atoms is None or len(num_atoms) != len(self.num_edges)):
            raise ConfigError("batch_atoms needs the number of atoms of every structure.")
        self.num_atoms = np.asarray(num_atoms, dtype=np.int64) if max_atoms is not None else None
        self.max_edges, self.max_graphs, self.max_atoms = max_edges, max_graphs, max_atoms
        self.shuffle, self.seed, self.bucket = shuffle, int(seed), int(bucket)
        self.reservoir = reservoir
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
            self._known = epoch, self._equal_shares(self._draw(epoch))
        return self._known[1][self.rank :: self.world_size]

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches(self.epoch))

    def __len__(self) -> int:
        return len(self.batches(self.epoch))

    @property
    def fingerprint(self) -> str:
        """Hash of everything that the batches depend on, besides the epoch and the rank."""
        limits = [self.max_edges, self.max_graphs, self.max_atoms, self.bucket]
        if self.reservoir is not None:
            limits += [self.reservoir.size, self.reservoir.drawn]
        digest = hashlib.sha256(json.dumps([*limits, self.shuffle, self.seed, self.world_size]).encode())
        digest.update(self.num_edges.tobytes())
        if self.num_atoms is not None:
            digest.update(self.num_atoms.tobytes())
        return digest.hexdigest()

    def _draw(self, epoch: int) -> list[list[int]]:
        """Return the batches of all ranks."""
        count = len(self.num_edges)
        if not self.shuffle:
            return self._fill(np.arange(count))
        generator = np.random.default_rng([self.seed, epoch])
        if self.reservoir is None:
            order = generator.permutation(count)
        else:
            always = count - self.reservoir.size
            drawn = always + self.reservoir.members(self.seed, epoch)
            order = generator.permutation(np.concatenate([np.arange(always), drawn]))
        if not self.bucket:
            return self._fill(order)
        runs = np.arange(len(order)) // self.bucket
        order = order[np.lexsort((self.num_edges[order], runs))]
        batches = self._fill(order)
        return [batches[k] for k in generator.permutation(len(batches))]

    def _fill(self, order: np.ndarray) -> list[list[int]]:
        batches: list[list[int]] = []
        edges = atoms = 0
        # A graph without edges still has atoms, so it does not come for free.
        edge_costs = np.maximum(self.num_edges[order], 1).tolist()
        atom_costs = self.num_atoms[order].tolist() if self.num_atoms is not None else edge_costs
        for index, edge_cost, atom_cost in zip(order.tolist(), edge_costs, atom_costs):
            edges, atoms = edges + edge_cost, atoms + atom_cost
            if (
                not batches
                or (self.max_edges is not None and edges > self.max_edges)
                or (self.max_atoms is not None and atoms > self.max_atoms)
                or (self.max_graphs is not None and len(batches[-1]) >= self.max_graphs)
            ):
                batches.append([])
                edges, atoms = edge_cost, atom_cost
            batches[-1].append(index)
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
