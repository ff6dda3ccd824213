"""The interface of radial bases."""

from abc import ABC, abstractmethod

from torch import Tensor

from mlip.core.errors import ConfigError
from mlip.ops.constants import ConstantsModule

LARGEST_NUM_BASIS = 1000
"""Functions of a basis: some are written as lists, and a damaged number would fill the memory."""


class RadialBasis(ConstantsModule, ABC):
    """Smooth functions of the distance, without envelope.

    Attributes:
        num_basis: number of functions.
        cutoff: radius in Å on which the basis lives; beyond it values are unspecified (the envelope is 0).
    """

    def __init__(self, num_basis: int, cutoff: float) -> None:
        super().__init__()
        if not 1 <= num_basis <= LARGEST_NUM_BASIS:
            raise ConfigError(f"{type(self).__name__} needs num_basis from 1 to {LARGEST_NUM_BASIS}, got {num_basis}.")
        if not cutoff > 0:
            raise ConfigError(f"{type(self).__name__} needs a cutoff > 0 Å, got {cutoff}.")
        self.num_basis = num_basis
        self.cutoff = float(cutoff)

    @abstractmethod
    def forward(self, distances: Tensor) -> Tensor:
        """Evaluate the basis.

        Args:
            distances: ``(edges,)`` in Å, within [0, cutoff].

        Returns:
            ``(edges, num_basis)``, finite and differentiable at 0 and at the cutoff.
        """
