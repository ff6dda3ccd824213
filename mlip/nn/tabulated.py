"""Radial weights from tables for inference: functions of the distance alone need no network an edge."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from mlip.nn.convolution import Convolution
from mlip.nn.edges import EdgeFeatures, Edges
from mlip.ops.kernels.convolution_table import convolution_table
from mlip.ops.kernels.table import Table, tabulate_functions
from mlip.ops.segment import first_edges

TOLERANCE = 1e-5
"""Largest error of a weight, as a fraction of the largest of the layer."""

SLOPE_TOLERANCE = 1e-4
"""Largest error of the derivative of a weight by the distance, as a fraction of the largest of the layer."""

CLOSEST = 1e-3
"""Å; below it no weight is asked of the network."""


class TabulatedMessages:
    """The messages of a convolution with its radial weights from a table: one kernel, differentiable once.

    Args:
        key: of the kernel, see :func:`mlip.ops.kernels.convolution.prepare`.
        table: of the weights.
    """

    def __init__(self, key: str, table: Table, dtype: torch.dtype) -> None:
        self.key, self.steps, self.error = key, table.steps, table.error
        self.cells = table.cells.to(dtype).contiguous()

    def __call__(self, sent: Tensor, edges: Edges) -> Tensor:
        """Return the sums of the messages, ``(atoms, irreps_out.dim)`` of the product."""
        starts = first_edges(edges.receivers, len(sent)) if edges.starts is None else edges.starts
        return convolution_table(
            sent, edges.harmonics, edges.distances, self.cells, self.steps, edges.senders, starts, self.key
        )


def tabulate(model: nn.Module, tolerance: float = TOLERANCE, slope_tolerance: float = SLOPE_TOLERANCE) -> float | None:
    """Let the convolutions of a model take their radial weights from tables until it is trained again.

    Convolutions that have no kernel here, or whose weights cannot be tabulated to the tolerances, stay as they are.

    Args:
        model: with convolutions, or made of models with convolutions.
        tolerance, slope_tolerance: see `TOLERANCE` and `SLOPE_TOLERANCE`.

    Returns:
        The largest error of a weight; None if there is no table.
    """
    errors = []
    for owner in model.modules():
        edges = [part for part in owner.children() if isinstance(part, EdgeFeatures)]
        if len(edges) != 1:
            continue
        for convolution in (part for part in owner.modules() if isinstance(part, Convolution)):
            messages = _tabulated(convolution, edges[0], tolerance, slope_tolerance)
            convolution.replace_messages(messages)
            if messages is not None:
                errors.append(messages.error)
    return max(errors, default=None)


def _tabulated(
    convolution: Convolution, edges: EdgeFeatures, tolerance: float, slope_tolerance: float
) -> TabulatedMessages | None:
    parameter = next(convolution.parameters())
    key = convolution.tensor_product.kernel_key(parameter)
    if key is None:
        return None
    weights, basis = (copy.deepcopy(part).double() for part in (convolution.radial_weights, edges.basis))
    with torch.no_grad():
        table = tabulate_functions(lambda r: weights(basis(r)), CLOSEST, edges.cutoff, tolerance, slope_tolerance)
    return TabulatedMessages(key, table, parameter.dtype) if table.within(tolerance, slope_tolerance) else None
