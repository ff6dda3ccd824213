"""Weights of the products of pairs of atoms, from their distance and their invariants."""

from collections.abc import Callable

from torch import Tensor, nn

from mlip.nn.dense import Dense
from mlip.nn.radial_weights.base import RadialWeights


class PairWeights(nn.Module):
    """``w = R(φ(r)) ⊙ MLP(s)``: zero from the cutoff on, as R is.

    Args:
        num_basis: size of the radial basis.
        num_scalars: width of the invariants s.
        weight_numel: weights a pair.
        radial_weights: factory of R, takes (num_basis, weight_numel).
        hidden: width of the hidden layer of the MLP.
    """

    def __init__(
        self,
        num_basis: int,
        num_scalars: int,
        weight_numel: int,
        radial_weights: Callable[..., RadialWeights],
        hidden: int = 32,
    ) -> None:
        super().__init__()
        self.radial = radial_weights(num_basis, weight_numel)
        self.scalars = Dense([num_scalars, hidden, weight_numel])

    def forward(self, basis: Tensor, scalars: Tensor, columns: Tensor | None = None) -> Tensor:
        """Return ``(pairs, weight_numel)`` of ``(pairs, num_basis)`` and ``(pairs, num_scalars)``.

        With ``columns`` only these weights are computed and returned.
        """
        radial = self.radial(basis) if columns is None else self.radial.select(basis, columns)
        return radial * self.scalars(scalars, columns)
