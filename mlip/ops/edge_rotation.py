"""Features in the frame of an edge: Wigner matrices that turn a direction onto the polar axis.

In that frame spherical harmonics of the edge have only their m = 0 component, sqrt(2l + 1), and a product with
them couples equal orders m only (eSCN, arXiv 2302.03655).
"""

from collections.abc import Iterable
from functools import lru_cache

import torch
from e3nn.o3 import Irrep, Irreps
from torch import Tensor

from mlip.core.errors import ConfigError, ShapeError
from mlip.ops.constants import ConstantsModule
from mlip.ops.spherical_harmonics import spherical_harmonics
from mlip.ops.wigner import wigner_3j


class EdgeRotation(ConstantsModule):
    """Matrices ``D`` from components in space to components in the frame of an edge, ``D Y_l(r̂) = sqrt(2l+1) e_0``.

    The half turn about the bisector ``h = (r̂ + ŷ) / |r̂ + ŷ|`` exchanges r̂ and the polar axis ŷ. Its Wigner
    matrices are polynomials of h, which makes them one constant matrix times harmonics of h:

        D^l(h)_mm' = Σ_{k even <= 2l} a_lk Σ_μ 3j(l m, l m', k μ) Y_kμ(h).

    No angle, so nothing is singular, but for r̂ = -ŷ. Directions of the lower half space (y < 0) are therefore
    first turned by π about x, a change of signs. The frames of both charts differ by a turn about the edge; what
    commutes with such turns, as every equivariant product with harmonics of the edge does, has the same value
    and the same derivatives in both.

    Components in the frame are ordered m = 0, -1, 1, -2, 2, …, and those of pseudo irreps (parity -(-1)^l) are
    turned a quarter period: ``(x_-m, x_m)`` stand as ``(-x_m, x_-m)``. With this, a product with harmonics
    of the edge multiplies ``-m`` and ``m`` by the same number and does not mix them, cross products included.

    Args:
        irreps: the irreps to turn, each once.
        max_order: largest |m| that is wanted; rows beyond it are left out.
    """

    def __init__(self, irreps: Iterable[Irrep], max_order: int) -> None:
        super().__init__()
        self.irreps, self.max_order = list(irreps), max_order
        frames = [frame_axes(ir, max_order) for ir in self.irreps]
        self.shapes = [tuple(frame.shape) for frame in frames]
        columns = 1 + max(ir.l for ir in self.irreps) * (2 * max(ir.l for ir in self.irreps) + 3)
        constants, signs = [], []
        for ir, frame in zip(self.irreps, frames):
            turned = torch.einsum("ab,bck->kac", frame, half_turn(ir.l)).flatten(1)
            constants.append(torch.nn.functional.pad(turned, (0, 0, 0, columns - len(turned))))
            signs.append(_turn_about_x(ir.l).expand(frame.shape).flatten())
        self.register_constant("coupling", torch.cat(constants, dim=1))
        self.register_constant("signs", torch.cat(signs))
        self.register_constant("polar_axis", torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64))
        self.register_constant("turn", torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64))

    def forward(self, directions: Tensor, scale: Tensor | None = None) -> list[Tensor]:
        """Return one matrix for each irrep; the transposes lead back.

        Args:
            directions: ``(rows, 3)`` unit vectors. A zero vector is taken for the polar axis.
            scale: ``(rows, 1)`` factors that multiply all matrices of a row; None for 1.

        Returns:
            ``(rows, 2 min(l, max_order) + 1, 2l + 1)`` for each irrep.
        """
        below = directions[:, 1:2] < 0
        upper = torch.where(below, self.constant_like("turn", directions), 1.0) * directions
        # At least 1 long: the upper half space is far from -ŷ.
        bisector = torch.nn.functional.normalize(upper + self.constant_like("polar_axis", directions), dim=1)
        harmonics = even_harmonics(max(ir.l for ir in self.irreps), bisector)
        if scale is not None:
            harmonics = harmonics * scale
        flat = harmonics @ self.constant_like("coupling", harmonics)
        flat = flat * torch.where(below, self.constant_like("signs", flat), 1.0)
        parts = flat.split([rows * columns for rows, columns in self.shapes], dim=1)
        return [part.unflatten(1, shape) for part, shape in zip(parts, self.shapes)]


