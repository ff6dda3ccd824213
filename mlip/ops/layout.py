"""The layout of equivariant features: flat rows, irreps one after the other, channels last.

A feature tensor of ``irreps`` has shape ``(rows, irreps.dim)``. Inside, a block ``mul x l`` is stored as
``(2l + 1, mul)``, i.e. component by component with all channels side by side (``ir_mul``), which makes a
linear map over channels one matrix product and keeps the inner loops contiguous. e3nn stores ``mul_ir``;
:func:`to_e3nn` and :func:`from_e3nn` convert at the border.
"""

import torch
from e3nn.o3 import Irreps
from torch import Tensor


def split_blocks(features: Tensor, irreps: Irreps) -> list[Tensor]:
    """View a flat feature tensor as blocks.

    Args:
        features: ``(rows, irreps.dim)``.
        irreps: what the columns are.

    Returns:
        One tensor ``(rows, 2l + 1, mul)`` for each entry of ``irreps``.
    """
    # One split, not one slice a block: the gradient of a split is one concatenation.
    parts = features.split([mul * ir.dim for mul, ir in irreps], dim=1)
    return [part.unflatten(1, (ir.dim, mul)) for (mul, ir), part in zip(irreps, parts)]


def join_blocks(blocks: list[Tensor]) -> Tensor:
    """Inverse of :func:`split_blocks`: ``(rows, 2l + 1, mul)`` blocks to flat ``(rows, dim)``."""
    return torch.cat([block.flatten(1) for block in blocks], dim=1)


def to_e3nn(features: Tensor, irreps: Irreps) -> Tensor:
    """Reorder ``(rows, dim)`` from channels-last blocks to e3nn's channel-first blocks."""
    return torch.cat([block.transpose(1, 2).flatten(1) for block in split_blocks(features, irreps)], dim=1)


def from_e3nn(features: Tensor, irreps: Irreps) -> Tensor:
    """Inverse of :func:`to_e3nn`."""
    blocks = [
        features[:, columns].unflatten(1, (mul, ir.dim)).transpose(1, 2).flatten(1)
        for (mul, ir), columns in zip(irreps, irreps.slices())
    ]
    return torch.cat(blocks, dim=1)


def natural_irreps(lmax: int, num_channels: int = 1) -> Irreps:
    """Return ``num_channels x l`` for l = 0..lmax with the parity (-1)^l of spherical harmonics."""
    return Irreps([(num_channels, (l, (-1) ** l)) for l in range(lmax + 1)])
