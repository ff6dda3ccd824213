"""The convolution with weights from a table: for inference, where they are functions of the distance."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from mlip.core.errors import ShapeError
from mlip.ops.kernels import convolution as plain
from mlip.ops.kernels.form import ConvolutionForm
from mlip.ops.kernels.library import pointers
from mlip.ops.kernels.operators import call, check_operands, differentiate

_CTYPES = {torch.float32: ctypes.c_float, torch.float64: ctypes.c_double}

_LIBRARY = torch.library.Library("mlip", "FRAGMENT")
_OPERANDS = "Tensor x, Tensor y, Tensor r, Tensor table, float steps"
_LIBRARY.define(f"convolution_table({_OPERANDS}, Tensor senders, Tensor starts, str key) -> Tensor")
_LIBRARY.define(
    f"convolution_table_backward({_OPERANDS}, Tensor g, Tensor senders, Tensor starts, str key) "
    "-> (Tensor, Tensor, Tensor)"
)


def convolution_table(
    x: Tensor, y: Tensor, r: Tensor, table: Tensor, steps: float, senders: Tensor, starts: Tensor, key: str
) -> Tensor:
    """As :func:`mlip.ops.kernels.convolution.convolution` with the weights that a table has at r.

    Derivatives with respect to x, y and r are of first order: forces and stress, but no training.

    Args:
        x, y, senders, starts, key: as there.
        r: ``(edges,)`` from 0 to ``cells / steps``; beyond, the last cubic goes on.
        table, steps: see :class:`mlip.ops.kernels.table.Table`; ``(cells, 4, weight_size)``.
    """
    return call("convolution_table", x, y, r, table, steps, senders, starts, key)


def _forward(
    x: Tensor, y: Tensor, r: Tensor, table: Tensor, steps: float, senders: Tensor, starts: Tensor, key: str
) -> Tensor:
    check_table_shapes(plain.form_of(key), [x, y, r, table], senders, starts)
    x, y, r, table = (tensor.contiguous() for tensor in (x, y, r, table))
    senders, starts = plain.checked_edges(x, y, senders, starts)
    nodes = len(starts) - 1
    out = x.new_empty(nodes, plain.form_of(key).out_size)
    plain.functions(key, x.dtype).forward_table(
        *pointers(x, y, r, table), ctypes.c_int64(len(table)), _CTYPES[x.dtype](steps),
        *pointers(senders, starts), ctypes.c_int64(nodes), *pointers(out), torch.get_num_threads(),
    )  # fmt: skip
    return out


def _backward(
    x: Tensor, y: Tensor, r: Tensor, table: Tensor, steps: float, g: Tensor, senders: Tensor, starts: Tensor, key: str
) -> tuple[Tensor, Tensor, Tensor]:
    check_table_shapes(plain.form_of(key), [x, y, r, table], senders, starts, g)
    x, y, r, table, g = (tensor.contiguous() for tensor in (x, y, r, table, g))
    senders, starts = plain.checked_edges(x, y, senders, starts)
    threads = torch.get_num_threads()
    gx, gy, gr = x.new_zeros(threads, *x.shape), torch.empty_like(y), torch.zeros_like(r)
    plain.functions(key, x.dtype).backward_table(
        *pointers(x, y, r, table), ctypes.c_int64(len(table)), _CTYPES[x.dtype](steps),
        *pointers(g, senders, starts), ctypes.c_int64(len(starts) - 1),
        *pointers(gx), ctypes.c_int64(x.numel()), *pointers(gy, gr), threads,
    )  # fmt: skip
    return gx[0] if threads == 1 else gx.sum(0), gy, gr


def check_table_shapes(
    form: ConvolutionForm, operands: list[Tensor], senders: Tensor, starts: Tensor, g: Tensor | None = None
) -> None:
    """As :func:`mlip.ops.kernels.convolution.check_shapes`, ``operands`` being x, y, r and the table.

    Raises:
        ShapeError: one has another shape or dtype than the form and the others ask for, or the table has no cell.
    """
    x, y, _, table = operands
    edges = y.shape[:1]
    shapes = (*x.shape[:1], form.x_size), (*edges, form.y_size), edges, (*table.shape[:1], 4, form.weight_size)
    check_operands(x.dtype, zip(("x", "y", "r", "a table"), operands, shapes))
    plain.check_indices(form, y, senders, starts, g)
    if not len(table):
        raise ShapeError("The kernel needs a table with one cell at least, got none.")


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, y, r, table, steps, senders, starts, key = inputs
    ctx.save_for_backward(x, y, r, table, senders, starts)
    ctx.steps, ctx.key = steps, key


def _gradient(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
    x, y, r, table, senders, starts = ctx.saved_tensors
    found = call("convolution_table_backward", x, y, r, table, ctx.steps, g, senders, starts, ctx.key)
    return *found, None, None, None, None, None


def _keep_nothing(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    """Nothing is needed for an error."""


def _refuse(ctx: Any, *cotangents: Tensor | None) -> None:
    raise NotImplementedError(
        "Radial weights from tables are differentiable once; second derivatives need kernels=off, or a training."
    )


_LIBRARY.impl("convolution_table", _forward, "CPU")
_LIBRARY.impl("convolution_table_backward", _backward, "CPU")
torch.library.register_fake(
    "mlip::convolution_table", lambda *a: a[0].new_empty(a[6].shape[0] - 1, plain.form_of(a[7]).out_size)
)
torch.library.register_fake(
    "mlip::convolution_table_backward", lambda *a: tuple(tensor.new_empty(tensor.shape) for tensor in a[:3])
)
differentiate(_LIBRARY, "convolution_table", _gradient, _keep)
differentiate(_LIBRARY, "convolution_table_backward", _refuse, _keep_nothing)
