"""Count what a computation does: floating-point operations, bytes moved, memory held."""

import math
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ALLOCATIONS = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "resize_"}
"""Reserve memory and touch none of it."""

COPIES = {
    *("clone", "copy", "copy_", "_to_copy", "cat", "stack", "index", "index_select", "gather", "repeat"),
    *("constant_pad_nd", "select_backward", "slice_backward", "flip", "roll", "contiguous", "expand_copy"),
    *("zeros", "zeros_like", "new_zeros", "zero_", "ones", "ones_like", "new_ones", "full", "full_like", "new_full"),
    *("fill", "fill_", "scalar_tensor", "arange", "eye", "masked_fill", "where", "embedding", "index_put", "scatter"),
    *("index_copy", "repeat_interleave", "slice_scatter", "select_scatter", "diagonal_scatter", "tril", "triu"),
    *("lift_fresh", "lift_fresh_copy", "unfold_backward", "index_put_", "scatter_", "_index_put_impl_"),
}
"""Move bytes and compute nothing."""

PRODUCTS = {"mm", "bmm", "addmm", "baddbmm", "addbmm", "mv", "addmv", "dot", "vdot", "_addmm_activation", "addmm_"}
"""Multiply matrices: 2 m n k operations."""

OF_INPUT = {
    *("sum", "mean", "prod", "amax", "amin", "max", "min", "cumsum", "linalg_vector_norm", "norm"),
    *("index_add", "index_add_", "scatter_add", "scatter_add_", "scatter_reduce", "segment_reduce"),
}
"""One operation for every element of the largest input."""

PER_ELEMENT = {"addcmul": 2, "addcmul_": 2, "addcdiv": 2, "addcdiv_": 2, "lerp": 3}
"""Element-wise operations that are more than one."""


@dataclass(frozen=True)
class Cost:
    """What one call does.

    Attributes:
        flops: floating-point operations: 2 m n k for a product of matrices, one for each element of the result of
            an element-wise operation, one for each input element of a sum; complex numbers count their real
            operations. Copies and views count none.
        bytes: sizes of all inputs and outputs of every operation that is not a view, as if nothing stayed in a cache.
        peak_bytes: most memory held at once by tensors that the call created.
        opaque: a part of the work (a custom operator, foreign code) cannot be looked into: all three are lower bounds.
        compiled: ``torch.compile`` is at work: the operations are those of the code that was compiled, ``bytes`` and
            ``peak_bytes`` are what it would move and hold without compilation.
    """

    flops: int
    bytes: int
    peak_bytes: int
    opaque: bool = False
    compiled: bool = False

    @property
    def memory_known(self) -> bool:
        """Whether ``bytes`` and ``peak_bytes`` are those of the call."""
        return not (self.opaque or self.compiled)


def count(call: Callable[[], Any]) -> Cost:
    """Run a function under the counter, its backward passes included.

    It is called once before: code that is compiled at its first call cannot be compiled under a counter.

    Args:
        call: returns the tensors it has computed: one that nothing visible has filled marks the cost as opaque.
    """
    call()
    with torch.compiler.set_stance("force_eager"):
        cost = _count(CostCounter, call)
    if not hasattr(TorchDispatchMode, "ignore_compile_internals"):
        # Older versions of torch would refuse the compiled code under a counter, now and ever after.
        return cost
    return replace(cost, compiled=_count(_OutsideCompiledCode, call).bytes != cost.bytes)


def _count(counting: type["CostCounter"], call: Callable[[], Any]) -> Cost:
    with counting() as counter:
        result = call()
        return counter.cost(result)


class CostCounter(TorchDispatchMode):
    """Sees every operation that PyTorch dispatches, those of autograd and of TorchScript included."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = self.bytes = self.live = self.peak = 0
        self.opaque = False
        # Storages by address: what was allocated and not yet written by anything that was seen.
        self._unfilled: set[int] = set()
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation and record it."""
        result = func(*args, **(kwargs or {}))
        self._record(func, list(_tensors(args)), list(_tensors(result)))
        return result

    def cost(self, result: Any) -> Cost:
        """Return what was counted, given the final result."""
        unseen = any(t.untyped_storage()._cdata in self._unfilled for t in _tensors(result))
        return Cost(self.flops, self.bytes, self.peak, self.opaque or unseen)

    def _record(self, func: Any, inputs: list[Tensor], outputs: list[Tensor]) -> None:
        name = func.overloadpacket.__name__
        # Keyword arguments are left out: the only tensor among them is the one of ``out=``, written and not read.
        before = {t.untyped_storage()._cdata for t in inputs}
        writes = func._schema.is_mutable
        if outputs and not writes and all(t.untyped_storage()._cdata in before for t in outputs):
            return
        self._hold(outputs, before)
        if name in ALLOCATIONS:
            self._unfilled.update(t.untyped_storage()._cdata for t in outputs)
            return
        self._unfilled.difference_update(t.untyped_storage()._cdata for t in outputs)
        self.bytes += sum(_size(t) for t in inputs) + sum(_size(t) for t in outputs)
        if func.namespace not in ("aten", "prims", "prim"):
            self.opaque = True
            return
        self.flops += _flops(name, inputs, outputs)

    def _hold(self, outputs: list[Tensor], before: set[int]) -> None:
        """Add new storages to the memory held, until they are freed."""
        for tensor in outputs:
            storage = tensor.untyped_storage()
            if storage._cdata in before or storage in self._known:
                continue
            self._known.add(storage)
            size, address = storage.nbytes(), storage._cdata
            self.live += size
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._release, size, address).atexit = False

    def _release(self, size: int, address: int) -> None:
        self.live -= size
        self._unfilled.discard(address)


class _OutsideCompiledCode(CostCounter):
    """Lets compiled code run as such, and does not see what happens in it."""

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        return True


def _flops(name: str, inputs: list[Tensor], outputs: list[Tensor]) -> int:
    if name in COPIES or not outputs:
        return 0
    result = outputs[0]
    if name in PRODUCTS:
        # The last two tensors are the factors; a first one is added.
        inner = inputs[-2].shape[-1]
        return 2 * inner * result.numel() * (4 if result.is_complex() else 1)
    if name.startswith("_fft"):
        length = max(t.numel() for t in (*inputs, result))
        return round(5 * length * math.log2(max(2, length)))
    complex_factor = 1
    if result.is_complex():
        complex_factor = 6 if name in ("mul", "mul_") else 2
    if name in OF_INPUT:
        return max(t.numel() for t in inputs) * complex_factor
    return sum(t.numel() for t in outputs) * PER_ELEMENT.get(name, 1) * complex_factor


def _tensors(tree: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))


def _size(tensor: Tensor) -> int:
    """Return the bytes that are there: an expanded dimension is stored once."""
    elements = math.prod(n for n, stride in zip(tensor.shape, tensor.stride()) if stride or n == 0)
    return elements * tensor.element_size()
