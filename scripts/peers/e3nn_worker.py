"""Worker of e3nn: gather, TensorProduct, sum."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import torch
from e3nn import o3
from torch import Tensor

from peers.protocol import Prepared, serve
from peers.tasks import convolution, convolving


def prepare(task: dict[str, Any]) -> Prepared:
    """Build the convolution as e3nn's users write it: a message for each edge, then their sum."""
    problem = convolution(task)
    channels, paths = task["channels"], problem.paths
    features = o3.Irreps([(channels, (l, (-1) ** l)) for l in range(task["lmax"] + 1)])
    filters = o3.Irreps.spherical_harmonics(task["lmax"])
    wanted = o3.Irreps([(channels, (c, (-1) ** c)) for _, _, c in paths])
    instructions = [(a, b, number, "uvu", True) for number, (a, b, _) in enumerate(paths)]
    before = torch.get_default_dtype()
    # Coefficients that were float32 once have its digits.
    torch.set_default_dtype(problem.x.dtype)
    product = o3.TensorProduct(features, filters, wanted, instructions, internal_weights=False, shared_weights=False)
    torch.set_default_dtype(before)
    atoms, senders, receivers = len(problem.x), problem.senders, problem.receivers

    def convolve(x: Tensor, harmonics: Tensor, weights: Tensor) -> Tensor:
        messages = product(x[senders], harmonics, weights)
        return messages.new_zeros(atoms, messages.shape[1]).index_add_(0, receivers, messages)

    inputs = packed(problem.x, features), problem.harmonics, problem.weights.flatten(1)
    facts = {"version": version("e3nn")}
    return convolving(convolve, inputs, packed(problem.cotangent, wanted), lambda out: unpacked(out, wanted), facts)


def packed(tensor: Tensor, irreps: o3.Irreps) -> Tensor:
    """Return (rows, components, channels) as e3nn has it: irrep by irrep, channel by channel."""
    blocks = tensor.split([ir.dim for _, ir in irreps], dim=1)
    return torch.cat([block.transpose(1, 2).flatten(1) for block in blocks], dim=1)


def unpacked(tensor: Tensor, irreps: o3.Irreps) -> Tensor:
    """Invert :func:`packed`."""
    blocks = tensor.split([mul * ir.dim for mul, ir in irreps], dim=1)
    return torch.cat([block.unflatten(1, (mul, ir.dim)).transpose(1, 2) for block, (mul, ir) in zip(blocks, irreps)], 1)


if __name__ == "__main__":
    serve(prepare)
