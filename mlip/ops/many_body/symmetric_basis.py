"""All equivariant polynomials of one channel of features: a basis of the symmetric maps ``Sym^ν(V) -> L``.

A symmetric map is stored as a homogeneous polynomial: one coefficient for each monomial of degree ν, that is for
each multiset of ν components. These maps are the ones that MACE's symmetric contraction uses (arXiv 2206.07697,
eq. 11); MACE finds them by symmetrising coupling tensors with n^ν entries.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import comb, factorial, prod

import torch
from e3nn.o3 import Irrep, Irreps
from torch import Tensor

from mlip.core.errors import ConfigError
from mlip.ops.wigner import wigner_3j

INDEPENDENT = 1e-6
"""A polynomial of unit norm with less than this outside the span of those before it is in their span.

Measured for lmax = 3, ν = 4 and lmax = 5, ν = 3: independent ones have more than 0.2, others less than 1e-15.
"""

LARGEST_BASIS = 25_000
"""Monomials of the highest degree: seconds to build and a few GB; lmax = 6 for ν = 3, lmax = 4 for ν = 4."""


@dataclass(frozen=True)
class SymmetricBasis:
    """A basis of the equivariant polynomials of one degree into one irrep.

    Attributes:
        nu: degree of the polynomials.
        ir: the irrep.
        coefficients: ``(count, 2l + 1, monomials)``, float64; monomials in the order of :func:`multisets`.
    """

    nu: int
    ir: Irrep
    coefficients: Tensor


@lru_cache(maxsize=16)
def multisets(num_variables: int, size: int) -> Tensor:
    """Return all multisets of variables in lexicographic order, ``(multisets, size)``, each ascending.

    Do not change the result in place: it is shared.
    """
    if size == 0:
        return torch.zeros(1, 0, dtype=torch.long)
    return torch.combinations(torch.arange(num_variables), size, with_replacement=True)


def rank(sets: Tensor, num_variables: int) -> Tensor:
    """Return the position of each multiset ``(..., size)``, in any inner order, in :func:`multisets`."""
    size = sets.shape[-1]
    digits = num_variables ** torch.arange(size - 1, -1, -1)
    keys = (multisets(num_variables, size) * digits).sum(dim=1)
    return torch.searchsorted(keys, (sets.sort(dim=-1).values * digits).sum(dim=-1))


def symmetric_bases(irreps: Irreps, wanted: list[Irrep], correlation: int) -> list[SymmetricBasis]:
    """Return bases for every degree 1..correlation and every wanted irrep, ordered by degree and irrep.

    Every equivariant polynomial of degree ν is a sum of couplings of one of degree ν - 1 (of some irrep) with
    x_l. The candidates are made in this way, in a fixed order, and one that depends on those before it is
    dropped. The rest is orthonormalised, also in order (Gram–Schmidt): ``E[B_km(x) B_k'm(x)] = δ_kk'`` for every
    component m, where the components of x are independent normal numbers of unit variance. No eigenvectors are
    involved, so that weights mean the same on every machine.

    Args:
        irreps: V, each irrep once with multiplicity 1, any parity.
        wanted: irreps L.
        correlation: highest degree.

    Raises:
        ConfigError: more than :data:`LARGEST_BASIS` monomials of the highest degree.
    """
    monomials = comb(irreps.dim + correlation - 1, correlation)
    if monomials > LARGEST_BASIS:
        raise ConfigError(
            f"The polynomials of degree {correlation} of {irreps} have {monomials} monomials, more than "
            f"{LARGEST_BASIS}: take fewer degrees, a lower correlation, or gaunt_grid."
        )
    found = []
    below = _linear(irreps)
    for nu in range(1, correlation + 1):
        if nu > 1:
            # Irreps of higher degree cannot come back to a wanted one.
            largest = max(ir.l for ir in wanted) + irreps.lmax * (correlation - nu)
            kept = set(wanted) if nu == correlation else {Irrep(l, p) for l in range(largest + 1) for p in (1, -1)}
            candidates = _couple(below, irreps, kept)
            bases = [_reduce(nu, ir, candidates[ir], irreps.dim) for ir in sorted(candidates)]
            below = [basis for basis in bases if len(basis.coefficients)]
        found += [basis for basis in below if basis.ir in wanted]
    return found


def _linear(irreps: Irreps) -> list[SymmetricBasis]:
    """Return the polynomials of degree 1: the components themselves."""
    eye = torch.eye(irreps.dim, dtype=torch.float64)
    bases = [SymmetricBasis(1, ir, eye[None, columns]) for (_, ir), columns in zip(irreps, irreps.slices())]
    return sorted(bases, key=lambda basis: basis.ir)


def _couple(below: list[SymmetricBasis], irreps: Irreps, kept: set[Irrep]) -> dict[Irrep, list[Tensor]]:
    """Return the couplings of polynomials with x_l by irrep, each ``(count, 2l + 1, monomials)``."""
    n, nu = irreps.dim, below[0].nu + 1
    lower = multisets(n, nu - 1)
    # Position of monomial times component.
    table = torch.stack([rank(torch.cat([lower, torch.full_like(lower[:, :1], i)], 1), n) for i in range(n)])
    monomials = comb(n + nu - 1, nu)
    candidates: dict[Irrep, list[Tensor]] = {}
    for basis in below:
        by_monomial = basis.coefficients.permute(2, 0, 1)
        for (_, ir), columns in zip(irreps, irreps.slices()):
            for ir_out in basis.ir * ir:
                if ir_out not in kept:
                    continue
                symbol = wigner_3j(basis.ir.l, ir.l, ir_out.l)
                product = torch.zeros(monomials, by_monomial.shape[1], ir_out.dim, dtype=torch.float64)
                for m, i in enumerate(range(columns.start, columns.stop)):
                    product[table[i]] += by_monomial @ symbol[:, m]
                candidates.setdefault(ir_out, []).append(product.permute(1, 2, 0))
    return candidates


def _reduce(nu: int, ir: Irrep, candidates: list[Tensor], num_variables: int) -> SymmetricBasis:
    """Keep the independent candidates and orthonormalise them."""
    # All components of an equivariant map have the same inner products: one is enough (Schur's lemma).
    vectors = [gaussian_vectors(group[:, 0], nu, num_variables) for group in candidates]
    span = torch.zeros(0, vectors[0].shape[1], dtype=torch.float64)
    kept: list[Tensor] = []
    for group, embedded in zip(candidates, vectors):
        # Candidates are of order one; an antisymmetric coupling is zero up to rounding, which is no direction.
        norms = embedded.norm(dim=1)
        rest = torch.where(norms > INDEPENDENT, 1 / norms, 0.0)[:, None] * embedded
        for _ in range(2):
            rest = rest - (rest @ span.T) @ span
        for k in range(len(rest)):
            size = rest[k].norm()
            if size < INDEPENDENT:
                continue
            direction = rest[k] / size
            direction = direction - (direction @ span.T) @ span
            direction = direction / direction.norm()
            span = torch.cat([span, direction[None]])
            rest = rest - (rest @ direction)[:, None] * direction
            kept.append(group[k] / norms[k])
    if not kept:
        return SymmetricBasis(nu, ir, candidates[0][:0])
    basis = torch.stack(kept)
    # Twice: the first pass leaves the rounding of the condition number squared.
    for _ in range(2):
        embedded = gaussian_vectors(basis[:, 0], nu, num_variables)
        factor = torch.linalg.cholesky(embedded @ embedded.T)
        basis = torch.linalg.solve_triangular(factor, basis.flatten(1), upper=False).view_as(basis)
    return SymmetricBasis(nu, ir, torch.where(basis.abs() < 1e-13 * basis.abs().max(), 0.0, basis))


def gaussian_vectors(coefficients: Tensor, nu: int, num_variables: int) -> Tensor:
    """Map polynomials to vectors whose dot product is ``E[p(x) q(x)]`` over independent normal components.

    Wick's theorem: with the symmetric tensors P, Q of the polynomials,
    ``E[p q] = Σ_j k! (C(ν, k) (2j - 1)!!)² <tr^j P, tr^j Q>``, k = ν - 2j, where a trace is the Laplacian over
    its number of pairs. Exact, without quadrature.

    Args:
        coefficients: ``(polynomials, monomials)`` of degree ν.
    """
    parts, size = [], nu
    for j in range(nu // 2 + 1):
        if j:
            coefficients = _trace(coefficients, size, num_variables)
            size -= 2
        pairings = factorial(size) * (comb(nu, size) * prod(range(1, 2 * j, 2))) ** 2
        arrangements = _arrangements(num_variables, size)
        parts.append(coefficients * (pairings / arrangements).sqrt())
    return torch.cat(parts, dim=1)


@lru_cache(maxsize=16)
def _arrangements(num_variables: int, size: int) -> Tensor:
    """Return in how many orders each multiset can be written."""
    sets = multisets(num_variables, size)
    counts = (sets[:, :, None] == sets[:, None, :]).sum(dim=2).double()
    # Π a! over distinct variables = Π over positions of the number of equal ones up to there.
    upto = torch.tril(torch.ones(size, size)).bool()
    repeats = ((sets[:, :, None] == sets[:, None, :]) & upto).sum(dim=2).double() if size else counts
    return factorial(size) / repeats.prod(dim=1)


def _trace(coefficients: Tensor, size: int, num_variables: int) -> Tensor:
    """Return the polynomials of degree ``size - 2`` of the tensors with two indices contracted."""
    raised, factors = _raised(num_variables, size)
    traced = coefficients.new_zeros(coefficients.shape[0], raised.shape[1])
    for where, factor in zip(raised, factors):
        traced += coefficients[:, where] * factor
    return traced / (size * (size - 1))


@lru_cache(maxsize=16)
def _raised(num_variables: int, size: int) -> tuple[Tensor, Tensor]:
    """Return where each multiset of ``size - 2`` goes with two more of a variable, and what ∂² of that gives."""
    lower = multisets(num_variables, size - 2)
    powers = torch.stack([(lower == i).sum(dim=1) for i in range(num_variables)])
    raised = [torch.cat([lower, torch.full((len(lower), 2), i)], dim=1) for i in range(num_variables)]
    return torch.stack([rank(sets, num_variables) for sets in raised]), (powers + 2) * (powers + 1)
