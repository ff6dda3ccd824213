"""Sizes of magnetic moments of the atoms."""

from collections.abc import Sequence

from e3nn.o3 import Irreps
from torch import Tensor

from mlip.core.errors import ConfigError
from mlip.nn.activations import Activation
from mlip.nn.heads.base import Head, num_scalars
from mlip.nn.readout import Readout

_ROUNDING = 1e-2
"""Of the scale: below it |x| is rounded off to a parabola, so that moments are smooth functions of the positions."""


class MagneticMoments(Head):
    """``|m_i| = s (sqrt(x_i² + ε²) - ε)``, ``x_i`` a readout of the last layer's scalars: smooth, and never negative.

    A structure does not say which direction is up, so only sizes of collinear moments are functions of it; CHGNet
    (B. Deng et al., Nat. Mach. Intell. 5, 1031 (2023)) takes ``|x_i|``, which has a kink at zero. Losses and errors
    compare with the sizes of the labels.

    Args:
        irreps_layers: features after each layer; the last must begin with scalars 0e.
        elements: symbols in the order of the species index.
        scale: s in μB.
        hidden: widths of the hidden layers of the readout.
        activation: between these; None: they are linear.
    """

    provides = ("magmoms",)

    def __init__(
        self,
        irreps_layers: Sequence[Irreps],
        elements: tuple[str, ...],
        scale: float = 1.0,
        hidden: Sequence[int] = (),
        activation: Activation | None = None,
    ) -> None:
        super().__init__(irreps_layers, elements)
        if not 0 < scale < float("inf"):
            raise ConfigError(f"MagneticMoments needs scale > 0 μB, got {scale}.")
        self.num_scalars = num_scalars(self.irreps_layers[-1], "MagneticMoments")
        self.readout = Readout(self.num_scalars, hidden, activation)
        self.scale = float(scale)

    def forward(self, features: Sequence[Tensor], species: Tensor, batch: Tensor, num_graphs: int) -> dict[str, Tensor]:
        x = self.readout(features[-1][:, : self.num_scalars]).double()
        # The difference of the two roots as a quotient: exact for small x, where it would cancel.
        size = x.square() / ((x.square() + _ROUNDING**2).sqrt() + _ROUNDING)
        return {"magmoms": self.scale * size}
