"""Sums over the edges of a receiver."""

import torch
from torch import Tensor
from torch_geometric.utils import scatter


def segment_sum(values: Tensor, index: Tensor, num_segments: int) -> Tensor:
    """Sum rows that share an index: ``out[i] = sum over e with index[e] = i of values[e]``.

    Args:
        values: ``(edges, ...)``.
        index: ``(edges,)`` integers below ``num_segments``; sorted receivers are the fast case.
        num_segments: number of rows of the result; rows without an edge are zero.
    """
    return scatter(values, index, dim=0, dim_size=num_segments, reduce="sum")


def first_edges(receivers: Tensor, num_nodes: int) -> Tensor:
    """Return ``(num_nodes + 1,)``: the first edge of each receiver, and the number of edges.

    Args:
        receivers: ``(edges,)`` ascending.
        num_nodes: number of receivers, those without edges included.
    """
    return torch.searchsorted(receivers.contiguous(), torch.arange(num_nodes + 1, device=receivers.device))


def is_ascending(index: Tensor) -> bool:
    """Whether no entry is smaller than the one before; taken for granted while something is traced."""
    return torch.compiler.is_compiling() or bool((index[1:] >= index[:-1]).all())
