"""Edge vectors from a graph."""

import torch
from torch import Tensor


def edge_vectors(
    positions: Tensor,
    cell: Tensor,
    cell_shifts: Tensor,
    senders: Tensor,
    receivers: Tensor,
    graph_of_edge: Tensor,
) -> Tensor:
    """Return ``r_j + S·cell − r_i`` for every edge j→i.

    Args:
        positions: ``(atoms, 3)`` Å; kept in float64 so that far-away or unwrapped atoms lose nothing.
        cell: ``(graphs, 3, 3)`` Å, rows are vectors.
        cell_shifts: ``(edges, 3)`` integers.
        senders, receivers: ``(edges,)``.
        graph_of_edge: ``(edges,)`` index of the graph.

    Returns:
        ``(edges, 3)`` Å in the dtype of the positions.
    """
    shifts = torch.einsum("ea,eab->eb", cell_shifts.to(positions.dtype), cell[graph_of_edge])
    return positions.index_select(0, senders) - positions.index_select(0, receivers) + shifts


def safe_norm(vectors: Tensor) -> Tensor:
    """Return the lengths ``(rows,)`` of ``(rows, 3)``, with gradient zero instead of NaN at length zero."""
    square = vectors.square().sum(dim=1)
    is_zero = square == 0
    return torch.where(is_zero, torch.ones_like(square), square).sqrt().masked_fill(is_zero, 0.0)
