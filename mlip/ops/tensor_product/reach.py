"""Expressivity, measured: which bilinear equivariant maps a tensor product can become.

With one channel an equivariant bilinear map X × Y → Z is one number for each path (l1, l2, l3), the coefficient of
its 3j symbol. A tensor product T with equivariant linear layers around it, ``Lin_Z ∘ T ∘ (Lin_X, Lin_Y)``, has its
weights and theirs to set these numbers. The dimension of the set it can reach is the generic rank of the Jacobian of
the coefficients with respect to all weights (The Price of Freedom, arXiv 2506.13523, definition of expressivity).
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

import torch
from e3nn.o3 import Irrep, Irreps
from torch import Tensor

from mlip.core.errors import ConfigError
from mlip.ops.layout import split_blocks
from mlip.ops.spherical_harmonics import spherical_harmonics
from mlip.ops.tensor_product.base import TensorProduct
from mlip.ops.wigner import wigner_3j

ROWS_AT_ONCE = 8192
"""Copies of the inputs that go through the product in one call."""

RELATIVE_ZERO = 1e-10
"""Coefficients and singular values below this fraction of the largest are rounding."""


@dataclass(frozen=True)
class Reach:
    """What a product with one channel can represent.

    Attributes:
        paths: the (l1, l2, l3) that carry signal at random weights, one entry for each path between two blocks
            and an irrep of the output (interactability).
        dimension: dimension of the set of reachable maps (expressivity).
        weights: weights of the product itself, ``weight_numel``.
        residual: largest deviation of the product from a combination of 3j symbols, relative to its largest value.
    """

    paths: tuple[tuple[int, int, int], ...]
    dimension: int
    weights: int
    residual: float

    @property
    def antisymmetric(self) -> int:
        """Number of paths with l1 + l2 + l3 odd."""
        return sum(sum(path) % 2 for path in self.paths)

    @property
    def natural(self) -> int:
        """Number of paths with l1 + l2 + l3 even."""
        return len(self.paths) - self.antisymmetric


def build_first(
    factory: Callable[..., TensorProduct], irreps: tuple[Irreps, Irreps, Irreps], **options: str
) -> TensorProduct:
    """Build a product in the first mode it supports: ``uuu``, else ``uvu`` and so on.

    Args:
        factory: takes the three irreps and the options of :class:`TensorProduct`.
        irreps: one multiplicity everywhere; in the other modes the second input gets one channel.
        options: passed on.

    Raises:
        ConfigError: the reason why the first of the modes that it knows was refused.
    """
    refusals: list[ConfigError] = []
    for mode in ("uuu", "uvu", "uvuv", "uvw"):
        in1, in2, out = irreps
        if mode != "uuu":
            in2 = Irreps([(1, ir) for _, ir in in2])
        try:
            return factory(in1, in2, out, mode=mode, **options)
        except ConfigError as error:
            refusals.append(error)
    # A mode that is not supported says less than why the irreps were refused.
    telling = [error for error in refusals if "supports mode" not in str(error)]
    raise (telling or refusals)[0]


def measure_reach(product: TensorProduct, seed: int = 0) -> Reach:
    """Measure paths and dimension of the reachable set through the public interface alone.

    A copy of the product is cast to float64 and called with random inputs; where it needs spherical harmonics as the
    second input, with those of random directions: the harmonics of all degrees are independent functions, so that
    they determine the coefficients just as free inputs do. Coefficients are fitted by least squares.

    Rows are independent of one another, so one backward pass over copies of the inputs, each with its own copy of
    the weights, gives one row of the Jacobian for each copy.

    Args:
        product: multiplicity 1 in both inputs, in any mode.
        seed: of inputs and weights.

    Raises:
        ConfigError: more than one channel, or a product that is no equivariant bilinear map.
    """
    if any(mul != 1 for irreps in (product.irreps_in1, product.irreps_in2) for mul, _ in irreps):
        raise ConfigError(
            f"Expressivity is defined for one channel, got {product.irreps_in1} and {product.irreps_in2}."
        )
    probe = _Probe(deepcopy(product).double(), torch.Generator().manual_seed(seed))
    coefficients, residual = probe.coefficients()
    if residual > 1e-8:
        raise ConfigError(
            f"{type(product).__name__} is no bilinear equivariant map of these inputs: {residual:.0e} of its output "
            "is outside the span of the 3j symbols."
        )
    largest = coefficients.abs().max()
    paths = tuple(
        (product.irreps_in1[i].ir.l, product.irreps_in2[j].ir.l, ir.l)
        for (i, j, ir), value in zip(probe.triples, coefficients.tolist())
        if abs(value) > RELATIVE_ZERO * largest
    )
    singular = torch.linalg.svdvals(probe.jacobian())
    dimension = int((singular > RELATIVE_ZERO * singular.max()).sum())
    return Reach(paths, dimension, product.weight_numel, residual)


class _Probe:
    """Inputs, weights and the least-squares fit of the coefficients of one product.

    Attributes:
        triples: (block of the first input, block of the second, irrep of the output) of each coefficient.
    """

    def __init__(self, product: TensorProduct, generator: torch.Generator) -> None:
        self.product = product
        irreps1, irreps2 = product.irreps_in1, product.irreps_in2
        self.irreps = list(dict.fromkeys(ir for _, ir in product.irreps_out))
        self.pairs: dict[Irrep, list[tuple[int, int]]] = {
            ir: [(i, j) for i, (_, ir1) in enumerate(irreps1) for j, (_, ir2) in enumerate(irreps2) if ir in ir1 * ir2]
            for ir in self.irreps
        }
        self.triples = [(i, j, ir) for ir in self.irreps for i, j in self.pairs[ir]]
        self.num_rows = 2 * max(len(pairs) for pairs in self.pairs.values()) + 4
        self.x1 = _normal((self.num_rows, irreps1.dim), generator)
        self.x2 = _normal((self.num_rows, irreps2.dim), generator)
        if product.filter_is_harmonics:
            directions = torch.nn.functional.normalize(_normal((self.num_rows, 3), generator), dim=1)
            harmonics = spherical_harmonics(irreps2.lmax, directions)
            self.x2 = torch.cat([harmonics[:, ir.l**2 : (ir.l + 1) ** 2] for _, ir in irreps2], dim=1)
        # Signs at random, sizes near one: no weight is so small that a singular value looks like a zero.
        count = (product.weight_numel, len(irreps1), len(irreps2), len(product.irreps_out))
        self.parameters = [_away_from_zero(number, generator) for number in count]
        if product.filter_is_harmonics:
            # The product reads a direction from the harmonics: no linear layer may come between.
            self.parameters[2] = torch.ones_like(self.parameters[2])
        self.designs = {ir: self._design(ir) for ir in self.irreps}
        self.inverses = {ir: torch.linalg.pinv(design) for ir, design in self.designs.items()}

    def _design(self, ir: Irrep) -> Tensor:
        """Return ``(rows · (2 l3 + 1), paths into ir)``: the output of each path with coefficient 1."""
        blocks1 = split_blocks(self.x1, self.product.irreps_in1)
        blocks2 = split_blocks(self.x2, self.product.irreps_in2)
        columns = [
            torch.einsum(
                "abc,ra,rb->rc",
                wigner_3j(self.product.irreps_in1[i].ir.l, self.product.irreps_in2[j].ir.l, ir.l),
                blocks1[i][:, :, 0],
                blocks2[j][:, :, 0],
            )
            for i, j in self.pairs[ir]
        ]
        return torch.stack([column.flatten() for column in columns], dim=1)

    def _outputs(self, parameters: list[Tensor]) -> dict[Irrep, Tensor]:
        """Return Lin_Z ∘ T ∘ (Lin_X, Lin_Y) of every copy, by irrep: ``(copies, rows · (2 l3 + 1))``.

        Args:
            parameters: weights of T, scale of each block of X, of Y, and of the output, each ``(copies, number)``.
        """
        copies = parameters[0].shape[0]
        weight, scale1, scale2, scale3 = (p.repeat_interleave(self.num_rows, dim=0) for p in parameters)
        x1 = self.x1.repeat(copies, 1) * _by_component(scale1, self.product.irreps_in1)
        x2 = self.x2.repeat(copies, 1) * _by_component(scale2, self.product.irreps_in2)
        result = self.product(x1, x2, weight if self.product.weight_numel else None)
        summed: dict[Irrep, Tensor] = {}
        for k, ((_, ir), block) in enumerate(
            zip(self.product.irreps_out, split_blocks(result, self.product.irreps_out))
        ):
            part = scale3[:, k, None] * block.sum(dim=2)
            summed[ir] = summed[ir] + part if ir in summed else part
        return {ir: block.reshape(copies, -1) for ir, block in summed.items()}

    def coefficients(self) -> tuple[Tensor, float]:
        """Return the coefficient of every triple, and the relative residual of the fit."""
        with torch.no_grad():
            outputs = self._outputs([p[None] for p in self.parameters])
        largest = max(float(output.abs().max()) for output in outputs.values())
        if not largest > 0:
            raise ConfigError(f"{type(self.product).__name__} returns nothing but zeros for random inputs and weights.")
        parts, residual = [], 0.0
        for ir in self.irreps:
            fitted = self.inverses[ir] @ outputs[ir][0]
            parts.append(fitted)
            residual = max(residual, float((self.designs[ir] @ fitted - outputs[ir][0]).abs().max()) / largest)
        return torch.cat(parts), residual

    def jacobian(self) -> Tensor:
        """Return the derivatives of every coefficient: ``(coefficients, parameters)``."""
        rows = []
        numbered = [(ir, k) for ir in self.irreps for k in range(len(self.pairs[ir]))]
        size = max(1, ROWS_AT_ONCE // self.num_rows)
        for start in range(0, len(numbered), size):
            chunk = numbered[start : start + size]
            leaves = [p.expand(len(chunk), -1).clone().requires_grad_() for p in self.parameters]
            outputs = self._outputs(leaves)
            total = sum((self.inverses[ir][k] * outputs[ir][copy]).sum() for copy, (ir, k) in enumerate(chunk))
            used = leaves[:2] + leaves[3:] if self.product.filter_is_harmonics else leaves
            gradients = torch.autograd.grad(total, used, allow_unused=True)
            rows.append(torch.cat([g for g in gradients if g is not None], dim=1))
        return torch.cat(rows)


def _by_component(scale: Tensor, irreps: Irreps) -> Tensor:
    """Spread ``(rows, blocks)`` over the components of blocks with one channel."""
    return scale.repeat_interleave(torch.tensor([ir.dim for _, ir in irreps]), dim=1)


def _away_from_zero(number: int, generator: torch.Generator) -> Tensor:
    sizes = 0.5 + torch.rand(number, generator=generator, dtype=torch.float64)
    return torch.where(torch.rand(number, generator=generator) < 0.5, -sizes, sizes)


def _normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)
