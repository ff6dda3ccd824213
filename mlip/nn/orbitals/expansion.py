"""From features to blocks over orbitals."""

from __future__ import annotations

import torch
from e3nn.o3 import Irreps
from torch import Tensor, nn

from mlip.nn.dense import Dense
from mlip.nn.linear import EquivariantLinear
from mlip.ops.layout import join_blocks, split_blocks
from mlip.ops.orbital_blocks import OrbitalBlocks


class Expansion(nn.Module):
    """``H_ab += Σ_l sqrt(2l+1) 3j(l_a l_b l) ((1/n) Σ_w W^l_{w,ab} f_w^l + δ_l0 c_ab)``.

    W and the constants c come from scalars of the atoms by a perceptron (QHNet: their elements; SPHNet: what the front
    end says of them). The n channels f are linear in the features: the bottleneck of the papers.

    Args:
        irreps_in: features, each irrep once.
        blocks: layout of the result.
        num_scalars: width of the scalars.
        bottleneck: n.
        hidden: width of the perceptron.
    """

    def __init__(
        self, irreps_in: Irreps, blocks: OrbitalBlocks, num_scalars: int, bottleneck: int = 32, hidden: int = 128
    ) -> None:
        super().__init__()
        self.irreps_out = blocks.irreps
        self.narrow = Irreps([(bottleneck, ir) for _, ir in self.irreps_out])
        self.linear = EquivariantLinear(irreps_in, self.narrow)
        self.bottleneck = bottleneck
        self.muls = [mul for mul, _ in self.irreps_out]
        self.num_constants = sum(mul for mul, ir in self.irreps_out if ir.is_scalar())
        self.dense = Dense([num_scalars, hidden, bottleneck * sum(self.muls) + self.num_constants])

    def forward(self, features: Tensor, scalars: Tensor) -> Tensor:
        """Return the irreps of blocks ``(rows, blocks.irreps.dim)``.

        Args:
            features: ``(rows, irreps_in.dim)``.
            scalars: ``(rows, num_scalars)``.
        """
        *weights, constants = self.dense(scalars).split(
            [self.bottleneck * mul for mul in self.muls] + [self.num_constants], dim=1
        )
        found = []
        for (mul, ir), block, weight in zip(self.irreps_out, split_blocks(self.linear(features), self.narrow), weights):
            part = torch.bmm(block, weight.unflatten(1, (self.bottleneck, mul))) / self.bottleneck
            found.append(part + constants[:, None] if ir.is_scalar() else part)
        return join_blocks(found)
