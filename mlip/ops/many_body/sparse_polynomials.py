"""The nonzero coefficients of a basis of polynomials: what a generated kernel of a many-body product multiplies."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mlip.ops.kernels.polynomial_form import Monomial, PolynomialForm
from mlip.ops.many_body.symmetric_basis import SymmetricBasis, multisets

NEGLIGIBLE = 1e-12
"""Coefficients of this size, of polynomials of unit norm, are rounding."""


def sparse_polynomials(
    bases: Sequence[SymmetricBasis], num_inputs: int, num_channels: int
) -> tuple[PolynomialForm, list[Tensor]]:
    """Return the monomials that occur, and what makes their weights of those of the polynomials.

    Args:
        bases: by irrep, all degrees of an irrep together.
        num_inputs: variables.
        num_channels: of everything.

    Returns:
        The form, outputs being the components of the irreps one after the other, and for each irrep a matrix
        ``(monomials, polynomials)``, float64; its rows one after the other are the monomials of the form.
    """
    monomials: list[Monomial] = []
    matrices, first = [], 0
    for ir in sorted({basis.ir for basis in bases}):
        mine = [basis for basis in bases if basis.ir == ir]
        total = sum(len(basis.coefficients) for basis in mine)
        rows: dict[Monomial, dict[int, float]] = {}
        start = 0
        for basis in mine:
            sets = [tuple(variables) for variables in multisets(num_inputs, basis.nu).tolist()]
            places = (basis.coefficients.abs() > NEGLIGIBLE).nonzero().tolist()
            for k, m, place in places:
                row = rows.setdefault((first + m, sets[place]), {})
                row[start + k] = float(basis.coefficients[k, m, place])
            start += len(basis.coefficients)
        matrix = torch.zeros(len(rows), total, dtype=torch.float64)
        for number, monomial in enumerate(sorted(rows)):
            for k, value in rows[monomial].items():
                matrix[number, k] = value
        monomials += sorted(rows)
        matrices.append(matrix * total**-0.5)
        first += ir.dim
    return PolynomialForm(num_inputs, first, num_channels, tuple(monomials)), matrices
