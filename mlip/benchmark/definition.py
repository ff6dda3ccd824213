"""The Gaunt product written out: an oracle that shares nothing with the backends but the coefficients."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mlip.ops.wigner import gaunt_coefficients

NAME = "Gaunt coefficients"
"""What the results call this oracle."""


def gaunt_definition(
    inputs: tuple[Sequence[Tensor], Sequence[Tensor]],
    degrees_out: Sequence[int],
    mode: str,
    weights: Callable[[int], Tensor] | None,
) -> Tensor:
    """Contract with dense coefficients: ``out_m3 = w3 g Σ G^{l1 l2 l3}_{m1 m2 m3} (w1 x1_m1) (w2 x2_m2)``.

    ``g`` gives components of unit variance for independent inputs of unit variance; G as in
    :class:`mlip.ops.tensor_product.gaunt_product.GauntProduct` (arXiv 2401.10216, eq. 3). In mode ``uvw`` the weights
    are matrices, divided by the root of the number of channels that they sum over.

    Args:
        inputs: a block ``(rows, 2l + 1, channels)`` for each degree, of both inputs.
        degrees_out: wanted degrees, rising; those that no even path reaches are left out.
        mode: see :data:`mlip.ops.tensor_product.base.Mode`.
        weights: returns ``(rows or 1, number)`` of them, ordered by first input, second input and output, inside by
            degree; None for a product without weights.

    Returns:
        ``(rows, out)`` in the layout of :mod:`mlip.ops.layout`.
    """
    blocks = [{(x.shape[1] - 1) // 2: x for x in side} for side in inputs]
    channels = inputs[0][0].shape[2]
    paths = {
        l3: [
            (l1, l2) for l1 in blocks[0] for l2 in blocks[1] if abs(l1 - l2) <= l3 <= l1 + l2 and not (l1 + l2 + l3) % 2
        ]
        for l3 in degrees_out
    }
    reached = [l3 for l3 in degrees_out if paths[l3]]
    width = channels**2 if mode == "uvuv" else channels
    scales: list[list[Tensor | None]] = [[None] * len(side) for side in (*blocks, reached)]
    if weights is not None:
        sizes = [channels**2] * 3 if mode == "uvw" else [channels, channels, width]
        counts = [len(side) for side in scales]
        given = weights(sum(n * size for n, size in zip(counts, sizes)))
        parts = given.split([n * size for n, size in zip(counts, sizes)], dim=-1)
        scales = [list(part.split(size, dim=-1)) for part, size in zip(parts, sizes)]
    first, second = (
        {l: _scaled(x, scale, mode) for (l, x), scale in zip(side.items(), side_scales)}
        for side, side_scales in zip(blocks, scales)
    )
    outputs = []
    for l3, scale in zip(reached, scales[2]):
        symbols = [gaunt_coefficients(l1, l2, l3) for l1, l2 in paths[l3]]
        total = sum(_coupled(symbol, first[l1], second[l2], mode) for symbol, (l1, l2) in zip(symbols, paths[l3]))
        variance = sum(float(symbol.square().sum()) for symbol in symbols) / (2 * l3 + 1)
        outputs.append(_scaled(total / variance**0.5, scale, mode).flatten(1))
    return torch.cat(outputs, dim=1)


def _scaled(x: Tensor, scale: Tensor | None, mode: str) -> Tensor:
    if scale is None:
        return x
    if mode == "uvw":
        channels = x.shape[2]
        return x @ scale.unflatten(-1, (channels, -1)) / channels**0.5
    return x * scale[:, None, :]


def _coupled(symbol: Tensor, a: Tensor, b: Tensor, mode: str) -> Tensor:
    """Return ``(rows, 2 l3 + 1, channels)``; pairs of channels in mode ``uvuv``."""
    pairs = torch.einsum("rau,rbv->rabuv", a, b).flatten(3) if mode == "uvuv" else a[:, :, None] * b[:, None]
    return torch.einsum("abc,rabu->rcu", symbol, pairs)
