"""Equivariant linear map: channels mix within each irrep."""

import torch
from e3nn.o3 import Irreps
from torch import Tensor, nn

from mlip.ops.layout import join_blocks, split_blocks


class EquivariantLinear(nn.Module):
    """``y_l = x_l W_l / sqrt(fan_in)`` for every irrep of the output; irreps without an input are zero.

    Blocks of the input with the same irrep are one block with more channels. Without a bias an empty
    neighbourhood stays exactly zero.

    Args:
        irreps_in: any order, irreps may repeat.
        irreps_out: each irrep once.
        bias: add a constant to every scalar 0e of the output; zero at the start.
    """

    def __init__(self, irreps_in: Irreps, irreps_out: Irreps, bias: bool = False) -> None:
        super().__init__()
        self.irreps_in, self.irreps_out = Irreps(irreps_in), Irreps(irreps_out)
        self.sources = [[k for k, (_, ir_in) in enumerate(self.irreps_in) if ir_in == ir] for _, ir in self.irreps_out]
        self.weights = nn.ParameterList()
        for (mul, _), source in zip(self.irreps_out, self.sources):
            fan_in = sum(self.irreps_in[k].mul for k in source)
            # No parameter without entries: it would never get a gradient, which distributed training refuses.
            if source:
                self.weights.append(nn.Parameter(torch.randn(fan_in, mul)))
        scalars = sum(mul for mul, ir in self.irreps_out if ir.is_scalar())
        self.register_parameter("bias", nn.Parameter(torch.zeros(scalars)) if bias and scalars else None)

    def forward(self, x: Tensor, factor: float = 1.0) -> Tensor:
        """Map ``(nodes, irreps_in.dim)`` to ``(nodes, irreps_out.dim)``.

        Args:
            x: features.
            factor: what they are multiplied by; done to the weights, which are smaller.
        """
        blocks = split_blocks(x, self.irreps_in)
        outputs, weights = [], iter(self.weights)
        for (mul, ir), source in zip(self.irreps_out, self.sources):
            if not source:
                output = x.new_zeros(x.shape[0], ir.dim, mul)
            else:
                weight = next(weights)
                block = torch.cat([blocks[k] for k in source], dim=2) if len(source) > 1 else blocks[source[0]]
                # One product of two matrices: of strided blocks torch would make one for each row.
                output = block.reshape(-1, block.shape[2]) @ (weight * (factor * weight.shape[0] ** -0.5))
                output = output.view(x.shape[0], ir.dim, mul)
            outputs.append(output + self.bias if self.bias is not None and ir.is_scalar() else output)
        return join_blocks(outputs)


def fit_channels(x: Tensor, irreps_in: Irreps, irreps_out: Irreps) -> Tensor:
    """Pad with zeros or cut channels so that ``irreps_in`` becomes ``irreps_out`` (a residual without weights)."""
    available = {ir: block for (_, ir), block in zip(irreps_in, split_blocks(x, irreps_in))}
    outputs = []
    for mul, ir in irreps_out:
        if ir not in available:
            outputs.append(x.new_zeros(x.shape[0], ir.dim, mul))
            continue
        block = available[ir][:, :, :mul]
        outputs.append(nn.functional.pad(block, (0, mul - block.shape[2])) if block.shape[2] < mul else block)
    return join_blocks(outputs)