def frame_axes(ir: Irrep, max_order: int) -> Tensor:
    """Return the signed permutation from the usual order of components to that of a frame, float64.

    Shape ``(2 min(l, max_order) + 1, 2l + 1)``; see :class:`EdgeRotation`.
    """
    l, pseudo = ir.l, ir.p != (-1) ** ir.l
    axes = torch.zeros(2 * min(l, max_order) + 1, 2 * l + 1, dtype=torch.float64)
    axes[0, l] = 1.0
    for m in range(1, min(l, max_order) + 1):
        axes[2 * m - 1, l + m if pseudo else l - m] = -1.0 if pseudo else 1.0
        axes[2 * m, l - m if pseudo else l + m] = 1.0
    return axes


def pair_sizes(components: int) -> list[int]:
    """Return how many components of a block in the frame have |m| = 0, 1, 2, …: 1, 2, 2, …"""
    return [1] + [2] * (components // 2)


@lru_cache(maxsize=64)
def half_turn(degree: int) -> Tensor:
    """Return the Wigner matrix of the half turn about h as coefficients of the even harmonics of h, float64.

    Returns:
        ``(2l + 1, 2l + 1, (l + 1)(2l + 1))``: the last axis runs over degrees 0, 2, …, 2l, component
        normalisation. The factors a_lk follow from the half turn about ŷ, which is ``diag((-1)^m)``.
    """
    parts = []
    signs = torch.tensor([(-1.0) ** m for m in range(-degree, degree + 1)], dtype=torch.float64)
    for k in range(0, 2 * degree + 1, 2):
        symbol = wigner_3j(degree, degree, k)
        # Σ_mm' 3j(m, m', μ)² is 1 / (2k + 1) for every μ, and Y_k(ŷ) is sqrt(2k + 1) at μ = 0.
        parts.append((2 * k + 1) ** 0.5 * (symbol[:, :, k].diagonal() @ signs) * symbol)
    return torch.cat(parts, dim=2)


def even_harmonics(half_degree: int, vectors: Tensor) -> Tensor:
    """Return harmonics of degrees 0, 2, …, 2 half_degree, ``(rows, (half_degree + 1)(2 half_degree + 1))``."""
    degrees = range(2 * half_degree + 1)
    every = spherical_harmonics(2 * half_degree, vectors).split([2 * l + 1 for l in degrees], dim=1)
    return torch.cat(every[::2], dim=1)


def _turn_about_x(degree: int) -> Tensor:
    """Return the diagonal of the Wigner matrix of a turn by π about x: (-1)^l for m >= 0, else -(-1)^l."""
    return torch.tensor([(-1.0) ** (degree + (m < 0)) for m in range(-degree, degree + 1)], dtype=torch.float64)


def edge_direction_columns(irreps: Irreps, name: str, able: str) -> slice | None:
    """Check that irreps are harmonics and return the columns of degree 1; None for scalars only.

    Args:
        irreps: second input of a product.
        name: the product, for messages.
        able: a backend of the same operator that takes any second input, for messages.

    Raises:
        ConfigError: other parities or multiplicities than harmonics have, or no degree 1 to read the
            direction from.
    """
    wrong = [f"{mul}x{ir}" for mul, ir in irreps if mul != 1 or ir.p != (-1) ** ir.l]
    if wrong:
        raise ConfigError(
            f"{name} multiplies with spherical harmonics of edges, irreps 1x0e, 1x1o, 1x2e, … as irreps_in2, "
            f"got {', '.join(wrong)}; {able} has no such condition."
        )
    for (_, ir), columns in zip(irreps, irreps.slices()):
        if ir.l == 1:
            return columns
    if irreps.lmax == 0:
        return None
    raise ConfigError(
        f"{name} reads the direction of an edge from the harmonics of degree 1 and needs 1o in irreps_in2, got "
        f"{irreps}; add 1o or use {able}."
    )


def check_directions(degree1: Tensor, name: str) -> None:
    """Refuse what is no ``Y_1`` of unit vectors: another scale would pass for a zero vector or a wrong filter.

    Looks at the numbers, so only where that costs nothing: eagerly, on a CPU, outside of function transforms.

    Args:
        degree1: ``(rows, 3)``.
        name: the product, for messages.

    Raises:
        ShapeError: a row whose square is neither 3 nor 0.
    """
    if torch.compiler.is_compiling() or degree1.device.type != "cpu":
        return
    squared = degree1.detach().square().sum(dim=1)
    wrong = ((squared - 3).abs() > 0.03) & (squared > 1e-6)
    try:
        found = bool(wrong.any())
    except RuntimeError:
        # torch.func.vmap: there are no numbers to look at.
        return
    if found:
        raise ShapeError(
            f"{name} needs spherical harmonics of unit vectors in component normalisation as second input: the "
            f"squares of the three of degree 1 sum to 3 (or 0 for a zero vector), got {float(squared[wrong][0]):.4g}."
        )
