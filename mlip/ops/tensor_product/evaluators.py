"""What computes a sparse product: generated C++ where it pays, else what the product was built with."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from mlip.ops.kernels.choice import Kernels, built
from mlip.ops.kernels.contraction import evaluate_native, prepare
from mlip.ops.kernels.contraction_source import contraction_source
from mlip.ops.kernels.cpp import SCALARS
from mlip.ops.kernels.operators import is_transformed
from mlip.ops.tensor_product.nonzeros import Evaluator, Form, Operands, Shared

ENOUGH = 1_000_000
"""Rows times channels times nonzeros from which ``kernels=auto`` builds a function: building takes seconds, and a call
saves a nanosecond for each of them."""

ENOUGH_IN_TRAINING = 200_000
"""The same in a training, which takes thousands of steps."""

LARGEST_FORM = 4000
"""Nonzeros beyond which ``auto`` builds none: the gradients of 3000 take the compiler eight seconds."""


def evaluator_of(kernels: Kernels, plain: Evaluator, training: bool) -> Evaluator:
    """Return what is to compute the contractions of a product and all their derivatives.

    Args:
        kernels: see :data:`~mlip.ops.kernels.choice.Kernels`.
        plain: what computes them without generated C++; also wherever torch compiles what is around them.
        training: whether there will be thousands of calls.
    """
    if kernels == "off" or torch.compiler.is_compiling():
        return plain
    return partial(_evaluate, kernels, plain, training)


def _evaluate(
    kernels: Kernels,
    plain: Evaluator,
    training: bool,
    form: Form,
    wanted: tuple[int, ...],
    shared: Shared,
    operands: Operands,
) -> list[Tensor]:
    native = runs_native(kernels, training, form, wanted, shared, operands)
    return (evaluate_native if native else plain)(form, wanted, shared, operands)


def may_run_native(kernels: Kernels, num_nonzeros: int, tensors: Sequence[Tensor]) -> bool:
    """Return whether generated C++ comes into question for so many coefficients, whatever the rows."""
    # Fake tensors and the like have no numbers to hand over.
    if (
        kernels == "off"
        or torch.compiler.is_compiling()
        or is_transformed()
        or not {type(t) for t in tensors} <= {Tensor, nn.Parameter}
    ):
        return False
    return kernels == "on" or num_nonzeros <= LARGEST_FORM


def runs_native(
    kernels: Kernels, training: bool, form: Form, wanted: tuple[int, ...], shared: Shared, operands: Operands
) -> bool:
    """Return whether generated C++ computes the derivatives of a form with respect to slots; build it if so.

    Args:
        kernels, training: as for :func:`evaluator_of`.
        form, wanted, shared, operands: as for :func:`~mlip.ops.tensor_product.nonzeros.evaluate_eagerly`.

    Raises:
        ConfigError: ``kernels`` is ``on`` and there can be none; says why.
    """
    given = [operand for operand in operands if operand is not None]
    if not may_run_native(kernels, len(form), given):
        return False
    work = max(t.shape[0] for t in given) * max(t.shape[2] for t in given) * len(form)
    enough = ENOUGH_IN_TRAINING if training else ENOUGH
    if kernels == "auto" and work < enough:
        return False
    reason = None
    if device := next((t.device.type for t in given if t.device.type != "cpu"), None):
        reason = f"there are kernels of sparse products for the CPU only, not for {device}"
    elif given[0].dtype not in SCALARS or any(t.dtype != given[0].dtype for t in given):
        reason = (
            f"there are kernels for float32 and float64, not for {', '.join(sorted({str(t.dtype) for t in given}))}"
        )
    return built(kernels, lambda: prepare(form, wanted, shared, operands), reason) is not None


def sources_of(
    kernels: Kernels, form: Form, channels: int, dtype: torch.dtype, single_weight: bool = False
) -> list[str]:
    """Return the C++ of a contraction and its gradients, with weights for every row and with weights that all share.

    What second derivatives need on top is built when they are first asked for.

    Args:
        kernels: see :data:`~mlip.ops.kernels.choice.Kernels`.
        form: the coefficients.
        channels: of both inputs.
        dtype: float32 or float64.
        single_weight: all channels share their weights.
    """
    if not may_run_native(kernels, len(form), ()):
        return []
    single = (2,) if single_weight and channels != 1 else ()
    weighted = len(form.sizes) == 4
    shares = [((), (), (), single), ((), (), (), (0, *single))] if weighted else [((), (), ())]
    wanted = [(2,), (0, 1), (0, 1, 3)] if weighted else [(2,), (0, 1)]
    return [contraction_source(form, slots, shared, channels, SCALARS[dtype]) for shared in shares for slots in wanted]
