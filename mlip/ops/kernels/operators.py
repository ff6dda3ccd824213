"""Operators with autograd formulas that torch's function transforms see, too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

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
