"""Weighted polynomials as operators of torch: differentiable to any order, made of four compiled functions."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from mlip.core.errors import ShapeError
from mlip.ops.kernels.cpp import SCALARS
from mlip.ops.kernels.library import load_library, pointers, remembered
from mlip.ops.kernels.operators import call, check_operands, differentiate, differentiate_again, keep
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


def _check_shapes(
    form: PolynomialForm, x: Tensor, p: Tensor, starts: Tensor, hx: Tensor | None = None, g: Tensor | None = None
) -> None:
    rows = x.shape[:1]
    inputs = *rows, form.num_inputs, form.num_channels
    operands = [("x", x, inputs), ("p", p, (starts.numel() - 1, len(form.monomials), form.num_channels))]
    if hx is not None:
        operands.append(("hx", hx, inputs))
    if g is not None:
        operands.append(("g", g, (*rows, form.num_outputs, form.num_channels)))
    check_operands(x.dtype, operands)


def _checked_rows(x: Tensor, order: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
    """Return order and starts as the compiled functions read them."""
    if order.dtype != torch.int64 or starts.dtype != torch.int64 or starts.dim() != 1:
        raise ShapeError(f"Kernels need lists of order and starts in int64, got {order.dtype} and {starts.dtype}.")
    rows, bounds = x.shape[0], starts.tolist()
    if order.shape != (rows,) or bounds != sorted(bounds) or bounds[0] != 0 or bounds[-1] != rows:
        raise ShapeError(
            f"Order must name each of {rows} rows and starts ascend from 0 to {rows}, got {tuple(order.shape)} rows "
            f"and starts from {bounds[0]} to {bounds[-1]}."
        )
    if rows:
        low, high = order.aminmax()
        if int(low) < 0 or int(high) >= rows:
            raise ShapeError(f"Order must name rows from 0 to {rows - 1}, got {int(low)} to {int(high)}.")
    return order.contiguous(), starts.contiguous()


def _forward(name: str, x: Tensor, hx: Tensor | None, p: Tensor, order: Tensor, starts: Tensor, key: str) -> Tensor:
    form = _FORMS[key]
    _check_shapes(form, x, p, starts, hx)
    order, starts = _checked_rows(x, order, starts)
    operands = [operand.contiguous() for operand in (x, hx, p) if operand is not None]
    out = x.new_empty(x.shape[0], form.num_outputs, form.num_channels)
    sets = ctypes.c_int64(len(starts) - 1)
    getattr(_functions(key, x.dtype), name)(
        *pointers(*operands, order, starts), sets, *pointers(out), torch.get_num_threads()
    )
    return out


def _backward(
    name: str, x: Tensor, hx: Tensor | None, p: Tensor, g: Tensor, order: Tensor, starts: Tensor, key: str,
    weights: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    _check_shapes(_FORMS[key], x, p, starts, hx, g)
    order, starts = _checked_rows(x, order, starts)
    operands = [operand.contiguous() for operand in (x, hx, p, g) if operand is not None]
    gx, gp = x.new_empty(x.shape), p.new_zeros(p.shape) if weights else None
    sets = ctypes.c_int64(len(starts) - 1)
    getattr(_functions(key, x.dtype), name)(
        *pointers(*operands, order, starts), sets, *pointers(gx, gp), torch.get_num_threads()
    )
    return gx, p.new_empty(0) if gp is None else gp


def _shape(x: Tensor, key: str) -> Tensor:
    return x.new_empty(x.shape[0], _FORMS[key].num_outputs, _FORMS[key].num_channels)


def _shapes(x: Tensor, p: Tensor, weights: bool) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), p.new_empty(p.shape if weights else 0)


_LIBRARY.impl("polynomial", lambda x, *rest: _forward("forward", x, None, *rest), "CPU")
_LIBRARY.impl("polynomial_backward", lambda x, *rest: _backward("backward", x, None, *rest), "CPU")
_LIBRARY.impl("polynomial_tangent", lambda *a: _forward("forward_tangent", *a), "CPU")
_LIBRARY.impl("polynomial_backward_tangent", lambda *a: _backward("backward_tangent", *a), "CPU")
torch.library.register_fake("mlip::polynomial", lambda x, p, o, s, key: _shape(x, key))
torch.library.register_fake("mlip::polynomial_backward", lambda x, p, g, o, s, key, weights: _shapes(x, p, weights))
torch.library.register_fake("mlip::polynomial_tangent", lambda x, hx, p, o, s, key: _shape(x, key))
torch.library.register_fake(
    "mlip::polynomial_backward_tangent", lambda x, hx, p, g, o, s, key, weights: _shapes(x, p, weights)
)


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


def _gradient_of_tangent(ctx: Any, g: Tensor) -> tuple[Any, ...]:
    return *differentiate_again(ctx, lambda *a: (_plain_tangent(*a),), [g]), None, None, None


def _plain_backward_tangent(x: Tensor, hx: Tensor, p: Tensor, g: Tensor, *rows: Any) -> tuple[Tensor, ...]:
    return torch.autograd.grad(_plain_tangent(x, hx, p, *rows), (x, p), g, create_graph=True)


def _gradient_of_backward_tangent(ctx: Any, cx: Tensor | None, cp: Tensor | None) -> tuple[Any, ...]:
    return *differentiate_again(ctx, _plain_backward_tangent, [cx, cp]), None, None, None, None


for _name, _backward_formula, _count in (
    ("polynomial", _gradient, 2),
    ("polynomial_backward", _gradient_of_backward, 3),
    ("polynomial_tangent", _gradient_of_tangent, 3),
    ("polynomial_backward_tangent", _gradient_of_backward_tangent, 4),
):
    differentiate(_LIBRARY, _name, _backward_formula, keep(_count))
