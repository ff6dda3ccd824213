"""A gate for every irrep from the sizes of all of them."""

import torch
from e3nn.o3 import Irreps
from torch import Tensor, nn

from mlip.nn.dense import Dense
from mlip.ops.layout import join_blocks, split_blocks

SMALLEST = 1e-6
"""Added to squares before their root, whose slope at zero would be infinite."""


class NormGate(nn.Module):
    """``g = MLP([x⁰ ‖ |x^l| …])``; scalars become their part of g, every other irrep is multiplied with its own.

    QHNet, arXiv 2306.04922; SPHNet, arXiv 2502.01171. Sizes are root mean squares over the 2l + 1 components. Only 0e
    counts as a scalar: 0o changes its sign under inversion.

    Args:
        irreps: each irrep once.
        hidden: width of the hidden layer; the papers take the number of irreps, which with many degrees costs more
            than the products do.
    """

    def __init__(self, irreps: Irreps, hidden: int) -> None:
        super().__init__()
        self.irreps = Irreps(irreps)
        self.muls = [mul for mul, _ in self.irreps]
        self.dense = Dense([sum(self.muls), hidden, sum(self.muls)])

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(rows, irreps.dim)`` to the same."""
        blocks = split_blocks(x, self.irreps)
        sizes = [
            block[:, 0] if ir.is_scalar() else (block.square().mean(dim=1) + SMALLEST).sqrt()
            for (_, ir), block in zip(self.irreps, blocks)
        ]
        gates = self.dense(torch.cat(sizes, dim=1)).split(self.muls, dim=1)
        return join_blocks(
            [
                gate[:, None] if ir.is_scalar() else block * gate[:, None]
                for (_, ir), block, gate in zip(self.irreps, blocks, gates)
            ]
        )
