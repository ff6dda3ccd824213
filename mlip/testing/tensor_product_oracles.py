"""Tensor products by their definitions: dense coefficients and plain loops, slow and short."""

from __future__ import annotations

from copy import deepcopy
from functools import lru_cache

import torch
from e3nn.o3 import Irreps
from e3nn.o3 import TensorProduct as E3nnTensorProduct
from torch import Tensor

from mlip.ops.layout import from_e3nn, join_blocks, split_blocks, to_e3nn
from mlip.ops.tensor_product.base import TensorProduct
from mlip.ops.tensor_product.clebsch_gordan import e3nn_arguments, e3nn_product
from mlip.ops.tensor_product.path_product import PathProduct
from mlip.ops.tensor_product.signal_product import SignalProduct
from mlip.ops.wigner import gaunt_coefficients, wigner_3j


def oracle(product: TensorProduct, x1: Tensor, x2: Tensor, weight: Tensor | None) -> Tensor:
    """Return what a product must give, ``(rows, irreps_out.dim)``, from its definition."""
    # A product that delegates to another has its definition.
    product = getattr(product, "backend", product)
    return (signal_oracle if isinstance(product, SignalProduct) else path_oracle)(product, x1, x2, weight)


def e3nn_oracle(product: PathProduct, x1: Tensor, x2: Tensor, weight: Tensor | None) -> Tensor:
    """Return the same from e3nn, whose constants have the digits of float32."""
    reference = _reference(*e3nn_arguments(product))
    numbers = x1.new_ones(len(x1), 0) if weight is None else weight.expand(len(x1), -1)
    if product.weights != "path_channel":
        # One number a path, or none, stands for all its channels.
        channels = [
            ins.path_shape[0] * (ins.path_shape[1] if product.mode == "uvuv" else 1) for ins in reference.instructions
        ]
        numbers = torch.cat(
            [
                x1.new_ones(len(x1), n) if weight is None else numbers[:, k : k + 1].expand(-1, n)
                for k, n in enumerate(channels)
            ],
            1,
        )
    result = reference(to_e3nn(x1, product.irreps_in1), to_e3nn(x2, product.irreps_in2), numbers)
    return from_e3nn(result, product.irreps_out)


@lru_cache(maxsize=64)
def _reference(*arguments: object) -> E3nnTensorProduct:
    """Build e3nn's product once for all that are compared to it: it compiles code."""
    return e3nn_product(*arguments).double()


def path_oracle(product: PathProduct, x1: Tensor, x2: Tensor, weight: Tensor | None) -> Tensor:
    """``out = Σ_paths w_p c_p 3j x1 x2`` in every mode, see ``PathProduct``."""
    first, second, mode = product.irreps_in1, product.irreps_in2, product.mode
    blocks1, blocks2 = split_blocks(x1, first), split_blocks(x2, second)
    summed = mode in ("uuu", "uvw")
    outputs = [x1.new_zeros(len(x1), ir.dim, mul) for mul, ir in product.irreps_out]
    start = 0
    for number, path in enumerate(product.paths):
        (mul1, ir1), (mul2, ir2), ir3 = first[path.in1], second[path.in2], path.ir_out
        pairs = torch.einsum("abc,rau,rbv->rcuv", wigner_3j(ir1.l, ir2.l, ir3.l), blocks1[path.in1], blocks2[path.in2])
        square = {"component": ir3.dim, "norm": ir1.dim * ir2.dim, "none": 1}[product.normalization]
        if summed and product.normalization != "none":
            into = [p for p in product.paths if p.ir_out == ir3]
            square /= sum(first[p.in1].mul * second[p.in2].mul if mode == "uvw" else 1 for p in into)
        pairs = pairs * square**0.5
        target = [ir for _, ir in product.irreps_out].index(ir3) if summed else number
        mul3 = product.irreps_out[target].mul
        shape = {"uuu": (mul1,), "uvu": (mul1,), "uvuv": (mul1, mul2), "uvw": (mul1, mul2, mul3)}[mode]
        if product.weights == "none":
            w = x1.new_ones(len(x1), *shape)
        elif product.weights == "path":
            w = weight.expand(len(x1), -1)[:, start].reshape(-1, *[1] * len(shape)).expand(-1, *shape)
            start += 1
        else:
            size = int(torch.tensor(shape).prod())
            w = weight.expand(len(x1), -1)[:, start : start + size].reshape(-1, *shape)
            start += size
        if mode == "uuu":
            outputs[target] += pairs.diagonal(dim1=2, dim2=3) * w[:, None]
        elif mode == "uvu":
            outputs[target] += pairs[:, :, :, 0] * w[:, None]
        elif mode == "uvuv":
            outputs[target] += (pairs * w[:, None]).flatten(2)
        else:
            outputs[target] += torch.einsum("rcuv,ruvw->rcw", pairs, w)
    return join_blocks(outputs)


