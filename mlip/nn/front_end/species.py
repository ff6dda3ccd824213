"""What QHNet starts from: the element."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mlip.nn.edges import Edges
from mlip.nn.front_end.base import FrontEnd


class SpeciesEmbedding(FrontEnd):
    """A learned vector for each element (QHNet, arXiv 2306.04922).

    Args:
        elements, num_channels: see the base class.
    """

    def __init__(self, elements: Sequence[int], num_channels: int) -> None:
        super().__init__(elements, num_channels)
        self.embedding = nn.Parameter(torch.randn(len(elements), num_channels))

    def forward(self, species: Tensor, edges: Edges, positions: Tensor, batch: Tensor, num_graphs: int) -> Tensor:
        return self.embedding[species]
