"""The operators of the convolution on GPUs: generated Triton, written to the cache and compiled by Triton when called.

A gradient of x adds up over the edges of a sender. A second pass over the edges sorted by sender does it without
atomic additions, so that equal inputs give equal bits; it reads the cotangents of all edges once more.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import subprocess
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from mlip.core.errors import MlipError
from mlip.core.files import cache_folder, write_text_atomically
from mlip.ops.kernels.compiler import NoCompiler
from mlip.ops.kernels.convolution import check_shapes, form_of, register
from mlip.ops.kernels.convolution_table import check_table_shapes
from mlip.ops.kernels.form import ConvolutionForm
from mlip.ops.kernels.triton_source import SharedOutputs, triton_source

SCALARS = {torch.float32: "float32", torch.float64: "float64"}
"""Types of numbers that kernels are generated for."""

LEAST_CAPABILITY = (7, 0)
"""Of NVIDIA's GPUs that Triton compiles for."""


def prepare(form: ConvolutionForm, dtype: torch.dtype, device: torch.device) -> str:
    """Write or load what computes a form on a GPU, and return the key that the operators are called with.

    Raises:
        mlip.ops.kernels.compiler.NoCompiler: it cannot be done here; says why.
    """
    register(form)
    reason = trouble(device.index)
    if reason is not None:
        raise NoCompiler(reason)
    module(form.key, dtype)
    return form.key


@lru_cache(maxsize=64)
def trouble(index: int | None) -> str | None:
    """Return why Triton cannot be used on a GPU, by its number or None for the current one; None where it can."""
    try:
        driver = importlib.import_module("triton.runtime").driver
    except ImportError as error:
        return f"Triton cannot be imported ({error}); pip install triton"
    try:
        capability = torch.cuda.get_device_capability(index)
        # Triton compiles its launcher in C: without a compiler this is where it says so.
        driver.active.get_current_target()
    except (RuntimeError, OSError, AssertionError, AttributeError, ImportError, subprocess.SubprocessError) as error:
        return f"Triton does not work here: {(str(error).strip() or type(error).__name__).splitlines()[0]}"
    if torch.version.hip is None and capability < LEAST_CAPABILITY:
        return f"the GPU has compute capability {capability[0]}.{capability[1]}, and Triton needs 7.0"
    return None


@lru_cache(maxsize=256)
def module(key: str, dtype: torch.dtype) -> ModuleType:
    """Return the generated module of a form for a type of numbers, see :func:`triton_source`.

    Triton reads the source of its functions from a file: it lies in the cache, named by a hash of its text.

    Raises:
        mlip.ops.kernels.compiler.NoCompiler: Triton is not there, the file cannot be written, or the form is one that
            cannot be divided among programs.
    """
    try:
        source = triton_source(form_of(key), SCALARS[dtype])
    except SharedOutputs as error:
        raise NoCompiler(str(error)) from error
    name = f"triton_{hashlib.sha256(source.encode()).hexdigest()[:40]}"
    try:
        path = cache_folder() / "kernels" / f"{name}.py"
        if not path.is_file() or path.read_text(encoding="utf-8") != source:
            write_text_atomically(path, source)
    except (MlipError, OSError, UnicodeDecodeError) as error:
        raise NoCompiler(str(error)) from error
    spec = importlib.util.spec_from_file_location(name, path)
    made = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(made)
    except ImportError as error:
        raise NoCompiler(f"Triton cannot be imported ({error}); pip install triton") from error
    return made


def forward(name: str, operands: list[Tensor], senders: Tensor, starts: Tensor, key: str) -> Tensor:
    """Return the convolution, or its tangent.

    Args:
        name: ``forward`` or ``forward_tangent``.
        operands: x, y, w, and their tangents.
        senders, starts, key: see :func:`mlip.ops.kernels.convolution.convolution`.
    """
    check_shapes(form_of(key), operands, senders, starts)
    operands = [operand.contiguous() for operand in operands]
    return _sums(name, operands, operands[0], senders, starts, key)


