"""The interface of radial weights."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from mlip.core.errors import ConfigError


class RadialWeights(nn.Module, ABC):
    """Functions of the distance, one for each weight of a convolution, from the values of a radial basis.

    Zero where the basis is zero, so that an edge counts nothing from the cutoff on: no bias, and activations
    that are zero at zero.

    Args:
        num_basis: size of the basis.
        weight_numel: number of weights an edge.
    """

    def __init__(self, num_basis: int, weight_numel: int) -> None:
        super().__init__()
        self.num_basis, self.weight_numel = num_basis, weight_numel

    @abstractmethod
    def forward(self, basis: Tensor) -> Tensor:
        """Map ``(edges, num_basis)``, envelope included, to ``(edges, weight_numel)``."""

    def select(self, basis: Tensor, columns: Tensor) -> Tensor:
        """Return ``forward(basis)[:, columns]``; a form that can do with less work overrides it."""
        return self(basis)[:, columns]

    def fit(self, basis: Tensor, target: Tensor, density: Tensor) -> None:
        """Set the parameters so that ``Σ_r density(r) |forward(basis) - target|²`` is smallest.

        Args:
            basis: ``(points, num_basis)`` at some distances.
            target: ``(points, weight_numel)`` there.
            density: ``(points,)`` weights of the distances.

        Raises:
            ConfigError: this form has no such solution, as an MLP.
        """
        raise ConfigError(f"{type(self).__name__} cannot be fitted by least squares: choose linear or low_rank.")