def couplings(product: SignalProduct) -> Tensor:
    """Return the bare trilinear map ``(dims1, dims2, dims3)``: Gaunt coefficients, or what the product itself does.

    The bare maps of the other operators have tests of their own.
    """
    if product.operator == "gaunt":
        rows = [
            torch.cat(
                [torch.cat([_gaunt(a.ir.l, b.ir.l, c.ir.l) for c in product.sides[2]], 2) for b in product.sides[1]], 1
            )
            for a in product.sides[0]
        ]
        return torch.cat(rows, 0)
    bare = deepcopy(product)
    bare.prepare(torch.ones(product.dims[2], dtype=torch.float64))
    first, second = (torch.eye(n, dtype=torch.float64) for n in product.dims[:2])
    a = first.repeat_interleave(len(second), 0)[:, :, None]
    b = second.repeat(len(first), 1)[:, :, None]
    return bare.product(a, b)[:, :, 0].unflatten(0, (len(first), len(second)))


def _gaunt(l1: int, l2: int, l3: int) -> Tensor:
    allowed = abs(l1 - l2) <= l3 <= l1 + l2
    return gaunt_coefficients(l1, l2, l3) if allowed else torch.zeros(2 * l1 + 1, 2 * l2 + 1, 2 * l3 + 1).double()


def signal_oracle(product: SignalProduct, x1: Tensor, x2: Tensor, weight: Tensor | None) -> Tensor:
    """``out = w3 gain T (w1 x1)(w2 x2)`` component by component, see ``SignalProduct``."""
    mode, out = product.mode, product.irreps_out
    rows = len(x1)
    width = max(mul for mul, _ in (out if mode == "uvw" else product.irreps_in1))
    if mode == "uvuv":
        width = product.irreps_in1[0].mul * product.irreps_in2[0].mul
    numbers = iter(()) if weight is None else iter(weight.expand(rows, -1).unbind(1))

    def weights(*shape: int) -> Tensor:
        """Take the next weights in order, ``(rows, *shape)``."""
        size = int(torch.tensor(shape).prod())
        if product.weights == "none":
            return x1.new_ones(rows, *shape)
        return torch.stack([next(numbers) for _ in range(size)], 1).reshape(rows, *shape)

    def embed(side: int, x: Tensor, irreps: Irreps) -> list[Tensor]:
        blocks, parts = split_blocks(x, irreps), []
        for component in product.sides[side]:
            block, mul = blocks[component.block], irreps[component.block].mul
            if mode == "uvw":
                parts.append(block @ weights(mul, width) / mul**0.5)
            elif mode == "uvu" and side == 1:
                parts.append(block * weights(width)[:, None])
            else:
                parts.append(block * weights(mul)[:, None])
        return parts

    left, right = embed(0, x1, product.irreps_in1), embed(1, x2, product.irreps_in2)
    table = couplings(product)
    dims = [[c.ir.dim for c in side] for side in product.sides]
    outputs = [x1.new_zeros(rows, ir.dim, mul) for mul, ir in out]
    for c, part in zip(product.sides[2], table.split(dims[2], dim=2)):
        total = x1.new_zeros(rows, c.ir.dim, width)
        variance = x1.new_zeros(width)
        for a, symbols in zip(left, part.split(dims[0], dim=0)):
            for b, symbol in zip(right, symbols.split(dims[1], dim=1)):
                ones = a.shape[2] if mode in ("uuu", "uvu") else width
                power = float(symbol.square().sum()) / c.ir.dim
                if product.normalization == "norm":
                    power /= a.shape[1] * b.shape[1]
                variance[:ones] += power
                if mode == "uvuv":
                    total += torch.einsum("abc,rau,rbv->rcuv", symbol, a, b).flatten(2)
                else:
                    other = b.expand(-1, -1, width)[:, :, :ones]
                    total[:, :, :ones] += torch.einsum("abc,rau,rbu->rcu", symbol, a, other)
        if product.normalization != "none":
            terms = sum(c.block == d.block for d in product.sides[2])
            gain = (variance.clamp(min=1e-300) * terms).rsqrt() * (variance > 1e-20)
            total = total * (gain / c.ir.dim**0.5 if product.normalization == "norm" else gain)
        mul = out[c.block].mul
        if mode == "uvw":
            outputs[c.block] += total @ weights(width, mul) / width**0.5
        else:
            outputs[c.block] += total[:, :, :mul] * weights(mul)[:, None]
    return join_blocks(outputs)
