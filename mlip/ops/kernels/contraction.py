"""Contractions of nonzero coefficients in generated C++: an evaluator for `mlip.ops.tensor_product.nonzeros`."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from mlip.ops.kernels.contraction_source import contraction_source, read_slots
from mlip.ops.kernels.cpp import SCALARS
from mlip.ops.kernels.library import load_library, pointers, remembered
from mlip.ops.kernels.operators import check_operands
from mlip.ops.tensor_product.nonzeros import Form, Operands, Shared


def prepare(form: Form, wanted: tuple[int, ...], shared: Shared, operands: Operands) -> str:
    """Build or load what :func:`evaluate_native` needs for such operands; return its name.

    Raises:
        mlip.ops.kernels.compiler.NoCompiler: it cannot be built here.
    """
    given = [operands[slot] for slot in read_slots(form, wanted)]
    _library(form, wanted, shared, max(operand.shape[2] for operand in given), given[0].dtype)
    return "contraction"


def evaluate_native(form: Form, wanted: tuple[int, ...], shared: Shared, operands: Operands) -> list[Tensor]:
    """Do what :func:`~mlip.ops.tensor_product.nonzeros.evaluate_eagerly` does, in compiled code.

    Args:
        form, wanted, shared, operands: as there; operands of one dtype, float32 or float64, on the CPU.

    Raises:
        ShapeError: an operand has another shape or dtype than the form and the others ask for.
        mlip.ops.kernels.compiler.NoCompiler: it cannot be built here.
    """
    read = read_slots(form, wanted)
    given = [operands[slot].contiguous() for slot in read]
    # A row that all share says nothing of how many there are.
    rows = max((operand.shape[0] for slot, operand in zip(read, given) if 0 not in shared[slot]), default=1)
    channels = max(operand.shape[2] for operand in given)
    check_operands(
        given[0].dtype,
        (
            (f"operand {s}", operand, (1 if 0 in shared[s] else rows, form.sizes[s], 1 if 2 in shared[s] else channels))
            for s, operand in zip(read, given)
        ),
    )
    function = _library(form, wanted, shared, channels, given[0].dtype)
    results = [given[0].new_empty(rows, form.sizes[slot], 1 if 2 in shared[slot] else channels) for slot in wanted]
    arguments: list[object] = []
    for operand in given:
        stride = 0 if operand.shape[0] != rows else operand.shape[1] * operand.shape[2]
        arguments += [*pointers(operand), ctypes.c_int64(stride)]
    function.evaluate(*arguments, *pointers(*results), ctypes.c_int64(rows), torch.get_num_threads())
    return [r.sum(0, keepdim=True) if 0 in shared[slot] else r for slot, r in zip(wanted, results)]


@remembered
def _library(form: Form, wanted: tuple[int, ...], shared: Shared, channels: int, dtype: torch.dtype) -> ctypes.CDLL:
    return load_library(contraction_source(form, wanted, shared, channels, SCALARS[dtype]))
