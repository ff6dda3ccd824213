"""Floating-point operations of generated kernels, from the coefficients that they are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mlip.ops.kernels import convolution, polynomial
from mlip.ops.kernels.form import ConvolutionForm, Factors
from mlip.ops.kernels.polynomial_form import Node, PolynomialForm


def edge_flops(form: ConvolutionForm) -> tuple[int, int]:
    """Return the operations of one edge in a convolution and in its gradients.

    Multiplications and additions each count one. With C the sums ``M = Σ c y`` of an edge (terms in all of them), and
    for each path and channel P places (m1, m3) of M that are not zero and D3, D1 components of the result and of x:

        forward    2 C + 2 P + 2 D3                  y to M, M x, times w and added
        backward   4 C + 6 P + 3 D3 + D1             y to M and back, w g to x and to M, M x, dot g to w
    """
    # As in the kernels, sums are shared within a block of x.
    forward = backward = 0
    for block in form.blocks:
        factors = Factors.of(block)
        terms = sum(len(one) for one in factors.sums)
        forward, backward = forward + 2 * terms, backward + 4 * terms
        for coupling, places in zip(block, factors.places):
            rows, columns = len({m3 for _, m3 in places}), len({m1 for m1, _ in places})
            forward += coupling.mul * (2 * len(places) + 2 * rows)
            backward += coupling.mul * (6 * len(places) + 3 * rows + columns)
    return forward, backward


def table_flops(form: ConvolutionForm) -> tuple[int, int]:
    """Return the operations of one edge that the weights from a table of cubics add, forward and backward."""
    # Three multiplications and additions a cubic; two for its slope and one for the sum over the weights.
    return 6 * form.weight_size, 12 * form.weight_size


def polynomial_flops(form: PolynomialForm, name: str, weights: bool) -> int:
    """Return the operations of one row in a polynomial, its gradients, or a tangent of either.

    For each channel, and each variable of the trees of the form: a multiplication and an addition forward; a product on
    the way down, a sum on the way up and one for the gradient of the variable backward. In a tangent a multiplication
    is three operations and an addition two. Gradients of the weights are an addition each.

    Args:
        form: of the polynomial.
        name: of the operator, with ``backward`` and ``tangent`` in it or not.
        weights: whether their gradients are wanted.
    """
    variables = sum(_variables(tree) for _, tree in form.trees)
    if "backward" in name:
        each, added = (13, 2) if "tangent" in name else (5, 1)
        return form.num_channels * (each * variables + added * weights * len(form.monomials))
    return form.num_channels * variables * (5 if "tangent" in name else 2)


def _variables(node: Node) -> int:
    return sum(1 + _variables(child) for _, child in node.children)


def kernel_flops(name: str, args: Sequence[Any]) -> int | None:
    """Return the operations of a call of an operator ``mlip::name``; None if it is none that is known.

    A tangent of a convolution is the sum of three convolutions (one for the direction of each operand), a tangent of
    its gradients that of two for each gradient. Gradients that are not wanted are counted all the same.

    Args:
        name: without namespace and overload.
        args: of the call.
    """
    keys = [arg for arg in args if isinstance(arg, str)]
    indices = [arg for arg in args if isinstance(arg, Tensor) and arg.dtype == torch.int64]
    if not keys or not indices:
        return None
    if name.startswith("polynomial"):
        weights = any(arg is True for arg in args)
        return len(indices[0]) * polynomial_flops(polynomial.form_of(keys[0]), name, weights)
    if not name.startswith("convolution"):
        return None
    form, num_edges = convolution.form_of(keys[0]), len(indices[0])
    direction = int("backward" in name)
    per_edge = edge_flops(form)[direction]
    if "table" in name:
        per_edge += table_flops(form)[direction]
    if "tangent" in name:
        per_edge *= 2 if direction else 3
    return num_edges * per_edge
