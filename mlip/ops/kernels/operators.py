"""What operators made of compiled functions share: checks, and autograd formulas that function transforms see, too."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from mlip.core.errors import ShapeError
from mlip.ops.kernels.cpp import SCALARS

_FUNCTIONS: dict[str, type[torch.autograd.Function]] = {}


def differentiate(
    library: torch.library.Library, name: str, formula: Callable[..., Any], setup: Callable[..., None]
) -> None:
    """Give an operator of the namespace ``mlip`` its gradient.

    Args:
        library: in which it is defined.
        name: of the operator.
        formula: takes (ctx, cotangents…), returns a gradient or None for each argument; it calls operators by `call`.
        setup: takes (ctx, inputs, output) and notes what the formula needs.
    """
    operator = getattr(torch.ops.mlip, name)
    torch.library.register_autograd(f"mlip::{name}", formula, setup_context=setup, lib=library)
    torch.library.register_vmap(f"mlip::{name}", lambda *arguments: _one_by_one(operator, *arguments), lib=library)
    parts = {
        "forward": staticmethod(lambda *arguments: operator(*arguments)),
        "setup_context": staticmethod(setup),
        "backward": staticmethod(formula),
        "generate_vmap_rule": True,
    }
    _FUNCTIONS[name] = type(name, (torch.autograd.Function,), parts)


def call(name: str, *arguments: Any) -> Any:
    """Call an operator.

    Under ``torch.func.grad`` and its like, which know no autograd formulas of operators, it is a function of autograd
    with the same formula.

    Raises:
        NotImplementedError: in forward mode, where torch would take the tangent of the result for zero.
    """
    if in_forward_mode():
        raise NotImplementedError(f"mlip::{name} has no forward-mode derivative; kernels=off has.")
    if torch._C._are_functorch_transforms_active():
        return _FUNCTIONS[name].apply(*arguments)
    return getattr(torch.ops.mlip, name)(*arguments)


def check_operands(dtype: torch.dtype, operands: Iterable[tuple[str, Tensor, tuple[int, ...]]]) -> None:
    """Refuse what compiled functions, which know no shapes, would read beyond its end.

    Args:
        dtype: of all operands.
        operands: name, tensor and the shape that it must have.

    Raises:
        ShapeError: another shape or dtype, or a dtype that there are no kernels for.
    """
    if dtype not in SCALARS:
        raise ShapeError(f"There are kernels for float32 and float64, not for {dtype}.")
    for name, tensor, shape in operands:
        if tensor.shape != shape or tensor.dtype != dtype:
            raise ShapeError(
                f"The kernel needs {name} of shape {shape} in {dtype}, got {tuple(tensor.shape)} in {tensor.dtype}."
            )


def keep(count: int) -> Callable[..., None]:
    """Return the ``setup`` of an operator that takes operands, two index tensors and a key, see :func:`differentiate`.

    It saves operands and index tensors, and notes ``ctx.key`` and, if one argument more is given, ``ctx.wanted``.

    Args:
        count: of the operands.
    """

    def setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs[: count + 2])
        ctx.key = inputs[count + 2]
        ctx.wanted = inputs[count + 3] if len(inputs) > count + 3 else None

    return setup


def differentiate_again(
    ctx: Any, function: Callable[..., Sequence[Tensor]], cotangents: Iterable[Tensor | None]
) -> list[Tensor | None]:
    """Return the gradients of an operator's operands through a function of differentiable parts that does the same.

    Derivatives beyond the second, which are seldom wanted, need no formula of their own then.

    Args:
        ctx: as :func:`keep` has left it.
        function: takes what was saved, and the key.
        cotangents: of its results; None or empty: not wanted.
    """
    *operands, first, second = ctx.saved_tensors
    create = torch.is_grad_enabled()
    with torch.enable_grad():
        # Views are places to stop at: one operand may have been made from another.
        operands = [operand.view_as(operand).requires_grad_() for operand in operands]
        results = function(*operands, first, second, ctx.key)
        pairs = [(r, c) for r, c in zip(results, cotangents) if c is not None and c.numel() and r.requires_grad]
        needed = [operand for operand, want in zip(operands, ctx.needs_input_grad) if want]
        if not pairs or not needed:
            return [None] * len(operands)
        made, given = zip(*pairs)
        found = iter(torch.autograd.grad(made, needed, given, create_graph=create, allow_unused=True))
    return [next(found) if want else None for want in ctx.needs_input_grad[: len(operands)]]


def in_forward_mode() -> bool:
    """Whether forward-mode derivatives are on, by ``forward_ad.dual_level`` or ``torch.func.jvp``."""
    return forward_ad._current_level >= 0


def is_transformed() -> bool:
    """Whether forward mode or a transform of ``torch.func`` is on, where tensors need not be what they seem."""
    return in_forward_mode() or torch._C._are_functorch_transforms_active()


def _one_by_one(operator: Callable[..., Any], info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> Any:
    """The rule of ``torch.func.vmap``: one call for each entry, which transforms of a Jacobian are content with."""
    results = [
        operator(*(a.select(dim, k) if isinstance(dim, int) else a for a, dim in zip(arguments, in_dims)))
        for k in range(info.batch_size)
    ]
    if isinstance(results[0], Tensor):
        return torch.stack(results), 0
    return tuple(torch.stack(each) for each in zip(*results)), tuple(0 for _ in results[0])
