"""The tensors that a product of signals consists of, multiplied out on a basis."""

from __future__ import annotations

import torch
from e3nn import o3
from torch import Tensor

from mlip.ops.tensor_product.signal_product import SignalProduct


def couplings(product: SignalProduct) -> dict[tuple[int, int, int], Tensor]:
    """Return the tensor ``(2 l1 + 1, 2 l2 + 1, 2 l3 + 1)`` of each three components."""
    sizes = [[c.ir.dim for c in side] for side in product.sides]
    eyes = [torch.eye(sum(side), dtype=torch.float64) for side in sizes[:2]]
    pairs = [eye[:, None, :, None] for eye in eyes]
    a, b = pairs[0].expand(-1, len(eyes[1]), -1, -1), pairs[1].transpose(0, 1).expand(len(eyes[0]), -1, -1, -1)
    full = product.product(a.flatten(0, 1), b.flatten(0, 1)).reshape(len(eyes[0]), len(eyes[1]), -1)
    return {
        (i, j, k): part
        for i, first in enumerate(full.split(sizes[0], dim=0))
        for j, second in enumerate(first.split(sizes[1], dim=1))
        for k, part in enumerate(second.split(sizes[2], dim=2))
    }


def symbol(l1: int, l2: int, l3: int) -> Tensor:
    return o3.wigner_3j(l1, l2, l3, dtype=torch.float64)
