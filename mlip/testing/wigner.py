"""Rotation matrices of irreps in float64, whatever torch's default dtype is."""

from __future__ import annotations

from functools import lru_cache

import torch
from e3nn.o3 import Irreps, spherical_harmonics
from torch import Tensor

from mlip.ops.layout import join_blocks, split_blocks


def wigner_d(degree: int, rotation: Tensor) -> Tensor:
    """Return D with ``Y(R x) = D Y(x)`` for a proper rotation, ``(2l + 1, 2l + 1)``, by least squares.

    e3nn's ``D_from_matrix`` computes in the default dtype; this has the digits of float64. Do not change the result
    in place: it is shared.
    """
    return _wigner_d(degree, tuple(rotation.flatten().tolist()))


@lru_cache(maxsize=1024)
def _wigner_d(degree: int, entries: tuple[float, ...]) -> Tensor:
    rotation = torch.tensor(entries, dtype=torch.float64).view(3, 3)
    points = torch.randn(8 * (degree + 1), 3, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    before = spherical_harmonics(degree, points, normalize=True)
    after = spherical_harmonics(degree, points @ rotation.T, normalize=True)
    return torch.linalg.lstsq(before, after).solution.T


def random_rotation(seed: int) -> Tensor:
    """Return a proper rotation (3, 3), float64."""
    generator = torch.Generator().manual_seed(seed)
    q, r = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))
    q = q * r.diagonal().sign()
    return q * torch.linalg.det(q).sign()


def transform(features: Tensor, irreps: Irreps, rotation: Tensor, invert: bool = False) -> Tensor:
    """Turn features ``(rows, irreps.dim)`` in the package's layout, and invert them if asked."""
    blocks = []
    for (_, ir), block in zip(irreps, split_blocks(features, irreps)):
        turned = torch.einsum("mn,rnu->rmu", wigner_d(ir.l, rotation).to(features.dtype), block)
        blocks.append(turned * (ir.p if invert else 1))
    return join_blocks(blocks)
