"""The interface of self-connections."""

from abc import ABC, abstractmethod

from e3nn.o3 import Irreps
from torch import Tensor, nn


class SelfConnection(nn.Module, ABC):
    """A linear map of an atom's own features, added to its messages.

    Args:
        irreps_in: features in.
        irreps_out: features out, each irrep once; those without an input are zero.
        elements: symbols in the order of the species index.
    """

    def __init__(self, irreps_in: Irreps, irreps_out: Irreps, elements: tuple[str, ...]) -> None:
        super().__init__()
        self.irreps_in, self.irreps_out, self.elements = Irreps(irreps_in), Irreps(irreps_out), elements

    @abstractmethod
    def forward(self, features: Tensor, species: Tensor) -> Tensor:
        """Map ``(atoms, irreps_in.dim)`` and element indices ``(atoms,)`` to ``(atoms, irreps_out.dim)``."""
