"""Radial weights from tables for inference: functions of the distance alone need no network an edge."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mlip.nn.convolution import Convolution
from mlip.nn.edges import EdgeFeatures, Edges
from mlip.ops.kernels.convolution_table import convolution_table
from mlip.ops.kernels.operators import in_forward_mode
from mlip.ops.kernels.table import Table, tabulate_functions

TOLERANCE = 1e-5
"""Largest error of a weight, as a fraction of the largest of the layer."""

SLOPE_TOLERANCE = 1e-4
"""Largest error of the derivative of a weight by the distance, as a fraction of the largest of the layer."""

CLOSEST = 1e-3
"""Å; below it no weight is asked of the network."""

BEYOND = (1.0, 1.01, 1.5, 3.0, 30.0)
"""Distances over the cutoff at which weights must be what they are at it: a graph may have such edges."""


class TabulatedMessages:
    """The messages of a convolution with its radial weights from a table: one kernel, differentiable once.

    It stands for weights as they were: :meth:`fits` says whether they still are.

    Args:
        key: of the kernel, see :func:`mlip.ops.kernels.convolution.prepare`.
        table: of the weights.
        cutoff: Å; beyond it weights are those at it.
        parameters: of all that the table was made of.
    """

    def __init__(self, key: str, table: Table, cutoff: float, parameters: Sequence[nn.Parameter]) -> None:
        self.key, self.steps, self.error, self.cutoff = key, table.steps, table.error, cutoff
        self.parameters = list(parameters)
        self.cells = table.cells.to(self.parameters[0].dtype).contiguous()
        self.state = self._state()

    def fits(self, edges: Edges) -> bool:
        """Whether the network would give what the table has, and nobody wants its gradients."""
        return (
            edges.starts is not None
            and edges.distances.dtype == self.cells.dtype
            and not in_forward_mode()
            and self.state == self._state()
            and not (torch.is_grad_enabled() and any(parameter.requires_grad for parameter in self.parameters))
        )

    def _state(self) -> list[tuple[int, int, torch.dtype]]:
        return [(parameter.data_ptr(), parameter._version, parameter.dtype) for parameter in self.parameters]

    def __call__(self, sent: Tensor, edges: Edges) -> Tensor:
        """Return the sums of the messages, ``(atoms, irreps_out.dim)`` of the product."""
        distances = edges.distances.clamp(max=self.cutoff)
        return convolution_table(
            sent, edges.harmonics, distances, self.cells, self.steps, edges.senders, edges.starts, self.key
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
    if key is None or not any(True for _ in convolution.radial_weights.parameters()):
        return None
    parts = convolution.radial_weights, edges.basis
    weights, basis = (copy.deepcopy(part).double() for part in parts)

    def functions(r: Tensor) -> Tensor:
        return weights(basis(r))

    with torch.no_grad():
        table = tabulate_functions(functions, CLOSEST, edges.cutoff, tolerance, slope_tolerance)
        ends = functions(edges.cutoff * torch.tensor(BEYOND, dtype=torch.float64))
    constant = bool(((ends - ends[:1]).abs() <= tolerance * table.cells[:, 0].abs().max()).all())
    if not constant or not table.within(tolerance, slope_tolerance):
        return None
    parameters = [parameter for part in parts for parameter in part.parameters()]
    return TabulatedMessages(key, table, edges.cutoff, parameters)
