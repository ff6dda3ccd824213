"""Powers of functions on the sphere: what the Gaunt backends of the many-body product share."""

from abc import abstractmethod
from math import comb, factorial, prod

import numpy as np
import torch
from e3nn.o3 import Irrep
from torch import Tensor

from mlip.core.errors import ConfigError
from mlip.ops.many_body.base import ManyBodyProduct, Term


class GauntManyBody(ManyBodyProduct):
    """``out_l = N_l^-1/2 Σ_ν w_νl s_νl P_l[f^ν]``, ``f(r̂) = Σ x_lm Y_lm(r̂) / sqrt(dim)`` (arXiv 2401.10216).

    ``P_l`` takes the coefficients of degree l of a function (component normalisation, dim = Σ (2l + 1)). There is
    one polynomial for each ν and l, that of ν = 1 being x itself, and the constants ``s_νl`` give each of them
    unit variance (:func:`power_variance`). Only parities (-1)^l exist, and only the polynomials that powers of
    one function contain: for lmax = 3, ν = 3 into a scalar 1 of 8.

    A backend writes :meth:`sample`: points at which f is known, and the projections of a function of known degree
    from its values there. Powers are then taken point by point, those of degree ν as the product of two of half
    the degree (divide and conquer). All powers share the points of the highest: separate ones for each, as a
    growing convolution has, take the values of f once more for each power, which costs more than they save.
    Antipodal halving (even and odd part of f on half the points) was measured to win nothing here, since the
    powers need both signs.
    """

    operator = "gaunt"

    @abstractmethod
    def sample(self, lmax_in: int, lmax_out: int, nu: int) -> tuple[Tensor, Tensor]:
        """Choose points that are exact for a function of degree ``nu · lmax_in`` and outputs up to ``lmax_out``.

        Returns:
            ``(points, (lmax_in + 1)²)`` values of harmonics (component normalisation) and
            ``((lmax_out + 1)², points)`` projections on them, float64.
        """

    def build(self, wanted: list[Irrep]) -> list[Term]:
        other = [str(ir) for _, ir in self.irreps_in if ir.p != (-1) ** ir.l]
        if other:
            raise ConfigError(
                f"{type(self).__name__} reads features as functions on the sphere and has none for "
                f"{', '.join(other)}: parities must be (-1)^l; symmetric_contraction takes any irrep."
            )
        degrees = [ir.l for _, ir in self.irreps_in]
        wanted = [ir for ir in wanted if ir.p == (-1) ** ir.l]
        variance = {
            (nu, ir): power_variance(degrees, nu, ir.l) for nu in range(1, self.correlation + 1) for ir in wanted
        }
        terms = [Term(nu, ir, 1) for (nu, ir), value in variance.items() if value > 1e-12]
        if terms:
            self._register(terms, degrees, {(term.nu, term.ir): variance[term.nu, term.ir] for term in terms})
        return terms

    def _register(self, terms: list[Term], degrees: list[int], variance: dict[tuple[int, Irrep], float]) -> None:
        reached = sorted({term.ir for term in terms})
        lmax_in, lmax_out = max(degrees), max(ir.l for ir in reached)
        values, projections = self.sample(lmax_in, lmax_out, self.correlation)
        columns = torch.cat([torch.arange(l * l, (l + 1) ** 2) for l in degrees])
        # f of unit variance: its powers stay of order one.
        self.register_constant("values", values[:, columns] / len(columns) ** 0.5)
        starts = {ir: sum(other.dim for other in reached[:k]) for k, ir in enumerate(reached)}
        self.components_out = sum(ir.dim for ir in reached)
        self.sizes: list[int] = []
        for nu in range(1, self.correlation + 1):
            mine = [term.ir for term in terms if term.nu == nu]
            scales = {ir: (sum(t.ir == ir for t in terms) * variance[nu, ir]) ** -0.5 for ir in mine}
            if nu == 1:
                # The coefficients of f are known.
                rows = [coefficients_of_input(degrees, ir.l) * scales[ir] for ir in mine]
            else:
                rows = [projections[ir.l**2 : (ir.l + 1) ** 2] * scales[ir] for ir in mine]
            self.sizes.append(sum(ir.dim for ir in mine))
            if mine:
                self.register_constant(f"project_{nu}", torch.cat(rows).contiguous())
                target = torch.cat([torch.arange(starts[ir], starts[ir] + ir.dim) for ir in mine])
                self.register_constant(f"target_{nu}", target, keep_dtype=True)
        spread = torch.arange(len(terms)).repeat_interleave(torch.tensor([term.ir.dim for term in terms]))
        self.register_constant("spread", spread, keep_dtype=True)

    def evaluate(self, x: Tensor, weight: Tensor, index: Tensor | None) -> Tensor:
        coefficients = x.unflatten(1, (-1, self.num_channels))
        weight = weight.unsqueeze(0) if weight.dim() == 1 else weight
        if index is not None:
            weight = weight.index_select(0, index)
        weights = weight.unflatten(1, (len(self.terms), self.num_channels)).index_select(1, self.spread)
        total = None
        for nu, (own, size) in enumerate(zip(weights.split(self.sizes, dim=1), self.sizes), start=1):
            if nu == 1:
                powers = {1: coefficients}
            elif nu == 2:
                powers = {1: self.constant_like("values", x) @ coefficients}
                powers[2] = powers[1] * powers[1]
            else:
                powers[nu] = powers[nu // 2] * powers[nu - nu // 2]
            if not size:
                continue
            part = (self.constant_like(f"project_{nu}", x) @ powers[nu]) * own
            if size < self.components_out:
                zeros = part.new_zeros(len(x), self.components_out, self.num_channels)
                part = zeros.index_add(1, getattr(self, f"target_{nu}"), part)
            total = part if total is None else total + part
        return total.flatten(1)


def coefficients_of_input(degrees: list[int], degree: int) -> Tensor:
    """Return the matrix from x to the coefficients of one degree of f, ``(2l + 1, Σ (2l + 1))``."""
    dims = [2 * l + 1 for l in degrees]
    start = sum(dims[: degrees.index(degree)])
    return torch.eye(sum(dims), dtype=torch.float64)[start : start + 2 * degree + 1] / sum(dims) ** 0.5


def power_variance(degrees: list[int], nu: int, degree: int) -> float:
    """Return the variance of a coefficient of ``f^ν`` for normal x, where f itself has unit variance; exact.

    f is a Gaussian field with correlation ``K(t) = Σ (2l + 1) P_l(t) / Σ (2l + 1)``. By Wick's theorem
    ``E[f(r)^ν f(r')^ν] = Σ_k k! (C(ν, k) (ν - k - 1)!!)² K^k`` over k = ν, ν - 2, …, and the variance of a
    coefficient of degree l is ``½ ∫ … P_l(t) dt``, a polynomial that Gauss–Legendre nodes integrate exactly.
    """
    nodes, weights = np.polynomial.legendre.leggauss((nu * max(degrees) + degree) // 2 + 1)
    legendre = np.polynomial.legendre.legvander(nodes, max(*degrees, degree))
    dims = np.zeros(legendre.shape[1])
    dims[degrees] = [2 * l + 1 for l in degrees]
    correlation = legendre @ dims / dims.sum()
    moments = sum(
        factorial(k) * (comb(nu, k) * prod(range(1, nu - k, 2))) ** 2 * correlation**k for k in range(nu, -1, -2)
    )
    return float((weights * moments * legendre[:, degree]).sum() / 2)
