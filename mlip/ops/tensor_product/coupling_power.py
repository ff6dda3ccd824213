"""How strongly a fixed product of signals couples its components, from few evaluations of it."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mlip.ops.wigner import wigner_3j

DRAWS = 2
"""Pairs of vectors for each pair of components: a coupling of two generic ones is not small by accident twice."""


def coupling_power(product: Callable[[Tensor, Tensor], Tensor], degrees: Sequence[Sequence[int]]) -> Tensor:
    """Return Σ over m1, m2 and mean over m3 of the squared map, for each three components.

    Between three irreps an equivariant product is ``κ 3j(l1, l2, l3)`` (Schur's lemma; 3j has norm 1), so that the
    result is ``κ² / (2 l3 + 1)`` and any two vectors that 3j does not annihilate tell κ. This takes a row for each
    pair of components where the sum over a basis takes one for each pair of coefficients.

    Args:
        product: ``(rows, Σ (2 l1 + 1), 1), (rows, Σ (2 l2 + 1), 1)`` to ``(rows, Σ (2 l3 + 1), 1)``.
        degrees: those of the components of both inputs and the output.

    Returns:
        ``(components1, components2, components3)``, float64.
    """
    sizes = [[2 * l + 1 for l in side] for side in degrees]
    generator = torch.Generator().manual_seed(0)
    vectors = [torch.randn(DRAWS, sum(side), generator=generator, dtype=torch.float64) for side in sizes[:2]]
    # Row (draw, c1, c2): component c1 of the first vector alone with component c2 of the second alone.
    masks = [_component_masks(side) for side in sizes[:2]]
    a = (vectors[0][:, None] * masks[0])[:, :, None].expand(-1, -1, len(degrees[1]), -1).flatten(0, 2)
    b = (vectors[1][:, None] * masks[1])[:, None].expand(-1, len(degrees[0]), -1, -1).flatten(0, 2)
    with torch.no_grad():
        found = product(a[:, :, None], b[:, :, None])[:, :, 0]
    found = found.unflatten(0, (DRAWS, len(degrees[0]), len(degrees[1])))
    parts1, parts2 = (vector.split(side, dim=1) for vector, side in zip(vectors, sizes))
    power = torch.zeros([len(side) for side in degrees], dtype=torch.float64)
    for c3, (l3, block) in enumerate(zip(degrees[2], found.split(sizes[2], dim=3))):
        for c1, l1 in enumerate(degrees[0]):
            for c2, l2 in enumerate(degrees[1]):
                if abs(l1 - l2) <= l3 <= l1 + l2:
                    expected = torch.einsum("abc,da,db->dc", wigner_3j(l1, l2, l3), parts1[c1], parts2[c2])
                    kappa = (block[:, c1, c2] * expected).sum() / expected.square().sum()
                    power[c1, c2, c3] = kappa.square() / (2 * l3 + 1)
    return power


def _component_masks(sizes: Sequence[int]) -> Tensor:
    """Return ``(components, Σ sizes)``: 1 where a coefficient belongs to the component."""
    owner = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    return (owner == torch.arange(len(sizes))[:, None]).double()
