"""The interface of many-body products: ``x, x⊗x, x⊗x⊗x, …`` of the features of one row, channel by channel."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from e3nn.o3 import Irrep, Irreps
from torch import Tensor

from mlip.core.errors import ConfigError, ShapeError
from mlip.ops.constants import ConstantsModule
from mlip.ops.kernels.choice import Kernels
from mlip.ops.tensor_product.base import LARGEST_DEGREE

LARGEST_CORRELATION = 4
"""Highest power of the features."""


@dataclass(frozen=True)
class Term:
    """The equivariant polynomials of one degree into one irrep.

    Attributes:
        nu: degree ν of the polynomials.
        ir: irrep that they transform as.
        count: how many there are; each has a free weight for every channel.
    """

    nu: int
    ir: Irrep
    count: int


class ManyBodyProduct(ConstantsModule, ABC):
    """``out_L = N_L^-1/2 Σ_ν Σ_k w_{νLk} B_{νLk}(x)`` with homogeneous equivariant polynomials B of degree ν.

    ν runs from 1 to ``correlation``; channels do not meet. Normalisation: for components of x that are
    independent normal numbers of unit variance every ``B_{νLk}`` has components of unit variance. ``N_L`` is the
    number of polynomials into L, so that the output has unit variance when the weights have.

    Weights are ordered by term (see ``terms``), inside a term by polynomial k and channel.

    Args:
        irreps_in: features, each irrep once, the same multiplicity C everywhere.
        irreps_out: the irreps wanted, multiplicity 1 or C (both mean C).
        correlation: highest ν, 1..4.

    Attributes:
        irreps_in: as given.
        irreps_out: C times each irrep that can be reached, what ``forward`` returns.
        num_channels: C.
        terms: the polynomials, ordered by ν and irrep.
        weight_numel: size of a set of weights.
        operator: the family of polynomials. Backends with the same operator give the same numbers.
        has_kernels: whether there are generated kernels for this backend.
        kernels: whether they are used, see :data:`mlip.ops.kernels.choice.Kernels`.

    Raises:
        ConfigError: irreps or a correlation that the backend cannot honour.
    """

    irreps_out: Irreps
    terms: list[Term]
    weight_numel: int
    operator: str
    has_kernels: bool = False
    kernels: Kernels = "off"

    def __init__(self, irreps_in: Irreps, irreps_out: Irreps, correlation: int) -> None:
        super().__init__()
        self.irreps_in, self.correlation = Irreps(irreps_in), correlation
        wanted = Irreps(irreps_out)
        self._check_options(wanted)
        self.num_channels = self.irreps_in[0].mul
        self.terms = [term for term in self.build(sorted({ir for _, ir in wanted})) if term.count]
        reached = sorted({term.ir for term in self.terms})
        if not reached:
            raise ConfigError(
                f"No product of up to {correlation} of {self.irreps_in} reaches {wanted}: check degrees and parities."
            )
        self.irreps_out = Irreps([(self.num_channels, ir) for ir in reached])
        self.weight_numel = self.num_channels * sum(term.count for term in self.terms)

    @abstractmethod
    def build(self, wanted: list[Irrep]) -> list[Term]:
        """Register the constants and return the terms, ordered by ν and irrep; those without entries are left out."""

    @abstractmethod
    def evaluate(self, x: Tensor, weight: Tensor, index: Tensor | None) -> Tensor:
        """Do what :meth:`forward` promises; the shapes have been checked."""

    def kernel_sources(self, dtype: torch.dtype) -> list[str]:
        """Return the C++ of all kernels that a backend may ask for on a CPU, to build it before."""
        return []

    def num_polynomials(self, ir: Irrep) -> int:
        """Return N_L, the number of polynomials of all degrees into an irrep."""
        return sum(term.count for term in self.terms if term.ir == ir)

    def forward(self, x: Tensor, weight: Tensor, index: Tensor | None = None) -> Tensor:
        """Evaluate row by row.

        Args:
            x: ``(rows, irreps_in.dim)``.
            weight: ``(weight_numel,)`` for all rows; ``(sets, weight_numel)`` with ``index``; or
                ``(rows, weight_numel)`` without.
            index: ``(rows,)``, the set of weights of each row, such as its species. Backends may use that rows
                share a set, so this is never slower than ``weight[index]``.

        Returns:
            ``(rows, irreps_out.dim)``.

        Raises:
            ShapeError: a tensor of another shape.
        """
        self._check_shapes(x, weight, index)
        return self.evaluate(x, weight, index)

    def _check_options(self, wanted: Irreps) -> None:
        name = type(self).__name__
        if type(self.correlation) is not int or self.correlation not in range(1, LARGEST_CORRELATION + 1):
            raise ConfigError(f"correlation must be 1 to {LARGEST_CORRELATION}, got {self.correlation!r}.")
        for irreps in (self.irreps_in, wanted):
            if not len(irreps) or any(mul < 1 for mul, _ in irreps):
                raise ConfigError(f"{name} needs irreps with entries, got '{irreps}'.")
        if len({ir for _, ir in self.irreps_in}) != len(self.irreps_in):
            raise ConfigError(f"{name} needs each irrep once, got {self.irreps_in}; simplify it first.")
        muls = {mul for mul, _ in self.irreps_in}
        if len(muls) > 1:
            raise ConfigError(
                f"{name} works channel by channel and needs the same multiplicity everywhere, got {self.irreps_in}."
            )
        if any(mul not in (1, *muls) for mul, _ in wanted):
            raise ConfigError(f"{name} returns {muls.pop()} channels of every irrep, got irreps_out {wanted}.")
        if max(self.irreps_in.lmax, wanted.lmax) > LARGEST_DEGREE:
            raise ConfigError(f"Degrees may go up to {LARGEST_DEGREE}, got {self.irreps_in} and {wanted}.")

    def _check_shapes(self, x: Tensor, weight: Tensor, index: Tensor | None) -> None:
        name = type(self).__name__
        if x.dim() != 2 or x.shape[1] != self.irreps_in.dim:
            raise ShapeError(
                f"{name} needs x of shape (rows, {self.irreps_in.dim}) for {self.irreps_in}, got {tuple(x.shape)}."
            )
        rows, n = x.shape[0], self.weight_numel
        if index is None:
            if tuple(weight.shape) not in ((n,), (rows, n)):
                raise ShapeError(
                    f"{name} needs weights of shape ({n},) or ({rows}, {n}) without an index, "
                    f"got {tuple(weight.shape)}."
                )
        elif weight.dim() != 2 or weight.shape[1] != n:
            raise ShapeError(f"{name} needs weights of shape (sets, {n}) with an index, got {tuple(weight.shape)}.")
        elif tuple(index.shape) != (rows,) or index.dtype != torch.long:
            raise ShapeError(
                f"{name} needs an index of shape ({rows},) and dtype torch.long, got {tuple(index.shape)} and "
                f"{index.dtype}."
            )
