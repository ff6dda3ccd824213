"""The Gaunt tensor product in Fourier space: multiply trigonometric polynomials on the torus."""

from typing import Literal, get_args

import torch
from e3nn.o3 import Irreps
from torch import Tensor

from mlip.core.errors import ConfigError, did_you_mean
from mlip.ops.fourier import TorusGrid, back_coefficients, exact_torus, fourier_coefficients
from mlip.ops.tensor_product.base import Mode, Normalization, Weights
from mlip.ops.tensor_product.gaunt_product import HALVED_FROM, GauntProduct

Route = Literal["dense", "fft"]


class GauntFourier(GauntProduct):
    """Harmonics to Fourier series, a convolution of the coefficients, and back (arXiv 2401.10216, section 3).

    The convolution is a product at N_θ × N_φ samples. Route ``dense`` merges the change of basis and the discrete
    Fourier transform into one small real matrix an input and one for the way back, on the quarter or half of the
    samples that says everything about the others. Route ``fft`` is the form of the paper, for comparison: complex
    coefficients, zero padding, ``torch.fft``.

    Args:
        route: ``dense`` or ``fft``.

    Raises:
        ConfigError: an unknown route, or what the interface refuses.
    """

    def __init__(
        self,
        irreps_in1: Irreps,
        irreps_in2: Irreps,
        irreps_out: Irreps,
        mode: Mode = "uvu",
        weights: Weights | None = None,
        normalization: Normalization = "component",
        route: Route = "dense",
    ) -> None:
        if route not in get_args(Route):
            raise ConfigError(
                f"route must be one of {', '.join(get_args(Route))}, got '{route}'."
                f"{did_you_mean(str(route), get_args(Route))}"
            )
        self.route = route
        super().__init__(irreps_in1, irreps_in2, irreps_out, mode, weights, normalization)

    def prepare(self, scale: Tensor) -> None:
        highest = [max(l, default=0) for l in self.degrees]
        if self.route == "fft":
            self._prepare_fft(highest, scale)
            return
        halved = max(self.dims) >= HALVED_FROM
        num_theta, num_phi = exact_torus(*highest)
        # Even and odd degrees apart: the next even number of samples, half of the period.
        grid = TorusGrid(num_theta + 1 if halved else num_theta, num_phi, halved)
        values = [self.columns(side, grid.to_samples(highest[side])) for side in (0, 1)]
        back = self.columns(2, grid.from_samples(highest[2], highest[0] + highest[1]).T) * scale
        self.num_points = len(back)
        self.sampled = self.sampled_product([*values, back], halved)

    def product(self, a: Tensor, b: Tensor) -> Tensor:
        return self.sampled(a, b) if self.route == "dense" else self._product_fft(a, b)

    def _prepare_fft(self, highest: list[int], scale: Tensor) -> None:
        self.bandwidths = highest[:2]
        self.padded = 2 * sum(self.bandwidths) + 1
        self.num_points = self.padded**2
        for side in (0, 1):
            coefficients = fourier_coefficients(highest[side]).flatten(1)
            self.register_constant(f"to_fourier{side}", torch.view_as_real(self.columns(side, coefficients.T)))
        back = back_coefficients(highest[2], sum(self.bandwidths)).flatten(1)
        self.register_constant("from_fourier", torch.view_as_real(self.columns(2, back.T) * scale))
        self.first_column = sum(self.bandwidths) - highest[2]
        self.num_columns = 2 * highest[2] + 1

    def _product_fft(self, a: Tensor, b: Tensor) -> Tensor:
        spectra = []
        for side, x in enumerate((a, b)):
            table = torch.view_as_complex(self.constant_like(f"to_fourier{side}", x))
            size = 2 * self.bandwidths[side] + 1
            coefficients = (x.mT.to(table.dtype) @ table.T).unflatten(2, (size, size))
            spectra.append(torch.fft.fft2(coefficients, s=(self.padded, self.padded)))
        # Frequencies u, v of the product lie at index u + L1 + L2, v + L1 + L2.
        product = torch.fft.ifft2(spectra[0] * spectra[1])
        wanted = product[..., self.first_column : self.first_column + self.num_columns].flatten(2)
        table = torch.view_as_complex(self.constant_like("from_fourier", a))
        return (wanted @ table).real.mT
