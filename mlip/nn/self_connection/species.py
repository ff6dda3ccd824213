"""A self-connection with a linear map for each element."""

import torch
from e3nn.o3 import Irreps
from torch import Tensor, nn

from mlip.nn.self_connection.base import SelfConnection
from mlip.ops.layout import join_blocks, split_blocks


class SpeciesSelfConnection(SelfConnection):
    """``y_l = x_l W_l[species] / sqrt(fan_in)``: NequIP's product of the features with the one-hot element.

    Every element has matrices of its own, so the number of parameters grows with the number of elements.

    """

    def __init__(self, irreps_in: Irreps, irreps_out: Irreps, elements: tuple[str, ...]) -> None:
        super().__init__(irreps_in, irreps_out, elements)
        available = {ir: mul for mul, ir in self.irreps_in}
        self.weights = nn.ParameterList(
            nn.Parameter(torch.randn(len(elements), available[ir], mul))
            for mul, ir in self.irreps_out
            if ir in available
        )

    def forward(self, features: Tensor, species: Tensor) -> Tensor:
        blocks = {ir: block for (_, ir), block in zip(self.irreps_in, split_blocks(features, self.irreps_in))}
        outputs, weights = [], iter(self.weights)
        for mul, ir in self.irreps_out:
            if ir not in blocks:
                outputs.append(features.new_zeros(features.shape[0], ir.dim, mul))
                continue
            weight = next(weights)
            outputs.append(torch.bmm(blocks[ir], (weight * weight.shape[1] ** -0.5)[species]))
        return join_blocks(outputs)
