"""Clebsch–Gordan with batched matrix products: contract the filter first, then one product a degree."""

from collections.abc import Iterator
from itertools import groupby

import torch
from e3nn.o3 import Irreps, wigner_3j
from torch import Tensor

from mlip.ops.layout import split_blocks
from mlip.ops.segment import segment_sum
from mlip.ops.tensor_product.base import Expressivity, Mode, Path, TensorProduct
from mlip.ops.tensor_product.clebsch_gordan import path_expressivity


class ClebschGordanDense(TensorProduct):
    """The same operator as :class:`ClebschGordan`, with the same weights in the same order.

    For each degree l1 of the features the 3j symbols of all its paths are one constant

        T[m2, m3, m1] = sqrt(2 l3 + 1) · 3j(l1 m1, l2 m2, l3 m3),

    so that ``Y @ T`` is a small matrix (paths' components, 2 l1 + 1) for every row, and the product with the
    channels is one batched matrix product. Path weights multiply its rows.
    """

    def __init__(self, irreps_in1: Irreps, irreps_in2: Irreps, irreps_out: Irreps, mode: Mode = "uvu") -> None:
        super().__init__(irreps_in1, irreps_in2, irreps_out, mode)
        self.irreps_out = Irreps([(self.irreps_in1[path.in1].mul, path.ir_out) for path in self.paths])
        self.weight_numel = sum(mul for mul, _ in self.irreps_out)
        self.groups: list[tuple[int, list[int]]] = []
        for in1, members in groupby(self.paths, key=lambda path: path.in1):
            group = list(members)
            self.register_constant(f"coupling_{in1}", self._coupling(group))
            self.groups.append((in1, [path.ir_out.dim for path in group]))

    def _coupling(self, paths: list[Path]) -> Tensor:
        """Return ``(irreps_in2.dim, Σ(2 l3 + 1) · (2 l1 + 1))`` for the paths of one degree l1."""
        slices = self.irreps_in2.slices()
        columns = []
        for path in paths:
            ir1, ir2 = self.irreps_in1[path.in1].ir, self.irreps_in2[path.in2].ir
            symbol = wigner_3j(ir1.l, ir2.l, path.ir_out.l, dtype=torch.float64) * path.ir_out.dim**0.5
            full = symbol.new_zeros(self.irreps_in2.dim, path.ir_out.dim, ir1.dim)
            full[slices[path.in2]] = symbol.permute(1, 2, 0)
            columns.append(full)
        return torch.cat(columns, dim=1).flatten(1)

    def forward(self, x1: Tensor, x2: Tensor, weight: Tensor) -> Tensor:
        blocks = split_blocks(x1, self.irreps_in1)
        return torch.cat(list(self._messages(blocks, x2, weight)), dim=1)

    def convolve(
        self, x1: Tensor, x2: Tensor, weight: Tensor, senders: Tensor, receivers: Tensor, num_nodes: int
    ) -> Tensor:
        # Summing degree by degree leaves the concatenation to the nodes, which are far fewer than the edges.
        blocks = [block.index_select(0, senders) for block in split_blocks(x1, self.irreps_in1)]
        sums = [segment_sum(message, receivers, num_nodes) for message in self._messages(blocks, x2, weight)]
        return torch.cat(sums, dim=1)

    def _messages(self, blocks: list[Tensor], x2: Tensor, weight: Tensor) -> Iterator[Tensor]:
        """Yield the messages ``(rows, dim)`` path by path, in the order of ``irreps_out``."""
        sizes = [len(dims) * self.irreps_in1[in1].mul for in1, dims in self.groups]
        for (in1, dims), weights in zip(self.groups, weight.split(sizes, dim=1)):
            mul, ir = self.irreps_in1[in1]
            matrix = (x2 @ self.constant_like(f"coupling_{in1}", x2)).unflatten(1, (sum(dims), ir.dim))
            # With one component the matrix product is an outer product, which broadcasting does faster.
            coupled = matrix * blocks[in1] if ir.dim == 1 else torch.bmm(matrix, blocks[in1])
            path_weights = weights.unflatten(1, (len(dims), mul)).split(1, dim=1)
            for part, path_weight in zip(coupled.split(dims, dim=1), path_weights):
                yield (part * path_weight).flatten(1)

    @property
    def expressivity(self) -> Expressivity:
        return path_expressivity(self)
