"""What QHNet starts from: the element."""

import torch
from torch import Tensor, nn

from mlip.nn.edges import Edges
from mlip.nn.front_end.base import FrontEnd


class SpeciesEmbedding(FrontEnd):
    """A learned vector for each element (QHNet, arXiv 2306.04922).

    Args:
        num_elements, num_channels: see the base class.
    """

    def __init__(self, num_elements: int, num_channels: int) -> None:
        super().__init__(num_elements, num_channels)
        self.embedding = nn.Parameter(torch.randn(num_elements, num_channels))

    def forward(self, species: Tensor, edges: Edges, positions: Tensor, batch: Tensor, num_graphs: int) -> Tensor:
        return self.embedding[species]
