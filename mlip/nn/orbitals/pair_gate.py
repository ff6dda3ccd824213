"""The sparse pair gate: of every molecule the pairs that score best."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mlip.core.errors import ConfigError
from mlip.core.numbers import is_number

TIED = 1e-5
"""Scores that differ by less, relative to their size, are equal: those of pairs that symmetry exchanges."""


class Gated(NamedTuple):
    """What a gate lets through.

    Attributes:
        kept: ``(kept,)`` indices of the pairs, ascending.
        strength: ``(kept,)`` from 0.5 to 1: what the invariants of these pairs are multiplied with.
    """

    kept: Tensor
    strength: Tensor


class PairGate(nn.Module):
    """Keep of every molecule the share 1 - sparsity of its pairs with the highest scores p = w·s.

        ``γ = σ(p - τ)``, τ the sparsity-quantile of the scores of the molecule; kept where γ >= 1/2.

    SPHNet, arXiv 2502.01171, with one difference: its τ is that of the batch, so that a molecule's result depends on
    those beside it. Scores as good as the last that is kept are kept, too. At the threshold γ is 1/2, not 0:
    what is made of the pairs jumps where their order changes.

    Args:
        num_scalars: width of the invariants.
        sparsity: share of the pairs that are left out, 0 <= sparsity < 1.

    Raises:
        ConfigError: no such share.
    """

    def __init__(self, num_scalars: int, sparsity: float = 0.7) -> None:
        super().__init__()
        if not is_number(sparsity) or not 0 <= sparsity < 1:
            raise ConfigError(f"sparsity is the share of pairs to leave out, from 0 to below 1, got {sparsity!r}.")
        self.sparsity = float(sparsity)
        # No bias: scores are compared with each other only.
        self.weight = nn.Parameter(torch.randn(num_scalars))

    def forward(self, scalars: Tensor, molecule: Tensor, num_molecules: int) -> Gated:
        """Choose among pairs.

        Args:
            scalars: ``(pairs, num_scalars)``.
            molecule: ``(pairs,)`` of each pair, ascending.
            num_molecules: number of molecules.
        """
        scores = scalars @ (self.weight * len(self.weight) ** -0.5)
        counts = torch.bincount(molecule, minlength=num_molecules)
        first = counts.cumsum(0) - counts
        # By molecule, then by score: two stable sorts.
        order = scores.detach().argsort(stable=True)
        order = order[molecule[order].argsort(stable=True)]
        # In float64: 0.29 · 100 is 28.999… there already.
        dropped = torch.floor(counts.double() * self.sparsity + 1e-9).long()
        has = counts > 0
        # Molecules without pairs have no threshold, and nothing asks for it.
        place = torch.where(has, first + dropped, 0)
        threshold = scores[order[place]] if len(scores) else scores.new_zeros(num_molecules)
        above = scores - threshold[molecule]
        kept = (above.detach() >= -TIED * (1 + threshold[molecule].detach().abs())).nonzero()[:, 0]
        return Gated(kept, torch.sigmoid(above[kept]))
