"""The interface of conditioning: an input of the whole structure or of its atoms, added to the species embedding."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from mlip.data.graph import AtomGraph


class Conditioning(nn.Module, ABC):
    """Scalars for every atom from an input of the structure.

    Args:
        num_channels: scalars.

    Attributes:
        field: the input that a graph must hold, see :data:`mlip.core.fields.INPUTS`.
    """

    field: str

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.num_channels = num_channels

    @abstractmethod
    def forward(self, graph: AtomGraph, batch: Tensor) -> Tensor:
        """Return ``(atoms, num_channels)``; ``batch`` is the graph of every atom."""
