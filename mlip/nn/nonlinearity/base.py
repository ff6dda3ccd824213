"""The interface of nonlinearities."""

from abc import ABC, abstractmethod

from e3nn.o3 import Irreps
from torch import Tensor, nn

from mlip.nn.activations import Activation


class Nonlinearity(nn.Module, ABC):
    """An equivariant nonlinear map of an atom's features.

    Args:
        irreps_out: features wanted, each irrep once, scalars 0e first.
        activation: pointwise function.

    Attributes:
        irreps_in: what it takes: ``irreps_out``, possibly with more scalars.
        irreps_out: what it returns.
        exact: False where equivariance holds only up to a documented error (an aliasing grid).
        creates_irreps: whether irreps of zero input may become nonzero; if not, those that the layer before
            cannot reach are better left out.
    """

    exact = True
    creates_irreps = False

    def __init__(self, irreps_out: Irreps, activation: Activation) -> None:
        super().__init__()
        self.irreps_in = self.irreps_out = Irreps(irreps_out)
        self.activation = activation

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Map ``(rows, irreps_in.dim)`` to ``(rows, irreps_out.dim)``, row by row."""
