"""Clebsch–Gordan with batched matrix products: contract the filter first, then one product a degree."""

from collections.abc import Iterator
from functools import cached_property
from itertools import groupby

import torch
from torch import Tensor

from mlip.ops.layout import join_blocks
from mlip.ops.tensor_product.clebsch_gordan_sparse import ClebschGordanSparse
from mlip.ops.tensor_product.evaluators import may_run_native
from mlip.ops.tensor_product.path_product import PathProduct


class ClebschGordanDense(PathProduct):
    """Dense constants, few large operations; the fast eager product with a single-channel filter.

    Single-channel second input: for each degree l1 the symbols of all its paths are one constant

        T[m2, (path, m3), m1] = c_p · 3j(l1 m1, l2 m2, l3 m3),

    so that ``x2 @ T`` is a small matrix for every row, and the product with the channels is one batched matrix
    product. Otherwise the outer product of each pair of degrees meets one matrix (all its m3) x (m1 m2).

    In mode ``uuu`` generated C++ over the nonzero coefficients does it instead, where it can be had and pays: see
    :mod:`mlip.ops.tensor_product.evaluators`.
    """

    def set_up(self) -> None:
        numbers = range(len(self.paths)) if self.mode == "uuu" else ()
        self.num_nonzeros = sum(int(self.symbol(number).count_nonzero()) for number in numbers)
        self.single_filter = self.mode != "uuu" and not self.pairs
        self.groups: list[tuple[int, int, list[int]]] = []
        numbered = list(enumerate(self.paths))
        if self.single_filter:
            for in1, members in groupby(numbered, key=lambda item: item[1].in1):
                group = list(members)
                self.register_constant(f"coupling_{in1}", self._filter_coupling([k for k, _ in group]))
                self.groups.append((in1, -1, [path.ir_out.dim for _, path in group]))
        elif not self.pairs:
            for (in1, in2), members in groupby(numbered, key=lambda item: (item[1].in1, item[1].in2)):
                group = list(members)
                symbols = torch.cat([self.symbol(k).flatten(0, 1) for k, _ in group], dim=1)
                self.register_constant(f"coupling_{in1}_{in2}", symbols.T)
                self.groups.append((in1, in2, [path.ir_out.dim for _, path in group]))

    def _filter_coupling(self, numbers: list[int]) -> Tensor:
        """Return ``(irreps_in2.dim, Σ(2 l3 + 1) · (2 l1 + 1))`` for the paths of one degree l1."""
        slices = self.irreps_in2.slices()
        columns = []
        for number in numbers:
            symbol = self.symbol(number)
            full = symbol.new_zeros(self.irreps_in2.dim, symbol.shape[2], symbol.shape[0])
            full[slices[self.paths[number].in2]] = symbol.permute(1, 2, 0)
            columns.append(full)
        return torch.cat(columns, dim=1).flatten(1)

    @cached_property
    def sparse(self) -> ClebschGordanSparse:
        """The same product over nonzero coefficients; no part of the state, as it has no tensors."""
        arguments = self.irreps_in1, self.irreps_in2, self.irreps_wanted, self.mode, self.weights, self.normalization
        return ClebschGordanSparse(*arguments, kept_paths=self.kept_paths)

    def multiply(self, x1: Tensor, x2: Tensor, weight: Tensor | None) -> Tensor:
        if self.mode == "uuu" and may_run_native(self.kernels, self.num_nonzeros, (x1, x2)):
            found = self._informed_sparse().multiply_natively(x1, x2, weight)
            if found is not None:
                return found
        return super().multiply(x1, x2, weight)

    def kernel_sources(self, dtype: torch.dtype) -> list[str]:
        if self.mode == "uuu" and may_run_native(self.kernels, self.num_nonzeros, ()):
            return self._informed_sparse().kernel_sources(dtype)
        return super().kernel_sources(dtype)

    def _informed_sparse(self) -> ClebschGordanSparse:
        # It is no submodule, to which the choices for a model would come by themselves.
        self.sparse.kernels, self.sparse.training = self.kernels, self.training
        return self.sparse

    def couple(self, blocks1: list[Tensor], blocks2: list[Tensor]) -> Iterator[Tensor]:
        if self.single_filter:
            yield from self._couple_filter(blocks1, join_blocks(blocks2))
            return
        for in1, in2, dims in self.groups:
            outer = (blocks1[in1].unsqueeze(2) * blocks2[in2].unsqueeze(1)).flatten(1, 2)
            yield from (self.constant_like(f"coupling_{in1}_{in2}", outer) @ outer).split(dims, dim=1)

    def _couple_filter(self, blocks1: list[Tensor], x2: Tensor) -> Iterator[Tensor]:
        for in1, _, dims in self.groups:
            ir = self.irreps_in1[in1].ir
            matrix = (x2 @ self.constant_like(f"coupling_{in1}", x2)).unflatten(1, (sum(dims), ir.dim))
            # With one component the matrix product is an outer product, which broadcasting does faster.
            coupled = matrix * blocks1[in1] if ir.dim == 1 else torch.bmm(matrix, blocks1[in1])
            yield from coupled.split(dims, dim=1)
