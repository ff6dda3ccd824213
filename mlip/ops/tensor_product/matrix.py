"""The matrix (fused) tensor product: features are matrices between irreps, multiplied as matrices."""

from itertools import pairwise
from math import ceil
from typing import Literal, get_args

import torch
from e3nn.o3 import Irrep, Irreps
from torch import Tensor

from mlip.core.errors import ConfigError, did_you_mean
from mlip.ops.row_chunks import in_row_chunks
from mlip.ops.tensor_product.base import Mode, Normalization, Weights
from mlip.ops.tensor_product.signal_product import Component, SignalProduct
from mlip.ops.wigner import wigner_3j

Space = Literal["degrees", "spin"]
"""On what the matrices act.

- ``degrees``: V = 0e ⊕ 1o ⊕ … ⊕ l̃, the functions on the sphere up to degree l̃ (The Price of Freedom).
- ``spin``: V = (s, even) ⊕ (s, odd), one irrep of degree s in both parities (FusedTensor of e3x).
"""

LARGEST_UNROLLED = 9
"""Rows of the largest matrices that are multiplied by a loop over their inner index with all channels side by side.
Measured on a CPU with 64 channels: 2 to 3 times faster than matrix products up to 7 rows, equal at 9, half as fast at
16."""


class MatrixProduct(SignalProduct):
    """Multiply matrices on a space V of irreps (arXiv 2506.13523; E3x, arXiv 2401.07595).

    A feature x of the irrep (l, p) is the matrix with the blocks ``X_ij = Σ_m C^{ij}_m x_m``,
    ``C^{ij}_m = sqrt(2l+1) 3j(l_i, l_j, l)_{·· m}`` (e3nn's signs, where 3j(000) > 0), for all irreps i, j of V with
    |l_i - l_j| <= l <= l_i + l_j and p = p_i p_j. With normalisation ``none`` the map is

        ``out_m3 = Σ_ik tr(C^{ik T}_m3 Z_ik)``, ``Z = X1 X2``,

    that is ``κ 3j(l1, l2, l3)``; between natural parities (-1)^l in the space ``degrees``
    ``κ = sqrt((2l1+1)(2l2+1)(2l3+1)) Σ_ijk {l1 l2 l3; l_k l_i l_j}`` (6j symbols), and with one irrep of degree s in
    both parities ``|κ| = 2 sqrt((2l1+1)(2l2+1)(2l3+1)) |{l1 l2 l3; s s s}|``. The commutator part has the paths with
    l1 + l2 + l3 odd.

    In the space ``degrees`` 0o is no matrix. In ``spin`` every irrep up to degree 2s is, the matrices are much smaller
    (twice 2s + 1 rows instead of (l̃ + 1)²), and a few paths vanish with their 6j: (3, 5, 5) at s = 3.

    Args:
        space: see :data:`Space`.
        degree: l̃ or s. None takes ⌈(L1 + L2) / 2⌉ or ⌈max(L1, L2, L3) / 2⌉ for the highest degrees of the inputs
            and the output as in the papers, or the next that has room for every irrep.

    Raises:
        ConfigError: an unknown space, a negative degree, and what :class:`SignalProduct` refuses.
    """

    signals = "no blocks of matrices on this space turn like that"

    def __init__(
        self,
        irreps_in1: Irreps,
        irreps_in2: Irreps,
        irreps_out: Irreps,
        mode: Mode = "uvu",
        weights: Weights | None = None,
        normalization: Normalization = "component",
        *,
        space: Space = "spin",
        degree: int | None = None,
    ) -> None:
        if space not in get_args(Space):
            known = get_args(Space)
            raise ConfigError(f"space must be one of {', '.join(known)}, got '{space}'.{did_you_mean(space, known)}")
        if degree is not None and (type(degree) is not int or degree < 0):
            raise ConfigError(f"degree must be a whole number, 0 or more, got {degree!r}.")
        sides = [Irreps(irreps) for irreps in (irreps_in1, irreps_in2, irreps_out)]
        degree = _sufficient_degree(space, *sides) if degree is None else degree
        self.space = [Irrep(l, (-1) ** l) for l in range(degree + 1)]
        # Matrices that commute with the exchange of the two parities are two blocks: even part ± odd part.
        self.num_blocks = 1
        if space == "spin":
            self.space, self.num_blocks = [Irrep(degree, 1)], 2
        self.size = sum(ir.dim for ir in self.space)
        self.operator = f"matrix {space} {degree}"
        super().__init__(irreps_in1, irreps_in2, irreps_out, mode, weights, normalization)

    def components(self, side: int, block: int, ir: Irrep) -> list[Component]:
        return [Component(block, ir)] if self._lift(ir).any() else []

    def prepare(self, scale: Tensor) -> None:
        lifts = [self._lifts(side) for side in self.sides]
        for n in range(self.num_blocks):
            self.register_constant(f"lift1_{n}", lifts[0][n])
            self.register_constant(f"lift2_{n}", lifts[1][n])
            self.register_constant(f"project_{n}", (lifts[2][n] * scale).T.contiguous())

    def product(self, a: Tensor, b: Tensor) -> Tensor:
        numbers = (3 if self.size > LARGEST_UNROLLED else 4) * self.size**2 * a.shape[2]
        return in_row_chunks(self._product, a, b, row_bytes=numbers * a.element_size())

    def _product(self, a: Tensor, b: Tensor) -> Tensor:
        block = self._block_of_large if self.size > LARGEST_UNROLLED else self._block_of_small
        parts = [block(k, a, b) for k in range(self.num_blocks)]
        return sum(parts[1:], start=parts[0])

    def _block_of_small(self, k: int, a: Tensor, b: Tensor) -> Tensor:
        """Multiply with the channels last, all of them at once, by a loop over the inner index."""
        n = self.size
        first = (self.constant_like(f"lift1_{k}", a) @ a).unflatten(1, (n, n, 1)).unbind(2)
        second = (self.constant_like(f"lift2_{k}", b) @ b).unflatten(1, (1, n, n)).unbind(2)
        total = first[0] * second[0]
        for column, row in zip(first[1:], second[1:]):
            total = torch.addcmul(total, column, row)
        return self.constant_like(f"project_{k}", a) @ total.flatten(1, 2)

    def _block_of_large(self, k: int, a: Tensor, b: Tensor) -> Tensor:
        """Multiply with the matrices last, by matrix products."""
        n = self.size
        first = (a.transpose(1, 2) @ self.constant_like(f"lift1_{k}", a).T).unflatten(2, (n, n))
        second = (b.transpose(1, 2) @ self.constant_like(f"lift2_{k}", b).T).unflatten(2, (n, n))
        # One second matrix for all channels: the first ones on top of each other are one tall matrix.
        shared = b.shape[2] == 1
        total = (first.flatten(1, 2) @ second[:, 0]).unflatten(1, (-1, n)) if shared else first @ second
        return (total.flatten(2) @ self.constant_like(f"project_{k}", a).T).transpose(1, 2)

    def _lifts(self, side: list[Component]) -> Tensor:
        """Return ``(num_blocks, size², Σ (2l + 1))``: the matrices of a side's coefficients."""
        if not side:
            return torch.zeros(self.num_blocks, self.size**2, 0, dtype=torch.float64)
        return torch.cat([self._lift(c.ir).flatten(1, 2) for c in side], dim=2)

    def _lift(self, ir: Irrep) -> Tensor:
        """Return ``(num_blocks, size, size, 2l + 1)``: the matrices of an irrep, zero if it has none."""
        lift = torch.zeros(self.num_blocks, self.size, self.size, ir.dim, dtype=torch.float64)
        ends = [0]
        for v in self.space:
            ends.append(ends[-1] + v.dim)
        for vi, (i0, i1) in zip(self.space, pairwise(ends)):
            for vj, (j0, j1) in zip(self.space, pairwise(ends)):
                if abs(vi.l - vj.l) <= ir.l <= vi.l + vj.l and (self.num_blocks == 2 or vi.p * vj.p == ir.p):
                    lift[:, i0:i1, j0:j1] = wigner_3j(vi.l, vj.l, ir.l) * ir.dim**0.5
        if self.num_blocks == 2:
            lift[1] *= ir.p
        return lift


def _sufficient_degree(space: Space, first: Irreps, second: Irreps, out: Irreps) -> int:
    """Return the papers' degree of the space, or the next one that can hold every irrep."""
    tops = [max((ir.l for _, ir in irreps), default=0) for irreps in (first, second, out)]
    if space == "spin":
        return ceil(max(tops) / 2)
    # An irrep of the other parity needs two degrees with an odd sum of all three, l + 1 at least.
    needed = [l + (p != (-1) ** l) for irreps in (first, second, out) for _, (l, p) in irreps]
    return max(ceil((tops[0] + tops[1]) / 2), *(ceil(n / 2) for n in needed), 0)
