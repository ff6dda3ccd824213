"""Powers of a function on the sphere from its values on a grid."""

from torch import Tensor

from mlip.ops.many_body.gaunt import GauntManyBody
from mlip.ops.sphere_grid import exact_resolution, gauss_legendre_grid, lebedev_grid


class GauntGridManyBody(GauntManyBody):
    """Quadrature on the sphere that is exact for degree ``ν lmax_in + lmax_out`` (arXiv 2506.13523).

    Lebedev's points, or Gauss–Legendre latitudes where those are fewer (scalars only).
    """

    def sample(self, lmax_in: int, lmax_out: int, nu: int) -> tuple[Tensor, Tensor]:
        total = nu * lmax_in + lmax_out
        grids = (lebedev_grid(total), gauss_legendre_grid(*exact_resolution(total)))
        grid = min(grids, key=lambda candidate: len(candidate.points))
        return grid.to_grid(lmax_in), grid.from_grid(lmax_out)
