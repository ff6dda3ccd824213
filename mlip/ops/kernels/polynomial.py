"""Weighted polynomials as operators of torch: differentiable to any order, made of four compiled functions."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from mlip.core.errors import ShapeError
from mlip.ops.kernels.cpp import SCALARS
from mlip.ops.kernels.library import load_library, remembered
from mlip.ops.kernels.operators import call, differentiate
from mlip.ops.kernels.polynomial_form import PolynomialForm
from mlip.ops.kernels.polynomial_source import polynomial_source

_FORMS: dict[str, PolynomialForm] = {}

# hx is a direction of x, g the cotangent of the result; an unwanted gradient is empty.
_LIBRARY = torch.library.Library("mlip", "FRAGMENT")
_ROWS = "Tensor order, Tensor starts, str key"
_LIBRARY.define(f"polynomial(Tensor x, Tensor p, {_ROWS}) -> Tensor")
_LIBRARY.define(f"polynomial_backward(Tensor x, Tensor p, Tensor g, {_ROWS}, bool weights) -> (Tensor, Tensor)")
_LIBRARY.define(f"polynomial_tangent(Tensor x, Tensor hx, Tensor p, {_ROWS}) -> Tensor")
_LIBRARY.define(
    f"polynomial_backward_tangent(Tensor x, Tensor hx, Tensor p, Tensor g, {_ROWS}, bool weights) -> (Tensor, Tensor)"
)


def prepare(form: PolynomialForm, dtype: torch.dtype) -> str:
    """Build or load what computes a form, and return the key that :func:`polynomial` is called with.

    Raises:
        mlip.ops.kernels.compiler.NoCompiler: it cannot be built here.
    """
    _FORMS[form.key] = form
    _functions(form.key, dtype)
    return form.key


def polynomial(x: Tensor, weights: Tensor, order: Tensor, starts: Tensor, key: str) -> Tensor:
    """Return ``out[r, c] = Σ_q p[s, q] Π_k x[r, i_qk]``, channel by channel, s being the set of row r.

    Args:
        x: ``(rows, num_inputs, channels)``.
        weights: p, ``(sets, monomials, channels)``.
        order: ``(rows,)`` int64, the rows sorted by their sets.
        starts: ``(sets + 1,)`` int64, where the rows of each set begin in ``order``, and the number of rows.
        key: of a form, from :func:`prepare`.

    Returns:
        ``(rows, num_outputs, channels)``.
    """
    return call("polynomial", x, weights, order, starts, key)


def form_of(key: str) -> PolynomialForm:
    """Return the form of a key."""
    return _FORMS[key]


@remembered
def _functions(key: str, dtype: torch.dtype) -> ctypes.CDLL:
    return load_library(polynomial_source(_FORMS[key], SCALARS[dtype]))


def _checked(x: Tensor, p: Tensor, order: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
    if order.dtype != torch.int64 or starts.dtype != torch.int64 or p.dtype != x.dtype:
        raise ShapeError(f"Kernels need order and starts in int64, weights in {x.dtype}; got {order.dtype}, {p.dtype}.")
    if len(order) != len(x) or len(starts) != len(p) + 1 or int(starts[-1]) != len(order):
        raise ShapeError(f"There are {len(x)} rows and {len(p)} sets of weights; order and starts say otherwise.")
    return order.contiguous(), starts.contiguous()


def _pointers(*tensors: Tensor | None) -> list[ctypes.c_void_p]:
    return [ctypes.c_void_p(None if tensor is None else tensor.data_ptr()) for tensor in tensors]


def _forward(name: str, operands: list[Tensor], order: Tensor, starts: Tensor, key: str) -> Tensor:
    operands = [operand.contiguous() for operand in operands]
    x, form = operands[0], _FORMS[key]
    order, starts = _checked(x, operands[-1], order, starts)
    out = x.new_empty(x.shape[0], form.num_outputs, form.num_channels)
    sets = ctypes.c_int64(len(starts) - 1)
    getattr(_functions(key, x.dtype), name)(
        *_pointers(*operands, order, starts), sets, *_pointers(out), torch.get_num_threads()
    )
    return out


def _backward(
    name: str, operands: list[Tensor], order: Tensor, starts: Tensor, key: str, weights: bool
) -> tuple[Tensor, Tensor]:
    operands = [operand.contiguous() for operand in operands]
    x, p = operands[0], operands[-2]
    order, starts = _checked(x, p, order, starts)
    gx, gp = torch.empty_like(x), torch.zeros_like(p) if weights else None
    sets = ctypes.c_int64(len(starts) - 1)
    getattr(_functions(key, x.dtype), name)(
        *_pointers(*operands, order, starts), sets, *_pointers(gx, gp), torch.get_num_threads()
    )
    return gx, p.new_empty(0) if gp is None else gp


def _shape(x: Tensor, key: str) -> Tensor:
    return x.new_empty(x.shape[0], _FORMS[key].num_outputs, _FORMS[key].num_channels)


def _shapes(x: Tensor, p: Tensor, weights: bool) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), p.new_empty(p.shape if weights else 0)


_LIBRARY.impl("polynomial", lambda x, p, *rows: _forward("forward", [x, p], *rows), "CPU")
_LIBRARY.impl("polynomial_backward", lambda x, p, g, *rest: _backward("backward", [x, p, g], *rest), "CPU")
_LIBRARY.impl("polynomial_tangent", lambda x, hx, p, *rows: _forward("forward_tangent", [x, hx, p], *rows), "CPU")
_LIBRARY.impl(
    "polynomial_backward_tangent", lambda x, hx, p, g, *rest: _backward("backward_tangent", [x, hx, p, g], *rest), "CPU"
)
torch.library.register_fake("mlip::polynomial", lambda x, p, o, s, key: _shape(x, key))
torch.library.register_fake("mlip::polynomial_backward", lambda x, p, g, o, s, key, weights: _shapes(x, p, weights))
torch.library.register_fake("mlip::polynomial_tangent", lambda x, hx, p, o, s, key: _shape(x, key))
torch.library.register_fake(
    "mlip::polynomial_backward_tangent", lambda x, hx, p, g, o, s, key, weights: _shapes(x, p, weights)
)


def _keep(count: int) -> Any:
    """Return what notes the operands of a call: ``count`` tensors, then order, starts, the key, what was wanted."""

    def setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs[: count + 2])
        ctx.key = inputs[count + 2]

    return setup


def _gradient(ctx: Any, g: Tensor) -> tuple[Any, ...]:
    x, p, *rows = ctx.saved_tensors
    gx, gp = call("polynomial_backward", x, p, g, *rows, ctx.key, ctx.needs_input_grad[1])
    return gx, gp if ctx.needs_input_grad[1] else None, None, None, None


def _gradient_of_backward(ctx: Any, hx: Tensor | None, hp: Tensor | None) -> tuple[Any, ...]:
    x, p, g, *rows = ctx.saved_tensors
    of_x, of_p, of_g = ctx.needs_input_grad[:3]
    gx = gp = gg = None
    if hx is not None and (of_x or of_p):
        gx, gp = call("polynomial_backward_tangent", x, hx, p, g, *rows, ctx.key, of_p)
    if hx is not None and of_g:
        gg = call("polynomial_tangent", x, hx, p, *rows, ctx.key)
    # The gradient of the weights does not depend on them: F(x, hp, g).
    if hp is not None and hp.numel():
        if of_x:
            more, _ = call("polynomial_backward", x, hp, g, *rows, ctx.key, False)
            gx = more if gx is None else gx + more
        if of_g:
            more = call("polynomial", x, hp, *rows, ctx.key)
            gg = more if gg is None else gg + more
    return gx, gp if of_p else None, gg, None, None, None, None


def _plain(x: Tensor, p: Tensor, order: Tensor, starts: Tensor, key: str) -> Tensor:
    """The polynomials in plain torch: for derivatives beyond the second, seldom wanted."""
    form = _FORMS[key]
    degree = max(len(variables) for _, variables in form.monomials)
    places = torch.tensor(
        [[*variables, *[form.num_inputs] * (degree - len(variables))] for _, variables in form.monomials],
        device=x.device,
    )
    extended = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
    terms = torch.repeat_interleave(p, starts.diff(), dim=0)[torch.argsort(order)]
    for k in range(degree):
        terms = terms * extended[:, places[:, k]]
    outputs = torch.tensor([output for output, _ in form.monomials], device=x.device)
    return x.new_zeros(x.shape[0], form.num_outputs, x.shape[2]).index_add(1, outputs, terms)


def _plain_tangent(x: Tensor, hx: Tensor, p: Tensor, order: Tensor, starts: Tensor, key: str) -> Tensor:
    return torch.func.jvp(lambda t: _plain(t, p, order, starts, key), (x,), (hx,))[1]


def _again(ctx: Any, function: Any, cotangents: list[Tensor]) -> list[Tensor | None]:
    """Differentiate a function in plain torch once more, if need be differentiably."""
    *operands, order, starts = ctx.saved_tensors
    create = torch.is_grad_enabled()
    with torch.enable_grad():
        # Views are places to stop at: one operand may have been made from another.
        operands = [operand.view_as(operand).requires_grad_() for operand in operands]
        results = function(*operands, order, starts, ctx.key)
        total = sum((result * c).sum() for result, c in zip(results, cotangents) if c is not None and c.numel())
        needed = [operand for operand, want in zip(operands, ctx.needs_input_grad) if want]
        found = iter(torch.autograd.grad(total, needed, create_graph=create, allow_unused=True))
    return [next(found) if want else None for want in ctx.needs_input_grad[: len(operands)]]


def _gradient_of_tangent(ctx: Any, g: Tensor) -> tuple[Any, ...]:
    return *_again(ctx, lambda *a: (_plain_tangent(*a),), [g]), None, None, None


def _plain_backward_tangent(x: Tensor, hx: Tensor, p: Tensor, g: Tensor, *rows: Any) -> tuple[Tensor, ...]:
    return torch.autograd.grad(_plain_tangent(x, hx, p, *rows), (x, p), g, create_graph=True)


def _gradient_of_backward_tangent(ctx: Any, cx: Tensor | None, cp: Tensor | None) -> tuple[Any, ...]:
    return *_again(ctx, _plain_backward_tangent, [cx, cp]), None, None, None, None


for _name, _backward_formula, _count in (
    ("polynomial", _gradient, 2),
    ("polynomial_backward", _gradient_of_backward, 3),
    ("polynomial_tangent", _gradient_of_tangent, 3),
    ("polynomial_backward_tangent", _gradient_of_backward_tangent, 4),
):
    differentiate(_LIBRARY, _name, _backward_formula, _keep(_count))
