"""Powers of a function on the sphere by the 2D Fourier series of its extension to the torus."""

import math

from torch import Tensor

from mlip.ops.fourier import TorusGrid, exact_torus
from mlip.ops.many_body.gaunt import GauntManyBody


class GauntFourierManyBody(GauntManyBody):
    """Convolutions of 2D Fourier series, projected back in closed form (arXiv 2401.10216, section 3.2).

    The polar angle θ of a polynomial on the sphere runs on to 2π, which makes it a function on the torus with
    the frequencies |u|, |v| <= its degree. The convolutions ``F_ν = F_⌊ν/2⌋ * F_⌈ν/2⌉`` of the coefficients are
    products of samples (convolution theorem) on the torus grid that is exact for degree ν lmax
    (:class:`~mlip.ops.fourier.TorusGrid`, half of it by symmetry). The discrete Fourier transform and the integrals
    z are one real matrix. With torch.fft and coefficient arrays that grow with ν, as in the paper's code, the
    same takes many times longer (:func:`mlip.testing.many_body.fourier_convolutions`).
    """

    def sample(self, lmax_in: int, lmax_out: int, nu: int) -> tuple[Tensor, Tensor]:
        grid = TorusGrid(*exact_torus((nu - 1) * lmax_in, lmax_in, lmax_out))
        # Harmonics of the torus grid have ∫ Y² = 1, here the mean of Y² is 1.
        scale = math.sqrt(4 * math.pi)
        return grid.to_samples(lmax_in) * scale, grid.from_samples(lmax_out, nu * lmax_in) / scale
