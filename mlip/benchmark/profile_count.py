"""Operations and bytes of a step, part by part."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mlip.benchmark.counting import CostCounter
from mlip.benchmark.profile_forms import kernel_flops
from mlip.benchmark.profile_scopes import FORWARD, Scopes, Where, next_number
from mlip.benchmark.roofline import Roofline


@dataclass
class Work:
    """What a part of a step does.

    Attributes:
        flops: floating-point operations, see :class:`PartCounter`.
        moved: bytes of all inputs and outputs of its operators.
        seconds: least time for them on the machine, operator by operator.
        operators: how many were called.
        kernels: how many of these were generated kernels.
    """

    flops: int = 0
    moved: int = 0
    seconds: float = 0.0
    operators: int = 0
    kernels: int = 0


class PartCounter(CostCounter):
    """Counts as :class:`~mlip.benchmark.counting.CostCounter`, for each part and pass by itself.

    Operators of mlip are counted from the form of their kernels (:mod:`mlip.benchmark.profile_forms`), products of
    matrices from their shapes, the rest by the elements; what runs outside of torch (neighbour lists) is not.

    Args:
        scopes: installed on the model.
        roofline: of the machine.

    Attributes:
        work: by part and pass.
        unknown: operators of which only the bytes are known.
    """

    def __init__(self, scopes: Scopes, roofline: Roofline) -> None:
        super().__init__()
        self.work: dict[Where, Work] = defaultdict(Work)
        self.unknown: set[str] = set()
        self._scopes, self._roofline = scopes, roofline
        self._node: Any = None
        self._number = next_number()

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation and record it for the part that it belongs to."""
        where = self._where()
        flops, moved = self.flops, self.bytes
        result = super().__torch_dispatch__(func, types, args, kwargs)
        known = None
        if func.namespace not in ("aten", "prims", "prim", "profiler"):
            known = kernel_flops(func.overloadpacket.__name__, args)
            if known is None:
                self.unknown.add(f"{func.namespace}::{func.overloadpacket.__name__}")
            self.flops += known or 0
        flops, moved = self.flops - flops, self.bytes - moved
        if moved:
            work = self.work[where]
            work.flops, work.moved = work.flops + flops, work.moved + moved
            work.seconds += self._roofline.seconds(flops, moved)
            work.operators += 1
            work.kernels += known is not None
        return result

    def _where(self) -> Where:
        node = torch._C._current_autograd_node()
        before, self._number = self._number, next_number()
        if node is None:
            self._node = None
            return self._scopes.part, FORWARD
        part = self._scopes.owner(node._sequence_nr())
        if node is not self._node:
            # Nodes that were made since the last operator are of the part whose backward pass this is.
            self._scopes.note(before, part)
            self._node = node
        return part, self._scopes.phase


def count_step(step: Callable[[], object], scopes: Scopes, roofline: Roofline) -> PartCounter:
    """Run a step under the counter."""
    with PartCounter(scopes, roofline) as counter:
        step()
    return counter
