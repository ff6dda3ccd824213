"""The convolution as operators of torch: differentiable to any order, made of four compiled functions."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from mlip.core.errors import ShapeError
from mlip.ops.kernels.convolution_source import convolution_source
from mlip.ops.kernels.cpp import SCALARS
from mlip.ops.kernels.form import ConvolutionForm
from mlip.ops.kernels.library import load_library, pointers, remembered
from mlip.ops.kernels.operators import call, check_operands, differentiate, differentiate_again, keep

_FORMS: dict[str, ConvolutionForm] = {}

# x, y, w are the operands, h… tangents of them, g the cotangent of the result; an unwanted gradient is empty.
_LIBRARY = torch.library.Library("mlip", "FRAGMENT")
_OPERANDS = "Tensor x, Tensor y, Tensor w"
_TANGENTS = "Tensor hx, Tensor hy, Tensor hw"
_EDGES = "Tensor senders, Tensor starts, str key"
_NAMES = ("x", "y", "w", "hx", "hy", "hw")
_LIBRARY.define(f"convolution({_OPERANDS}, {_EDGES}) -> Tensor")
_LIBRARY.define(f"convolution_backward({_OPERANDS}, Tensor g, {_EDGES}, bool[] wanted) -> (Tensor, Tensor, Tensor)")
_LIBRARY.define(f"convolution_tangent({_OPERANDS}, {_TANGENTS}, {_EDGES}) -> Tensor")
_LIBRARY.define(
    f"convolution_backward_tangent({_OPERANDS}, {_TANGENTS}, Tensor g, {_EDGES}, bool[] wanted) "
    "-> (Tensor, Tensor, Tensor)"
)


def prepare(form: ConvolutionForm, dtype: torch.dtype) -> str:
    """Build or load what computes a form, and return the key that :func:`convolution` is called with.

    Raises:
        mlip.ops.kernels.compiler.NoCompiler: it cannot be built here.
    """
    register(form)
    functions(form.key, dtype)
    return form.key


def register(form: ConvolutionForm) -> None:
    """Make a form known by its key."""
    _FORMS[form.key] = form


def convolution(x: Tensor, y: Tensor, weight: Tensor, senders: Tensor, starts: Tensor, key: str) -> Tensor:
    """Return ``out[i] = Σ_e Σ c x[sender] y[e] w[e]`` over the edges e of receiver i.

    Args:
        x: ``(nodes, x_size)``.
        y: ``(edges, y_size)``; edges are sorted by receiver.
        weight: ``(edges, weight_size)``.
        senders: ``(edges,)`` int64.
        starts: ``(nodes + 1,)`` int64, the first edge of each receiver, and the number of edges.
        key: of a form, from :func:`prepare`.

    Returns:
        ``(nodes, out_size)``.
    """
    return call("convolution", x, y, weight, senders, starts, key)


def form_of(key: str) -> ConvolutionForm:
    """Return the form of a key."""
    return _FORMS[key]


@remembered
def functions(key: str, dtype: torch.dtype) -> ctypes.CDLL:
    """Return the compiled functions of a form for a type of numbers."""
    return load_library(convolution_source(_FORMS[key], SCALARS[dtype]))


def check_shapes(
    form: ConvolutionForm, operands: list[Tensor], senders: Tensor, starts: Tensor, g: Tensor | None = None
) -> None:
    """Compare operands with a form, without a look at the numbers in them.

    Args:
        form: what is computed.
        operands: x, y and w, or these and their tangents.
        senders, starts: see :func:`convolution`.
        g: cotangent of the result.

    Raises:
        ShapeError: one has another shape or dtype than the form and the others ask for.
    """
    x, y = operands[:2]
    edges = y.shape[:1]
    shapes = (*x.shape[:1], form.x_size), (*edges, form.y_size), (*edges, form.weight_size)
    check_operands(x.dtype, zip(_NAMES, operands, shapes * (len(operands) // 3)))
    check_indices(form, y, senders, starts, g)


def check_indices(form: ConvolutionForm, y: Tensor, senders: Tensor, starts: Tensor, g: Tensor | None) -> None:
    """Compare senders, starts and the cotangent of the result with the edges, as :func:`check_shapes` does.

    Raises:
        ShapeError: one has another shape or dtype than they ask for.
    """
    if senders.dtype != torch.int64 or starts.dtype != torch.int64:
        raise ShapeError(f"Kernels need senders and starts in int64, got {senders.dtype} and {starts.dtype}.")
    if senders.shape != y.shape[:1] or starts.dim() != 1 or not len(starts):
        raise ShapeError(
            f"Kernels need a sender for each of {len(y)} edges, and starts in a list with one entry at least, got "
            f"{tuple(senders.shape)} and {tuple(starts.shape)}."
        )
    if g is not None:
        check_operands(y.dtype, [("g", g, (len(starts) - 1, form.out_size))])


def checked_edges(x: Tensor, y: Tensor, senders: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
    """Return senders and starts as the compiled functions read them.

    Raises:
        ShapeError: they lead outside of the nodes or the edges.
    """
    senders, starts = senders.contiguous(), starts.contiguous()
    if int(starts[0]) != 0 or int(starts[-1]) != len(y):
        raise ShapeError(
            f"Starts must go from 0 to the number of edges, {len(y)}, got {int(starts[0])} to {int(starts[-1])}."
        )
    if len(senders):
        low, high = senders.aminmax()
        if int(low) < 0 or int(high) >= len(x):
            raise ShapeError(f"Senders must be nodes from 0 to {len(x) - 1}, got {int(low)} to {int(high)}.")
        if bool((starts[1:] < starts[:-1]).any()):
            raise ShapeError("Starts must ascend: sort the edges by receiver.")
    return senders, starts


def _forward(name: str, operands: list[Tensor], senders: Tensor, starts: Tensor, key: str) -> Tensor:
    check_shapes(form_of(key), operands, senders, starts)
    operands = [operand.contiguous() for operand in operands]
    senders, starts = checked_edges(operands[0], operands[1], senders, starts)
    nodes = len(starts) - 1
    out = operands[0].new_empty(nodes, form_of(key).out_size)
    getattr(functions(key, out.dtype), name)(
        *pointers(*operands, senders, starts), ctypes.c_int64(nodes), *pointers(out), torch.get_num_threads()
    )
    return out


def _backward(
    name: str, operands: list[Tensor], g: Tensor, senders: Tensor, starts: Tensor, key: str, wanted: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    check_shapes(form_of(key), operands, senders, starts, g)
    operands, g = [operand.contiguous() for operand in operands], g.contiguous()
    x, y, w = operands[:3]
    senders, starts = checked_edges(x, y, senders, starts)
    threads = torch.get_num_threads()
    # Every thread adds up the gradients of the senders on its own: no two write to one place.
    gx = x.new_zeros(threads, *x.shape) if wanted[0] else None
    gy, gw = (torch.empty_like(t) if want else None for t, want in zip((y, w), wanted[1:]))
    getattr(functions(key, x.dtype), name)(
        *pointers(*operands, g, senders, starts), ctypes.c_int64(len(starts) - 1),
        *pointers(gx), ctypes.c_int64(x.numel()), *pointers(gy, gw), threads,
    )  # fmt: skip
    if gx is not None:
        gx = gx[0] if threads == 1 else gx.sum(0)
    return tuple(t.new_empty(0) if gradient is None else gradient for t, gradient in zip((x, y, w), (gx, gy, gw)))


def _shape(operands: list[Tensor], starts: Tensor, key: str) -> Tensor:
    return operands[0].new_empty(starts.shape[0] - 1, form_of(key).out_size)


def _shapes(operands: list[Tensor], wanted: list[bool]) -> tuple[Tensor, ...]:
    # Not empty_like, which would keep the strides of a transposed tensor.
    return tuple(t.new_empty(t.shape if want else 0) for t, want in zip(operands, wanted))


_LIBRARY.impl("convolution", lambda x, y, w, *edges: _forward("forward", [x, y, w], *edges), "CPU")
_LIBRARY.impl("convolution_backward", lambda x, y, w, g, *rest: _backward("backward", [x, y, w], g, *rest), "CPU")
_LIBRARY.impl("convolution_tangent", lambda *a: _forward("forward_tangent", list(a[:6]), *a[6:]), "CPU")
_LIBRARY.impl("convolution_backward_tangent", lambda *a: _backward("backward_tangent", list(a[:6]), *a[6:]), "CPU")
torch.library.register_fake("mlip::convolution", lambda x, y, w, s, starts, key: _shape([x], starts, key))
torch.library.register_fake(
    "mlip::convolution_backward", lambda x, y, w, g, s, t, k, wanted: _shapes([x, y, w], wanted)
)
torch.library.register_fake("mlip::convolution_tangent", lambda *a: _shape([a[0]], a[7], a[8]))
torch.library.register_fake("mlip::convolution_backward_tangent", lambda *a: _shapes(list(a[:3]), a[10]))


def _pick(gradients: tuple[Tensor, ...], wanted: list[bool]) -> list[Tensor | None]:
    return [gradient if want else None for gradient, want in zip(gradients, wanted)]


def _gradient(ctx: Any, g: Tensor) -> tuple[Any, ...]:
    x, y, w, senders, starts = ctx.saved_tensors
    wanted = list(ctx.needs_input_grad[:3])
    found = call("convolution_backward", x, y, w, g, senders, starts, ctx.key, wanted)
    return *_pick(found, wanted), None, None, None


def _gradient_of_backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Any, ...]:
    x, y, w, g, senders, starts = ctx.saved_tensors
    # The form is linear in each operand, so that its second derivatives along h are tangents of the gradients.
    tangents = [
        torch.zeros_like(t) if h is None or not want else h for t, h, want in zip((x, y, w), cotangents, ctx.wanted)
    ]
    wanted = list(ctx.needs_input_grad[:3])
    edges = senders, starts, ctx.key
    found: list[Tensor | None] = [None] * 3
    if any(wanted):
        found = _pick(call("convolution_backward_tangent", x, y, w, *tangents, g, *edges, wanted), wanted)
    for_g = call("convolution_tangent", x, y, w, *tangents, *edges) if ctx.needs_input_grad[3] else None
    return *found, for_g, None, None, None, None


def _plain_tangent(x: Tensor, y: Tensor, w: Tensor, hx: Tensor, hy: Tensor, hw: Tensor, *edges: Any) -> Tensor:
    return sum(call("convolution", *operands, *edges) for operands in ((hx, y, w), (x, hy, w), (x, y, hw)))


def _gradient_of_tangent(ctx: Any, g: Tensor) -> tuple[Any, ...]:
    return *differentiate_again(ctx, lambda *a: (_plain_tangent(*a),), [g]), None, None, None


def _plain_backward_tangent(
    x: Tensor, y: Tensor, w: Tensor, hx: Tensor, hy: Tensor, hw: Tensor, g: Tensor, *edges: Any
) -> tuple[Tensor, ...]:
    sums: list[Tensor | None] = [None] * 3
    for place, operands in enumerate(((hx, y, w), (x, hy, w), (x, y, hw))):
        wanted = [k != place for k in range(3)]
        for k, part in enumerate(call("convolution_backward", *operands, g, *edges, wanted)):
            if wanted[k]:
                sums[k] = part if sums[k] is None else sums[k] + part
    return tuple(sums)


def _gradient_of_backward_tangent(ctx: Any, *cotangents: Tensor | None) -> tuple[Any, ...]:
    kept = [c if want else None for c, want in zip(cotangents, ctx.wanted)]
    return *differentiate_again(ctx, _plain_backward_tangent, kept), None, None, None, None


for _name, _formula, _count in (
    ("convolution", _gradient, 3),
    ("convolution_backward", _gradient_of_backward, 4),
    ("convolution_tangent", _gradient_of_tangent, 6),
    ("convolution_backward_tangent", _gradient_of_backward_tangent, 7),
):
    differentiate(_LIBRARY, _name, _formula, keep(_count))
