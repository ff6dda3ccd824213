"""A gate that takes its gates from the scalars it activates."""

import torch
from e3nn.o3 import Irreps
from torch import Tensor, nn

from mlip.core.errors import ConfigError
from mlip.nn.activations import Activation
from mlip.nn.nonlinearity.base import Nonlinearity
from mlip.ops.layout import join_blocks, split_blocks


class SharedGate(Nonlinearity):
    """``s → activation(s)`` for the scalars 0e; ``x_lc → x_lc · 2 sigmoid(Σ_k s_k W_k,lc)`` for every other channel.

    Gates are true scalars, so that a pseudo-scalar 0o keeps its sign under inversion. Exactly equivariant whatever
    the activation (gated nonlinearity of arXiv 1807.02547). No bias: features of zero stay zero, and a gate of
    zero input is one.

    Args:
        irreps_out: features in and out, each irrep once; must hold 0e.
        activation: of the scalars.

    Raises:
        ConfigError: no scalars, or an irrep that occurs twice.
    """

    def __init__(self, irreps_out: Irreps, activation: Activation) -> None:
        super().__init__(irreps_out, activation)
        scalars = [k for k, (_, ir) in enumerate(self.irreps_out) if ir.is_scalar()]
        if len(scalars) != 1 or len({ir for _, ir in self.irreps_out}) != len(self.irreps_out):
            raise ConfigError(f"SharedGate needs irreps with scalars 0e and each irrep once, got {self.irreps_out}.")
        self.scalars = scalars[0]
        self.gated = [mul for k, (mul, _) in enumerate(self.irreps_out) if k != self.scalars]
        # No parameter without entries: it would never get a gradient, which distributed training refuses.
        weight = nn.Parameter(torch.randn(self.irreps_out[self.scalars].mul, sum(self.gated))) if self.gated else None
        self.register_parameter("weight", weight)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(rows, irreps.dim)`` to the same shape, row by row."""
        blocks = split_blocks(x, self.irreps_out)
        scalars = blocks[self.scalars]
        outputs = [self.activation(scalars)]
        if self.gated:
            gates = 2 * torch.sigmoid(scalars @ (self.weight * self.weight.shape[0] ** -0.5))
            others = [block for k, block in enumerate(blocks) if k != self.scalars]
            outputs += [block * gate for block, gate in zip(others, gates.split(self.gated, dim=2))]
        outputs.insert(self.scalars, outputs.pop(0))
        return join_blocks(outputs)
