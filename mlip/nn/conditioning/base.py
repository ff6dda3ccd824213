"""The interface of conditioning: an input of the whole structure or of its atoms, added to the species embedding."""

from abc import ABC, abstractmethod

from torch import Tensor

from mlip.data.graph import AtomGraph
from mlip.ops.constants import ConstantsModule


class Conditioning(ConstantsModule, ABC):
    """Scalars for every atom from an input of the structure.

    Args:
        num_channels: scalars.

    Attributes:
        field: the input that a graph must hold, see :data:`mlip.core.fields.INPUTS`.
        values: the whole numbers that the input may be; all others are refused before they reach ``forward``.
    """

    field: str
    values: tuple[int, ...]

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.num_channels = num_channels

    @abstractmethod
    def forward(self, graph: AtomGraph, batch: Tensor) -> Tensor:
        """Return ``(atoms, num_channels)``; ``batch`` is the graph of every atom."""
