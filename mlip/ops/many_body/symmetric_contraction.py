"""The symmetric contraction of MACE: every equivariant polynomial of the features, with a free weight each."""

from itertools import pairwise

import torch
from e3nn.o3 import Irrep, Irreps
from torch import Tensor

from mlip.core.errors import ShapeError
from mlip.ops.kernels.choice import Kernels, built, kernel_for
from mlip.ops.kernels.cpp import SCALARS
from mlip.ops.kernels.polynomial import polynomial, prepare
from mlip.ops.kernels.polynomial_source import polynomial_source
from mlip.ops.many_body.base import ManyBodyProduct, Term
from mlip.ops.many_body.sparse_polynomials import sparse_polynomials
from mlip.ops.many_body.symmetric_basis import SymmetricBasis, multisets, rank, symmetric_bases
from mlip.ops.segment import first_edges

ENOUGH = 300_000
"""Rows times monomials times channels from which ``kernels=auto`` builds a kernel: it takes some seconds."""

LARGEST_FORM = 3000
"""Monomials beyond which ``auto`` builds none: the compiler would take a minute."""


class SymmetricContraction(ManyBodyProduct):
    """All equivariant polynomials of degree 1..correlation, each with a weight (arXiv 2206.07697, eq. 11).

    The basis is the one of :func:`~mlip.ops.many_body.symmetric_basis.symmetric_bases`: minimal and orthonormal,
    where MACE's own coupling tensors are linearly dependent once they are contracted with equal features (for
    lmax = 3, ν = 3 into a scalar there are 23 couplings and 8 polynomials). Both span the same polynomials.

    Evaluation: the basis is contracted with the weights first, once for each set of weights, which gives one
    polynomial for each output component and channel. With a constant one as the last variable all degrees are
    one homogeneous polynomial, ``Σ_k x_k Σ_p W_kp m_p``, with the monomials m_p of degree ν - 1 whose variables
    are not before k. The inner sum is a matrix product; this took less than half the time of writing down all
    monomials of degree ν. Rows with weights of their own are possible, but then the basis is contracted for each
    row: give sets of weights and an index wherever rows share them.

    On a CPU a generated kernel does the same with the nonzero coefficients alone, see :mod:`mlip.ops.kernels`.
    """

    operator = "symmetric_contraction"
    has_kernels = True
    kernels: Kernels = "auto"

    def build(self, wanted: list[Irrep]) -> list[Term]:
        single = Irreps([(1, ir) for _, ir in self.irreps_in])
        bases = [b for b in symmetric_bases(single, wanted, self.correlation) if len(b.coefficients)]
        self._lay_out_monomials(single.dim)
        self._register_bases(bases, single.dim)
        self.form, matrices = sparse_polynomials(bases, single.dim, self.num_channels)
        for number, matrix in enumerate(matrices):
            self.register_constant(f"sparse_basis_{number}", matrix)
        return [Term(basis.nu, basis.ir, len(basis.coefficients)) for basis in bases]

    def _lay_out_monomials(self, n: int) -> None:
        """Set up how monomials of degree ν - 1 in n variables and one are made, and the groups of k.

        Monomials are in lexicographic order, so that those of variables from k on are the last ones. A group of
        neighbouring k shares the monomials of its first: a rectangle with few zeros.
        """
        for size in range(2, self.correlation):
            sets = multisets(n + 1, size)
            self.register_constant(f"head_{size}", sets[:, 0], keep_dtype=True)
            self.register_constant(f"tail_{size}", rank(sets[:, 1:], n + 1), keep_dtype=True)
        count = max(1, n // 4) if self.correlation > 1 else 1
        self.bounds = [round(n * g / count) for g in range(count + 1)]
        left = multisets(n + 1, self.correlation - 1)
        first = left[:, 0] if self.correlation > 1 else torch.tensor([n])
        self.starts = [int((first < bound).sum()) for bound in self.bounds[:-1]]

    def _register_bases(self, bases: list[SymmetricBasis], n: int) -> None:
        """Write the coefficients of all degrees as ``(polynomials, k, 2l + 1, monomials)`` for each group of k."""
        left = multisets(n + 1, self.correlation - 1)
        for number, ir in enumerate(sorted({basis.ir for basis in bases})):
            mine = [basis for basis in bases if basis.ir == ir]
            total = sum(len(basis.coefficients) for basis in mine)
            full = torch.zeros(total, n, ir.dim, len(left), dtype=torch.float64)
            start = 0
            for basis in mine:
                sets = multisets(n, basis.nu)
                rest = torch.full((len(sets), self.correlation), n)
                rest[:, : basis.nu] = sets
                rows = slice(start, start + len(basis.coefficients))
                where = rank(rest[:, 1:], n + 1) if self.correlation > 1 else torch.zeros(len(sets), dtype=torch.long)
                full[rows, sets[:, 0], :, where] = basis.coefficients.permute(2, 0, 1) * total**-0.5
                start = rows.stop
            for g, (low, high) in enumerate(pairwise(self.bounds)):
                self.register_constant(f"basis_{number}_{g}", full[:, low:high, :, self.starts[g] :].flatten(1))

    def evaluate(self, x: Tensor, weight: Tensor, index: Tensor | None) -> Tensor:
        if not len(x):
            # No rows, but a result that knows where it comes from.
            return (x.sum() + weight.sum()).expand(0, self.irreps_out.dim)
        if weight.dtype != x.dtype:
            raise ShapeError(f"Features and weights must have one dtype, got {x.dtype} and {weight.dtype}.")
        key = self.kernel_key(x, len(x))
        if weight.dim() == 1:
            if key is None:
                return self._contract(x, weight)
            every = torch.arange(len(x), device=x.device)
            return self._run(key, x, weight[None], every, torch.tensor([0, len(x)], device=x.device))
        if index is None:
            return torch.cat([self._contract(x[k : k + 1], own) for k, own in enumerate(weight)])
        # Which values an index has cannot be traced.
        if not torch.compiler.is_compiling():
            low, high = int(index.min()), int(index.max())
            if low < 0:
                raise ShapeError(f"The index must not be negative, got {low}.")
            if high >= len(weight):
                raise ShapeError(f"The index goes up to {high}, but there are {len(weight)} sets of weights.")
        order = torch.argsort(index, stable=True)
        if key is not None:
            return self._run(key, x, weight, order, first_edges(index[order], len(weight)))
        counts = torch.bincount(index, minlength=len(weight))
        parts = zip(x[order].split(counts.tolist()), weight.unbind())
        result = torch.cat([self._contract(part, own) for part, own in parts if len(part)])
        return result[torch.argsort(order)]

    def kernel_key(self, like: Tensor, num_rows: int | None = None) -> str | None:
        """Return the key of the generated kernel for features like these, None for plain torch.

        Args:
            like: for dtype and device.
            num_rows: of a call; None: many.

        Raises:
            ConfigError: a kernel is demanded and there can be none.
        """
        return kernel_for(self, like, lambda: self._find_kernel(like, num_rows))

    def _find_kernel(self, like: Tensor, num_rows: int | None) -> str | None:
        small = num_rows is not None and num_rows * len(self.form.monomials) * self.num_channels < ENOUGH
        if self.kernels == "auto" and (small or len(self.form.monomials) > LARGEST_FORM):
            return None
        reason = None
        if like.device.type != "cpu":
            reason = f"there are kernels of the symmetric contraction for the CPU only, not for {like.device.type}"
        elif like.dtype not in SCALARS:
            reason = f"there are kernels for float32 and float64, not for {like.dtype}"
        return built(self.kernels, lambda: prepare(self.form, like.dtype), reason)

    def kernel_sources(self, dtype: torch.dtype) -> list[str]:
        if self.kernels == "off" or (self.kernels == "auto" and len(self.form.monomials) > LARGEST_FORM):
            return []
        return [polynomial_source(self.form, SCALARS[dtype])]

    def _run(self, key: str, x: Tensor, weight: Tensor, order: Tensor, starts: Tensor) -> Tensor:
        """Have the kernel evaluate rows, those of each set of weights from ``starts`` on in ``order``."""
        blocks = weight.unflatten(1, (-1, self.num_channels)).split([term.count for term in self.terms], dim=1)
        polynomials = [
            torch.cat([block for block, term in zip(blocks, self.terms) if term.ir == ir], dim=1)
            for _, ir in self.irreps_out
        ]
        monomials = [self.constant_like(f"sparse_basis_{k}", weight) @ own for k, own in enumerate(polynomials)]
        inputs = x.unflatten(1, (-1, self.num_channels))
        return polynomial(inputs, torch.cat(monomials, dim=1), order, starts, key).flatten(1)

    def _contract(self, x: Tensor, weight: Tensor) -> Tensor:
        """Evaluate rows that share one set of weights."""
        rows, channels = len(x), self.num_channels
        variables = x.view(rows, -1, channels).permute(2, 1, 0).contiguous()
        monomials = self._monomials(torch.cat([variables, torch.ones_like(variables[:, :1])], dim=1))
        # One slice a group of k, not one for each irrep: the gradient of a slice is padded with zeros.
        groups = [monomials[:, start:] for start in self.starts]
        blocks = []
        for number, own in enumerate(self._weights_by_irrep(weight)):
            sums = []
            for g, part in enumerate(groups):
                polynomial = own.T @ self.constant_like(f"basis_{number}_{g}", weight)
                sums.append(torch.bmm(polynomial.view(channels, -1, part.shape[1]), part))
            sums = torch.cat(sums, dim=1).view(channels, variables.shape[1], -1, rows)
            blocks.append((sums * variables.unsqueeze(2)).sum(dim=1))
        return torch.cat(blocks, dim=1).permute(2, 1, 0).reshape(rows, -1)

    def _monomials(self, variables: Tensor) -> Tensor:
        """Return all monomials of degree correlation - 1, ``(channels, monomials, rows)``."""
        if self.correlation == 1:
            return variables[:, -1:]
        monomials = variables
        for size in range(2, self.correlation):
            head, tail = getattr(self, f"head_{size}"), getattr(self, f"tail_{size}")
            monomials = variables.index_select(1, head) * monomials.index_select(1, tail)
        return monomials

    def _weights_by_irrep(self, weight: Tensor) -> list[Tensor]:
        """Return the weights of all polynomials into each irrep, ``(polynomials, channels)``."""
        blocks = weight.split([term.count * self.num_channels for term in self.terms])
        return [
            torch.cat([block.view(-1, self.num_channels) for block, term in zip(blocks, self.terms) if term.ir == ir])
            for _, ir in self.irreps_out
        ]
