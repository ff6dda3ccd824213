"""Equivariant layer normalisation of a residual branch."""

import torch
from e3nn.o3 import Irreps
from torch import Tensor, nn

from mlip.ops.layout import join_blocks, split_blocks


class EquivariantLayerNorm(nn.Module):
    """Scalars: subtract the mean, divide by the RMS. Everything else: divide by one common RMS.

    The divisor is ``sqrt(mean square + eps)``; ``eps`` is not tiny, because an atom whose last neighbour
    leaves has features that go to zero smoothly, and a tiny eps would blow them up to one until the very
    end: a step in the energy at the cutoff. A learned scale for each irrep copy starts at ``initial_scale``; zero
    makes the residual layer start as the identity (Facet, arXiv 2509.08418).

    Args:
        irreps: what to normalise, each irrep once.
        initial_scale: start of the learned scales.
        eps: added to the mean square.
    """

    def __init__(self, irreps: Irreps, initial_scale: float = 0.0, eps: float = 1e-2) -> None:
        super().__init__()
        self.irreps = Irreps(irreps)
        self.eps = eps
        self.scales = nn.Parameter(torch.full((self.irreps.num_irreps,), float(initial_scale)))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``(nodes, irreps.dim)`` node by node."""
        blocks = split_blocks(x, self.irreps)
        scales = self.scales.split([mul for mul, _ in self.irreps])
        scalars, others = self._statistics(blocks)
        outputs = []
        for (_, ir), block, scale in zip(self.irreps, blocks, scales):
            if ir.is_scalar():
                mean, inverse = scalars
                outputs.append((block - mean) * inverse * scale)
            else:
                outputs.append(block * others * scale)
        return join_blocks(outputs)

    def _statistics(self, blocks: list[Tensor]) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """Return (mean, 1/RMS) of the scalars and 1/RMS of the rest, each ``(nodes, 1, 1)``."""
        nodes = blocks[0].shape[0]
        zero = blocks[0].new_zeros(nodes, 1, 1)
        mean, inverse_scalar = zero, zero
        squares, count = zero, 0
        for (mul, ir), block in zip(self.irreps, blocks):
            if ir.is_scalar():
                mean = block.mean(dim=2, keepdim=True)
                inverse_scalar = torch.rsqrt((block - mean).square().mean(dim=2, keepdim=True) + self.eps)
            else:
                squares = squares + block.square().sum(dim=(1, 2), keepdim=True)
                count += mul * ir.dim
        return (mean, inverse_scalar), torch.rsqrt(squares / max(count, 1) + self.eps)
