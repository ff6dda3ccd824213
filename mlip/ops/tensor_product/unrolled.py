"""Compiled evaluation of nonzero tables: straight-line code from the table, built by ``torch.compile``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from mlip.ops.tensor_product.nonzeros import Evaluator, Form, Operands, Shared, evaluate_eagerly
from mlip.ops.tensor_product.unrolled_source import needed_slots, unrolled_source

LARGEST_COMPILED = 1500
"""Nonzeros beyond which a table is evaluated eagerly: building takes a minute at 1200 and grows faster than them."""

OPERATIONS_A_KERNEL = 900
"""Larger loop bodies do not fit the instruction cache and run several times slower; they are split."""

log = logging.getLogger(__name__)


def evaluate_compiled(form: Form, wanted: tuple[int, ...], shared: Shared, operands: Operands) -> list[Tensor]:
    """Do what :func:`~mlip.ops.tensor_product.nonzeros.evaluate_eagerly` does, in compiled code.

    A function is built at its first call for each form, wanted slots, channels, dtype and kind of device, and
    shared by all modules of the process; the number of rows does not matter. Evaluated eagerly are fewer than two
    rows (for which torch would build again), tables of more than :data:`LARGEST_COMPILED` nonzeros, and, with one
    warning, everything where nothing can be compiled.
    """
    given = [operand for operand in operands if operand is not None]
    rows = max(operand.shape[0] for operand in given)
    if rows < 2 or len(form) > LARGEST_COMPILED or torch.compiler.is_compiling():
        return evaluate_eagerly(form, wanted, shared, operands)
    channels = tuple(None if operand is None else operand.shape[2] for operand in operands)
    return _compiled(form, wanted, shared, channels, given[0].dtype, given[0].device.type)(operands)


def choose_evaluator(forms: Sequence[Form], compile: bool) -> Evaluator:
    """Return what computes the products of a module, with a warning where compilation will not be tried."""
    large = max((len(form) for form in forms), default=0)
    if compile and large > LARGEST_COMPILED:
        log.warning(
            "a sparse product with %d nonzeros is not compiled (more than %d take minutes to build): it runs eagerly; "
            "clebsch_gordan_dense or gaunt_grid may be faster.",
            large,
            LARGEST_COMPILED,
        )
    return evaluate_compiled if compile else evaluate_eagerly


class _Compiled:
    """One function and what became of building it."""

    def __init__(self, form: Form, wanted: tuple[int, ...], shared: Shared, name: str) -> None:
        self.options = (form, wanted, shared)
        self.slots = needed_slots(form, wanted)
        self.name = name
        self.function: Callable[..., tuple[Tensor, ...]] | None = None
        self.failed = False

    def __call__(self, operands: Operands) -> list[Tensor]:
        if self.failed:
            return evaluate_eagerly(*self.options, operands)
        # Strides, and whether there is a gradient (ours, not torch's), are part of what torch builds for.
        inputs = [operands[slot].detach().contiguous() for slot in self.slots]
        if self.function is None and not self._build(inputs):
            return evaluate_eagerly(*self.options, operands)
        _, wanted, shared = self.options
        results = self.function(*inputs)
        return [r.sum(0, keepdim=True) if 0 in shared[slot] else r for slot, r in zip(wanted, results)]

    def _build(self, inputs: list[Tensor]) -> bool:
        """Compile by calling; return whether that worked."""
        try:
            function = compiled_function(*self.options, self.name)
            for tensor in inputs:
                torch._dynamo.maybe_mark_dynamic(tensor, 0)
            function(*inputs)
        except RuntimeError as error:
            # Dynamo's and Inductor's errors are RuntimeErrors; mistakes of the caller come back from the eager call.
            self.failed = True
            _warn_once(" ".join(str(error).split())[:200])
            return False
        self.function = function
        return True


@lru_cache(maxsize=1024)
def _compiled(form: Form, wanted: tuple[int, ...], shared: Shared, *key: object) -> _Compiled:
    # The name is unique: torch remembers by it which sizes have changed.
    return _Compiled(form, wanted, shared, f"contraction_{abs(hash((form, wanted, shared, key))):x}")


@lru_cache(maxsize=1)
def _warn_once(reason: str) -> None:
    log.warning("torch.compile does not work here, sparse products run eagerly: %s", reason)


def compiled_function(
    form: Form, wanted: tuple[int, ...], shared: Shared, name: str = "contraction"
) -> Callable[..., tuple[Tensor, ...]]:
    """Compile the code of :func:`unrolled_source`; takes the tensors of :func:`needed_slots`."""
    source = unrolled_source(form, wanted, shared, name)
    space = {"torch": torch}
    exec(compile(source, f"<{name}>", "exec"), space)
    kernels = 1 + source.count(" * ") // OPERATIONS_A_KERNEL
    options = {
        # One loop over rows and channels for all outputs, which share their loads and their products.
        "max_fusion_size": 100_000,
        "cpp.max_horizontal_fusion_size": -(-sum(form.sizes[slot] for slot in wanted) // kernels),
    }
    return torch.compile(space[name], fullgraph=True, options=options)
