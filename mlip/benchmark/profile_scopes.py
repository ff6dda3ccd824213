"""Which part of a model is at work: scopes around its modules, for the profiler and for the counter."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch
from torch import nn
from torch.profiler import record_function

from mlip.nn.conditioning.base import Conditioning
from mlip.nn.convolution import Convolution
from mlip.nn.edges import EdgeFeatures
from mlip.nn.enveloped_basis import EnvelopedBasis
from mlip.nn.heads.base import Head
from mlip.nn.layer_norm import EquivariantLayerNorm
from mlip.nn.linear import EquivariantLinear
from mlip.nn.many_body import ManyBody
from mlip.nn.nonlinearity.base import Nonlinearity
from mlip.nn.norm_gate import NormGate
from mlip.nn.pair_terms.base import PairTerm
from mlip.nn.radial_weights.base import RadialWeights
from mlip.nn.self_connection.base import SelfConnection
from mlip.ops.tensor_product.base import TensorProduct

NEIGHBOURS, GRAPH, ELSE, UPDATE = "neighbour list", "graph, checks", "everything else", "weight update"
PARTS: tuple[tuple[str, tuple[type, ...]], ...] = (
    ("edges, harmonics", (EdgeFeatures,)),
    ("radial basis, weights", (EnvelopedBasis, RadialWeights)),
    ("convolution", (Convolution, TensorProduct)),
    ("linears", (EquivariantLinear,)),
    ("gates, mixer, norm", (Nonlinearity, EquivariantLayerNorm, NormGate)),
    ("many-body", (ManyBody,)),
    ("self connection", (SelfConnection,)),
    ("heads, pair terms", (Head, PairTerm)),
    ("conditioning", (Conditioning,)),
)
"""Rows of the table and the modules that belong to each; the order is that of the table."""

ORDER = (NEIGHBOURS, GRAPH, *(name for name, _ in PARTS), UPDATE, ELSE)
OPEN = (EdgeFeatures, Convolution)
"""Modules whose inner modules are parts of their own; what is inside any other belongs to it."""

PREFIX = "mlip.part|"
FORWARD, BACKWARD, SECOND = "forward", "backward", "double backward"
Where = tuple[str, str]
"""A part, and a pass: `FORWARD`, `BACKWARD` or `SECOND`."""


class Scopes:
    """Notes which part runs, and which autograd nodes it made, while it is installed.

    The nodes of autograd are numbered in the order in which they are made. The numbers at the borders of the scopes
    tell to which part a node belongs, and so whose work its backward pass is.

    Attributes:
        part: at work now.
        phase: `BACKWARD`, or `SECOND` in the backward pass of a loss: the pass of what autograd runs now.
    """

    def __init__(self) -> None:
        self.part, self.phase = ELSE, BACKWARD
        self._numbers: list[int] = []
        self._owners: list[str] = []
        self._undo: list[Callable[[], None]] = []

    @property
    def first(self) -> int | None:
        """The lowest number that was noted, None without notes."""
        return self._numbers[0] if self._numbers else None

    def owner(self, number: int) -> str:
        """Return the part to which the node of a number belongs."""
        place = bisect_right(self._numbers, number)
        return self._owners[place - 1] if place else ELSE

    def note(self, number: int, part: str) -> None:
        """Have nodes from a number on belong to a part, until the next note."""
        # Numbers only grow: a lower one was looked up before nodes of the last note were made.
        self._numbers.append(max(number, self._numbers[-1]) if self._numbers else number)
        self._owners.append(part)

    def forget(self) -> None:
        """Begin a new step, whose nodes are all new."""
        self._numbers, self._owners = [], []

    def notes(self) -> Scopes:
        """Return the notes of the step as they are, to look up owners in later."""
        kept = Scopes()
        kept._numbers, kept._owners = list(self._numbers), list(self._owners)
        return kept

    @contextmanager
    def scope(self, part: str, label: str) -> Iterator[None]:
        """Let what runs belong to a part, and show it under a label in the flame graph."""
        record, before = self._enter(part, label)
        try:
            yield
        finally:
            self._leave(record, before)

    @contextmanager
    def loss(self) -> Iterator[None]:
        """Let what autograd runs be the backward pass of a loss."""
        self.phase = SECOND
        try:
            with record_function(f"{PREFIX}{ELSE}|{SECOND}"):
                yield
        finally:
            self.phase = BACKWARD

    def install(self, model: nn.Module) -> None:
        """Put scopes around the parts of a model, and around the model."""
        self._hook(model, ELSE, "model")
        self._install(model, "")

    def wrap(self, owner: Any, method: str, part: str, label: str) -> None:
        """Put a scope around a method of an object."""
        function = getattr(owner, method)

        @wraps(function)
        def scoped(*args: Any, **kwargs: Any) -> Any:
            with self.scope(part, label):
                return function(*args, **kwargs)

        setattr(owner, method, scoped)
        self._undo.append(lambda: delattr(owner, method))

    def remove(self) -> None:
        """Take all scopes away."""
        while self._undo:
            self._undo.pop()()

    def _install(self, module: nn.Module, path: str) -> None:
        for name, child in module.named_children():
            where = f"{path}.{name}" if path else name
            part = part_of(child)
            if part is not None:
                self._hook(child, part, where)
            elif not isinstance(child, (nn.ModuleList, nn.ModuleDict)):
                self._hook(child, None, where)
            if part is None or isinstance(child, OPEN):
                self._install(child, where)

    def _hook(self, module: nn.Module, part: str | None, label: str) -> None:
        open_scopes: list[tuple[record_function, str]] = []

        def enter(*_: Any) -> None:
            open_scopes.append(self._enter(self.part if part is None else part, label))

        def leave(*_: Any) -> None:
            self._leave(*open_scopes.pop())

        self._undo.append(module.register_forward_pre_hook(enter).remove)
        self._undo.append(module.register_forward_hook(leave, always_call=True).remove)

    def _enter(self, part: str, label: str) -> tuple[record_function, str]:
        before, self.part = self.part, part
        self.note(next_number(), part)
        record = record_function(f"{PREFIX}{part}|{label}")
        record.__enter__()
        return record, before

    def _leave(self, record: record_function, before: str) -> None:
        record.__exit__(None, None, None)
        self.part = before
        self.note(next_number(), before)


def part_of(module: nn.Module) -> str | None:
    """Return the part that a module is, None for one that is none."""
    return next((name for name, kinds in PARTS if isinstance(module, kinds)), None)


def next_number() -> int:
    """Return the number that the next autograd node of this thread gets."""
    return torch._C._autograd._get_sequence_nr()
