"""Contractions of nonzero coefficients in generated C++: an evaluator for `mlip.ops.tensor_product.nonzeros`."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from mlip.ops.kernels.contraction_source import contraction_source, read_slots
from mlip.ops.kernels.cpp import SCALARS
from mlip.ops.kernels.library import load_library, remembered
from mlip.ops.tensor_product.nonzeros import Form, Operands, Shared


def prepare(form: Form, wanted: tuple[int, ...], shared: Shared, operands: Operands) -> str:
    """Build or load what :func:`evaluate_native` needs for such operands; return its name.

    Raises:
        mlip.ops.kernels.compiler.NoCompiler: it cannot be built here.
    """
    _function(form, wanted, shared, operands)
    return "contraction"


def evaluate_native(form: Form, wanted: tuple[int, ...], shared: Shared, operands: Operands) -> list[Tensor]:
    """Do what :func:`~mlip.ops.tensor_product.nonzeros.evaluate_eagerly` does, in compiled code.

    Args:
        form, wanted, shared, operands: as there; operands of one dtype, float32 or float64, on the CPU.

    Raises:
        mlip.ops.kernels.compiler.NoCompiler: it cannot be built here.
    """
    function = _function(form, wanted, shared, operands)
    read = read_slots(form, wanted)
    given = [operands[slot].contiguous() for slot in read]
    # A row that all share says nothing of how many there are.
    rows = max((operand.shape[0] for slot, operand in zip(read, given) if 0 not in shared[slot]), default=1)
    channels = max(operand.shape[2] for operand in given)
    results = [given[0].new_empty(rows, form.sizes[slot], 1 if 2 in shared[slot] else channels) for slot in wanted]
    arguments: list[object] = []
    for operand in given:
        stride = 0 if operand.shape[0] != rows else operand.shape[1] * operand.shape[2]
        arguments += [ctypes.c_void_p(operand.data_ptr()), ctypes.c_int64(stride)]
    arguments += [ctypes.c_void_p(result.data_ptr()) for result in results]
    function.evaluate(*arguments, ctypes.c_int64(rows), torch.get_num_threads())
    return [r.sum(0, keepdim=True) if 0 in shared[slot] else r for slot, r in zip(wanted, results)]


def _function(form: Form, wanted: tuple[int, ...], shared: Shared, operands: Operands) -> ctypes.CDLL:
    given = [operands[slot] for slot in read_slots(form, wanted)]
    return _library(form, wanted, shared, max(operand.shape[2] for operand in given), given[0].dtype)


@remembered
def _library(form: Form, wanted: tuple[int, ...], shared: Shared, channels: int, dtype: torch.dtype) -> ctypes.CDLL:
    return load_library(contraction_source(form, wanted, shared, channels, SCALARS[dtype]))