def backward(
    name: str, operands: list[Tensor], g: Tensor, senders: Tensor, starts: Tensor, key: str, wanted: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, y and w, or their tangents; an unwanted one is empty.

    Args:
        name: ``backward`` or ``backward_tangent``.
        operands, senders, starts, key: as in :func:`forward`.
        g: cotangent of the result, ``(nodes, out_size)``.
        wanted: which of the three.
    """
    check_shapes(form_of(key), operands, senders, starts, g)
    kind = name.removeprefix("backward")
    operands, g = [operand.contiguous() for operand in operands], g.contiguous()
    x, y, w = operands[:3]
    rest = operands[1:3] + operands[4:]
    gx = _source_sums(f"sources{kind}", rest, x, g, senders, starts, key) if wanted[0] else x.new_empty(0)
    gw = torch.empty_like(w) if wanted[2] else w.new_empty(0)
    gy = y.new_empty(0)
    if wanted[1] or wanted[2]:
        gy = _edge_gradients(f"edges{kind}", operands, g, senders, starts, key, gw, wanted)
    return gx, gy, gw


def table_forward(
    x: Tensor, y: Tensor, r: Tensor, table: Tensor, steps: float, senders: Tensor, starts: Tensor, key: str
) -> Tensor:
    """Return the convolution with weights from a table, see :mod:`mlip.ops.kernels.convolution_table`."""
    check_table_shapes(form_of(key), [x, y, r, table], senders, starts)
    x, y, place, table = (tensor.contiguous() for tensor in (x, y, r * steps, table))
    return _sums("forward_table", [x, y, place, table, len(table)], x, senders, starts, key)


def table_backward(
    x: Tensor, y: Tensor, r: Tensor, table: Tensor, steps: float, g: Tensor, senders: Tensor, starts: Tensor, key: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, y and r of the convolution with weights from a table."""
    check_table_shapes(form_of(key), [x, y, r, table], senders, starts, g)
    x, y, place, table, g = (tensor.contiguous() for tensor in (x, y, r * steps, table, g))
    operands = [y, place, table, len(table)]
    gx = _source_sums("sources_table", operands, x, g, senders, starts, key)
    slopes = r.new_empty(module(key, x.dtype).SUM_PARTS, len(r))
    gy = _edge_gradients("edges_table", [x, *operands], g, senders, starts, key, slopes, [True] * 3)
    return gx, gy, slopes.sum(0) * steps


def _sums(name: str, operands: list[Any], x: Tensor, senders: Tensor, starts: Tensor, key: str) -> Tensor:
    form, made = form_of(key), module(key, x.dtype)
    nodes, covered = len(starts) - 1, sum({c.out: c.mul * c.dims[2] for c in form.couplings}.values())
    # Columns that no coupling reaches are zero.
    out = x.new_empty(nodes, form.out_size) if covered == form.out_size else x.new_zeros(nodes, form.out_size)
    _launch(getattr(made, name), nodes, made.SUM_PARTS, *operands, senders.contiguous(), starts.contiguous(), out)
    return out


def _source_sums(
    name: str, operands: list[Any], x: Tensor, g: Tensor, senders: Tensor, starts: Tensor, key: str
) -> Tensor:
    form, made = form_of(key), module(key, x.dtype)
    covered = sum(block[0].mul * block[0].dims[0] for block in form.blocks)
    gx = torch.empty_like(x) if covered == form.x_size else torch.zeros_like(x)
    # The order is not kept for the next call: a graph of CUDA calls that is replayed has new senders.
    ordered, order = torch.sort(senders, stable=True)
    firsts = torch.searchsorted(ordered, torch.arange(len(x) + 1, dtype=ordered.dtype, device=ordered.device))
    receivers = torch.searchsorted(starts[1:].contiguous(), order, right=True)
    _launch(getattr(made, name), len(x), made.SOURCE_PARTS, *operands, g, order, receivers, firsts, gx)
    return gx


def _edge_gradients(
    name: str,
    operands: list[Any],
    g: Tensor,
    senders: Tensor,
    starts: Tensor,
    key: str,
    gw: Tensor,
    wanted: list[bool],
) -> Tensor:
    """Fill the gradient of the weights and return that of y."""
    made, y = module(key, g.dtype), operands[1]
    gy = y.new_empty(made.SUM_PARTS if wanted[1] else 0, *y.shape)
    edges = senders.contiguous(), starts.contiguous()
    # Without edges there is nothing to write, and Triton would be given null for where to.
    nodes = len(starts) - 1 if len(senders) else 0
    _launch(
        getattr(made, name), nodes, made.SUM_PARTS, *operands, g, *edges, gy, gw, len(senders),
        WANT_Y=bool(wanted[1]), WANT_W=bool(wanted[2]),
    )  # fmt: skip
    if not wanted[1]:
        return y.new_empty(0)
    return gy[0] if len(gy) == 1 else gy.sum(0)


def _launch(function: Any, rows: int, parts: int, *arguments: Any, **constants: bool) -> None:
    if rows and parts:
        # One warp a program, see tile_of; loads are not staged through shared memory.
        with _current(arguments[0].device):
            function[(rows, parts)](*arguments, num_warps=1, num_stages=1, enable_fp_fusion=True, **constants)


def _current(device: torch.device) -> AbstractContextManager[Any]:
    """Return what makes Triton launch on a tensor's device, in the stream that is current there."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


_LIBRARY = torch.library.Library("mlip", "IMPL")
_LIBRARY.impl("convolution", lambda x, y, w, *edges: forward("forward", [x, y, w], *edges), "CUDA")
_LIBRARY.impl("convolution_backward", lambda x, y, w, g, *rest: backward("backward", [x, y, w], g, *rest), "CUDA")
_LIBRARY.impl("convolution_tangent", lambda *a: forward("forward_tangent", list(a[:6]), *a[6:]), "CUDA")
_LIBRARY.impl("convolution_backward_tangent", lambda *a: backward("backward_tangent", list(a[:6]), *a[6:]), "CUDA")
_LIBRARY.impl("convolution_table", table_forward, "CUDA")
_LIBRARY.impl("convolution_table_backward", table_backward, "CUDA")
