"""Checks that every tensor-product backend must pass; each returns a measured error."""

from __future__ import annotations

from copy import deepcopy

import torch
from e3nn.o3 import Irreps, wigner_3j
from e3nn.o3 import TensorProduct as E3nnTensorProduct
from torch import Tensor

from mlip.ops.layout import from_e3nn, join_blocks, split_blocks, to_e3nn
from mlip.ops.segment import segment_sum
from mlip.ops.tensor_product.base import TensorProduct
from mlip.testing.wigner import random_rotation, transform


def random_inputs(product: TensorProduct, rows: int = 5, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return (x1, x2, weight) of unit variance in float64."""
    generator = torch.Generator().manual_seed(seed)
    sizes = (product.irreps_in1.dim, product.irreps_in2.dim, product.weight_numel)
    x1, x2, weight = (torch.randn(rows, n, generator=generator, dtype=torch.float64) for n in sizes)
    return x1, x2, weight


def equivariance_error(product: TensorProduct, seed: int = 0, invert: bool = True) -> float:
    """Turn (and invert) the inputs or the output: the largest difference."""
    x1, x2, weight = random_inputs(product, seed=seed)
    rotation = random_rotation(seed)
    turned = product(
        transform(x1, product.irreps_in1, rotation, invert),
        transform(x2, product.irreps_in2, rotation, invert),
        weight,
    )
    return _gap(turned, transform(product(x1, x2, weight), product.irreps_out, rotation, invert))


def bilinearity_error(product: TensorProduct) -> float:
    """Check ``f(a x + b x', y) = a f(x, y) + b f(x', y)`` and the same in the second argument."""
    x1, x2, weight = random_inputs(product, seed=1)
    other1, other2, _ = random_inputs(product, seed=2)
    a, b = 1.7, -0.6
    plain = product(x1, x2, weight)
    first = product(a * x1 + b * other1, x2, weight) - (a * plain + b * product(other1, x2, weight))
    second = product(x1, a * x2 + b * other2, weight) - (a * plain + b * product(x1, other2, weight))
    return max(float(first.abs().max()), float(second.abs().max()))


def failed_gradient_checks(product: TensorProduct) -> int:
    """Run torch's gradcheck and gradgradcheck on all three arguments; 0 is right. Use small irreps."""
    inputs = tuple(x.requires_grad_() for x in random_inputs(product, rows=2))
    first = torch.autograd.gradcheck(product, inputs, raise_exception=False)
    second = torch.autograd.gradgradcheck(product, inputs, raise_exception=False)
    return 2 - int(first) - int(second)


def float32_error(product: TensorProduct) -> float:
    """Compare float32 with float64; infinite if the result is not float32."""
    inputs = random_inputs(product)
    single = deepcopy(product).to(torch.float32)(*(x.float() for x in inputs))
    return _gap(single.double(), product(*inputs)) if single.dtype == torch.float32 else float("inf")


def lost_digits(product: TensorProduct) -> float:
    """Send the module to float32 and back: its constants must come back with all digits."""
    inputs = random_inputs(product)
    return _gap(deepcopy(product).to(torch.float32).to(torch.float64)(*inputs), product(*inputs))


def row_dependence(product: TensorProduct) -> float:
    """Evaluate rows one by one and together: the largest difference."""
    x1, x2, weight = random_inputs(product)
    rows = [product(x1[k : k + 1], x2[k : k + 1], weight[k : k + 1]) for k in range(len(x1))]
    return _gap(torch.cat(rows), product(x1, x2, weight))


def empty_batch_problems(product: TensorProduct) -> int:
    """Count wrong shapes and gradients for zero rows and for a convolution without edges; 0 is right."""
    inputs = [x.requires_grad_() for x in random_inputs(product, rows=0)]
    result = product(*inputs)
    gradients = torch.autograd.grad(result.sum(), inputs)
    none = torch.zeros(0, dtype=torch.long)
    nodes = torch.ones(3, product.irreps_in1.dim, dtype=torch.float64)
    alone = product.convolve(nodes, inputs[1], inputs[2], none, none, 3)
    wrong = [
        result.shape != (0, product.irreps_out.dim),
        alone.shape != (3, product.irreps_out.dim),
        bool(alone.any()),
    ]
    return sum(wrong) + sum(g.shape != x.shape for g, x in zip(gradients, inputs))


def convolution_error(product: TensorProduct) -> float:
    """Compare ``convolve`` with gather, multiply and sum, a node without edges included."""
    _, x2, weight = random_inputs(product, rows=7)
    nodes = random_inputs(product, rows=4, seed=3)[0]
    senders, receivers = torch.tensor([1, 2, 3, 0, 0, 3, 1]), torch.tensor([0, 0, 1, 1, 1, 3, 3])
    expected = segment_sum(product(nodes[senders], x2, weight), receivers, 4)
    return _gap(product.convolve(nodes, x2, weight, senders, receivers, 4), expected)


def variances(product: TensorProduct, rows: int = 4000) -> Tensor:
    """Return the mean square of every output irrep for inputs and weights of unit variance: 1 is promised."""
    result = product(*random_inputs(product, rows=rows))
    return torch.stack([block.square().mean() for block in split_blocks(result, product.irreps_out)])


def oracle_error(product: TensorProduct) -> float:
    """Compare with the defining formula: 3j symbols, one weight a path, or the Gaunt coefficients."""
    oracle = path_oracle if product.expressivity.weights == "path" else gaunt_oracle
    inputs = random_inputs(product)
    return _gap(product(*inputs), oracle(product, *inputs))


def e3nn_error(product: TensorProduct) -> float:
    """Compare a product with path weights to e3nn's own, whose constants have the digits of float32."""
    instructions = [(path.in1, path.in2, k, "uvu", True, 1.0) for k, path in enumerate(product.paths)]
    reference = E3nnTensorProduct(
        product.irreps_in1,
        product.irreps_in2,
        product.irreps_out,
        instructions,
        shared_weights=False,
        internal_weights=False,
    ).double()
    x1, x2, weight = random_inputs(product)
    expected = from_e3nn(reference(to_e3nn(x1, product.irreps_in1), x2, weight), product.irreps_out)
    return _gap(product(x1, x2, weight), expected)


def path_oracle(product: TensorProduct, x1: Tensor, x2: Tensor, weight: Tensor) -> Tensor:
    """``out[u, m3] = w[u] sqrt(2 l3 + 1) Σ 3j(m1, m2, m3) x1[u, m1] x2[m2]`` path by path."""
    blocks1, blocks2 = split_blocks(x1, product.irreps_in1), split_blocks(x2, product.irreps_in2)
    outputs, start = [], 0
    for path in product.paths:
        (mul, ir1), ir2 = product.irreps_in1[path.in1], product.irreps_in2[path.in2].ir
        symbol = wigner_3j(ir1.l, ir2.l, path.ir_out.l, dtype=torch.float64) * path.ir_out.dim**0.5
        coupled = torch.einsum("abc,rau,rb->rcu", symbol, blocks1[path.in1], blocks2[path.in2][:, :, 0])
        outputs.append(coupled * weight[:, None, start : start + mul])
        start += mul
    return join_blocks(outputs)


def gaunt_oracle(product: TensorProduct, x1: Tensor, x2: Tensor, weight: Tensor) -> Tensor:
    """The same map from Gaunt coefficients ``sqrt((2l1+1)(2l2+1)(2l3+1)) |3j(000)| 3j`` (arXiv 2401.10216).

    Weights are laid out as :class:`~mlip.ops.tensor_product.gaunt_grid.GauntGrid` says: each degree and
    channel of the first input, each degree and each of the widest channels of the second, each degree and
    channel of the output. The output degree is scaled to unit variance with all degrees present.
    """
    first, second, out = product.irreps_in1, product.irreps_in2, product.irreps_out
    width = max(mul for mul, _ in out)
    w1, w2, w3 = weight.split([first.num_irreps, len(second) * width, out.num_irreps], dim=1)
    w2 = w2.unflatten(1, (len(second), width))
    outputs = []
    for (mul3, ir3), scale3 in zip(out, w3.split([mul for mul, _ in out], dim=1)):
        total, variance = x1.new_zeros(len(x1), ir3.dim, width), 0.0
        blocks = zip(first, split_blocks(x1, first), w1.split([mul for mul, _ in first], dim=1))
        for (mul1, ir1), a, scale1 in blocks:
            for k, ((_, ir2), b) in enumerate(zip(second, split_blocks(x2, second))):
                if ir3.l not in range(abs(ir1.l - ir2.l), ir1.l + ir2.l + 1) or (ir1.l + ir2.l + ir3.l) % 2:
                    continue
                symbol = wigner_3j(ir1.l, ir2.l, ir3.l, dtype=torch.float64)
                gaunt = (ir1.dim * ir2.dim * ir3.dim) ** 0.5 * symbol[ir1.l, ir2.l, ir3.l].abs() * symbol
                variance += float(gaunt.square().sum()) / ir3.dim
                coupled = torch.einsum("abc,rau,rb->rcu", gaunt, a * scale1[:, None], b[:, :, 0])
                total[:, :, :mul1] += coupled * w2[:, k, None, :mul1]
        outputs.append(total[:, :, :mul3] * scale3[:, None] / variance**0.5)
    return join_blocks(outputs)


def irreps_examples() -> list[tuple[Irreps, Irreps, Irreps]]:
    """Return (in1, in2, out) that break careless products: ragged, with gaps, scalars only, high degree."""
    texts = [
        ("4x0e+3x1o+2x2e", "0e+1o+2e", "4x0e+3x1o+2x2e"),
        ("3x0e", "0e+1o+2e", "4x0e+2x1o+2x2e"),
        ("3x0e", "0e", "3x0e"),
        ("2x0e+3x2e", "0e+2e", "2x0e+2x2e"),
        ("2x0e+2x1o", "0e+1o+2e+3o", "2x0e+2x1o+2x2e+2x3o"),
        ("2x0e+2x1o+1x2e+1x3o", "0e+1o+2e+3o", "1x0e"),
    ]
    return [(Irreps(a), Irreps(b), Irreps(c)) for a, b, c in texts]


def _gap(found: Tensor, expected: Tensor) -> float:
    if found.shape != expected.shape:
        return float("inf")
    return float((found - expected).abs().max()) if found.numel() else 0.0
