"""What two atoms have in common: scalars of both, and the inner products of their features."""

import torch
from e3nn.o3 import Irreps
from torch import Tensor, nn

from mlip.ops.layout import split_blocks


class PairInvariants(nn.Module):
    """``s_ij = [x_i⁰ ‖ x_j⁰ ‖ (1/(2l+1)) Σ_m x_i^lm x_j^lm …]`` for every irrep but 0e, channel by channel.

    SPHNet, arXiv 2502.01171. QHNet's released code takes the receiver's scalars twice; here both atoms count.

    Args:
        irreps: of the features, each irrep once, with 0e.
        symmetric: the mean of the two atoms' scalars instead of both, so that exchanging them changes nothing.

    Attributes:
        num_scalars: width of the result.
    """

    def __init__(self, irreps: Irreps, symmetric: bool = False) -> None:
        super().__init__()
        self.irreps, self.symmetric = Irreps(irreps), symmetric
        scalars = sum(mul for mul, ir in self.irreps if ir.is_scalar())
        others = sum(mul for mul, ir in self.irreps if not ir.is_scalar())
        self.num_scalars = (1 if symmetric else 2) * scalars + others

    def forward(self, features: Tensor, senders: Tensor, receivers: Tensor) -> Tensor:
        """Return ``(pairs, num_scalars)`` of ``(atoms, irreps.dim)`` and atoms j and i of every pair."""
        parts = []
        for (_, ir), block in zip(self.irreps, split_blocks(features, self.irreps)):
            sent, received = block.index_select(0, senders), block.index_select(0, receivers)
            if not ir.is_scalar():
                parts.append((sent * received).mean(dim=1))
            elif self.symmetric:
                parts.append(0.5 * (sent + received)[:, 0])
            else:
                parts += [received[:, 0], sent[:, 0]]
        return torch.cat(parts, dim=1)
