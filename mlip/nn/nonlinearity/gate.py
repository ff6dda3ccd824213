"""NequIP's gate: activated scalars, everything else multiplied by gates that come in as scalars of their own."""

import torch
from e3nn.o3 import Irrep, Irreps
from torch import Tensor

from mlip.core.errors import ConfigError
from mlip.nn.activations import Activation
from mlip.nn.nonlinearity.base import Nonlinearity
from mlip.ops.layout import join_blocks, split_blocks

_TANH_GAIN = 1.5925374197228312
"""1/sqrt of the second moment of tanh of a normal number."""


class Gate(Nonlinearity):
    """``s → a(s)`` for 0e, ``p → tanh(p)`` for 0o, ``x_lc → x_lc · a(g_lc)`` for each channel of higher degree.

    The gates g are further scalars 0e, which the convolution before it has to produce (arXiv 1807.02547, as in
    NequIP, arXiv 2101.03164, and SevenNet). Exactly equivariant whatever the activation a. No bias.

    Args:
        irreps_out: features out, each irrep once, 0e first.
        activation: a, of scalars and gates.

    Attributes:
        irreps_in: ``irreps_out`` with the gates behind the scalars: ``(mul_0e + gates) x 0e + …``.

    Raises:
        ConfigError: the first block is not 0e, or an irrep occurs twice.
    """

    def __init__(self, irreps_out: Irreps, activation: Activation) -> None:
        super().__init__(irreps_out, activation)
        irreps = self.irreps_out
        if not len(irreps) or not irreps[0].ir.is_scalar() or len({ir for _, ir in irreps}) != len(irreps):
            raise ConfigError(f"Gate needs irreps with scalars 0e first and each irrep once, got {irreps}.")
        self.gated = [mul for mul, ir in irreps if ir.l > 0]
        self.num_scalars = irreps[0].mul
        self.irreps_in = Irreps([(self.num_scalars + sum(self.gated), irreps[0].ir), *irreps[1:]])

    def forward(self, x: Tensor) -> Tensor:
        first, *others = split_blocks(x, self.irreps_in)
        activated = self.activation(first)
        outputs = [activated[:, :, : self.num_scalars]]
        gates = iter(activated[:, :, self.num_scalars :].split(self.gated, dim=2)) if self.gated else iter(())
        for (_, ir), block in zip(self.irreps_in[1:], others):
            outputs.append(_TANH_GAIN * torch.tanh(block) if ir == Irrep("0o") else block * next(gates))
        return join_blocks(outputs)
