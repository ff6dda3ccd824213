"""Facet's mixer: an ordinary MLP over channels at every point of a sphere grid."""

from collections.abc import Sequence

import torch
from e3nn.o3 import Irreps
from torch import Tensor, nn

from mlip.core.errors import ConfigError
from mlip.nn.activations import Activation
from mlip.nn.linear import EquivariantLinear
from mlip.nn.nonlinearity.base import Nonlinearity
from mlip.ops.constants import ConstantsModule
from mlip.ops.sphere_grid import exact_resolution, gauss_legendre_grid

LARGEST_RESOLUTION = 500
"""Latitudes or longitudes: a damaged number would fill the memory with the points of a grid."""


class GridMixer(ConstantsModule):
    """Read features as functions on the sphere, mix channels at every point, project back (arXiv 2509.08418).

    1. Linear to ``num_channels`` copies of every degree 0..lmax.
    2. Values on a Gauss–Legendre grid: ``(nodes, points, num_channels)``.
    3. Channels in ``num_heads`` heads; the same two-layer MLP (activation after both layers) on each.
    4. Projection back to degrees 0..lmax; together with the block's own scalars, linear to the output.

    A pointwise function of a band-limited function is not band-limited. With a polynomial activation the
    grid is made exact for its degree and the block is exactly equivariant; otherwise the tail aliases, and
    the error falls with the resolution.

    Args:
        irreps: features in and out, each irrep once, of degrees above zero, too; parities all (-1)^l, or all even in a
            model that only turns (SO(3)).
        activation: pointwise function; its degree decides about the grid.
        num_heads: heads that share the MLP.
        resolution: (latitudes, longitudes), or None for the exact one of a polynomial activation and
            :data:`DEFAULT_RESOLUTION` otherwise.
    """

    DEFAULT_RESOLUTION = (20, 39)

    def __init__(
        self,
        irreps: Irreps,
        activation: Activation,
        num_heads: int = 2,
        resolution: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.irreps = Irreps(irreps)
        self.lmax = self.irreps.lmax
        parities = [[(-1) ** l for l in range(self.lmax + 1)], [1] * (self.lmax + 1)]
        parity = next((p for p in parities if all(ir.p == p[ir.l] for _, ir in self.irreps)), None)
        if parity is None:
            raise ConfigError(
                f"SphereMixer needs irreps with parities (-1)^l, or all even, got {self.irreps}; "
                "model/nonlinearity=gate takes any."
            )
        self.num_channels = max(mul for mul, ir in self.irreps if ir.l > 0)
        if num_heads < 1 or self.num_channels % num_heads:
            raise ConfigError(f"num_heads={num_heads} does not divide the {self.num_channels} channels of the mixer.")
        self.activation = activation
        self.resolution = tuple(resolution or self._default_resolution())
        self.exact = activation.degree is not None and all(
            have >= needed for have, needed in zip(self.resolution, self._default_resolution())
        )
        grid = gauss_legendre_grid(*self.resolution)
        self.register_constant("to_grid", grid.to_grid(self.lmax))
        self.register_constant("from_grid", grid.from_grid(self.lmax))
        width = self.num_channels // num_heads
        self.num_heads = num_heads
        inner = Irreps([(self.num_channels, (l, p)) for l, p in enumerate(parity)])
        scalars = Irreps([(mul, ir) for mul, ir in self.irreps if ir.is_scalar()])
        self.linear_in = EquivariantLinear(self.irreps, inner)
        self.hidden = nn.Parameter(torch.randn(width, width))
        self.output = nn.Parameter(torch.randn(width, width))
        self.linear_out = EquivariantLinear(inner + scalars, self.irreps)
        self.num_scalars = scalars.dim

    def _default_resolution(self) -> tuple[int, int]:
        if self.activation.degree is None:
            return self.DEFAULT_RESOLUTION
        # Two activations in a row: degree² times lmax, and once more lmax for the projection.
        return exact_resolution((self.activation.degree**2 + 1) * self.lmax)

    def forward(self, x: Tensor) -> Tensor:
        """Mix ``(nodes, irreps.dim)``; scalars must be the first block."""
        nodes = x.shape[0]
        coefficients = self.linear_in(x).unflatten(1, ((self.lmax + 1) ** 2, self.num_channels))
        # Division by sqrt((lmax+1)²) makes the values, sums over all degrees, of order one.
        values = (self.constant_like("to_grid", x) / (self.lmax + 1)) @ coefficients
        width = self.hidden.shape[0]
        values = values.reshape(-1, width)
        values = self.activation(values @ (self.hidden * width**-0.5))
        values = self.activation(values @ (self.output * width**-0.5))
        values = values.view(nodes, -1, self.num_channels)
        mixed = (self.constant_like("from_grid", x) * (self.lmax + 1)) @ values
        return self.linear_out(torch.cat([mixed.flatten(1), x[:, : self.num_scalars]], dim=1))


class ScalarMixer(nn.Module):
    """An ordinary MLP with two hidden layers, for features that are scalars only.

    Args:
        num_channels: width of input, hidden layers and output.
        activation: pointwise function.
    """

    exact = True

    def __init__(self, num_channels: int, activation: Activation) -> None:
        super().__init__()
        self.activation = activation
        self.weights = nn.ParameterList(nn.Parameter(torch.randn(num_channels, num_channels)) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(nodes, num_channels)`` to the same shape."""
        scale = x.shape[1] ** -0.5
        for weight in list(self.weights)[:-1]:
            x = self.activation(x @ (weight * scale))
        return x @ (self.weights[-1] * scale)


class SphereMixer(Nonlinearity):
    """Facet's node layer: a :class:`GridMixer`, or a :class:`ScalarMixer` for features that are scalars only.

    Args:
        irreps_out: features in and out, each irrep once, scalars first.
        activation: pointwise function; a polynomial one makes the block exactly equivariant.
        num_heads, resolution: see :class:`GridMixer`.
    """

    creates_irreps = True

    def __init__(
        self, irreps_out: Irreps, activation: Activation, num_heads: int = 2, resolution: Sequence[int] | None = None
    ) -> None:
        super().__init__(irreps_out, activation)
        grid = None if resolution is None else _read_resolution(resolution)
        if self.irreps_out.lmax:
            self.mixer: GridMixer | ScalarMixer = GridMixer(self.irreps_out, activation, num_heads, grid)
        else:
            self.mixer = ScalarMixer(self.irreps_out.dim, activation)
        self.exact = self.mixer.exact

    def forward(self, x: Tensor) -> Tensor:
        return self.mixer(x)


def _read_resolution(resolution: Sequence[int]) -> tuple[int, int]:
    pair = tuple(resolution) if isinstance(resolution, Sequence) else ()
    if len(pair) != 2 or any(type(number) is not int or not 1 <= number <= LARGEST_RESOLUTION for number in pair):
        raise ConfigError(
            f"resolution must be [latitudes, longitudes] of a grid, each from 1 to {LARGEST_RESOLUTION}, or null, got "
            f"{resolution!r}."
        )
    return pair
