"""Checks that every backend of the many-body product must pass; each returns a measured error."""

from __future__ import annotations

from copy import deepcopy
from itertools import product as cartesian
from math import pi

import numpy as np
import torch
from e3nn.o3 import Irrep, Irreps
from torch import Tensor

from mlip.ops.fourier import back_coefficients, fourier_coefficients
from mlip.ops.layout import join_blocks, split_blocks
from mlip.ops.many_body.base import ManyBodyProduct
from mlip.ops.many_body.gaunt import power_variance
from mlip.ops.wigner import gaunt_coefficients
from mlip.testing.wigner import random_rotation, transform


def random_inputs(product: ManyBodyProduct, rows: int = 5, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return (x, weight for each row) of unit variance in float64."""
    generator = torch.Generator().manual_seed(seed)
    sizes = (product.irreps_in.dim, product.weight_numel)
    x, weight = (torch.randn(rows, n, generator=generator, dtype=torch.float64) for n in sizes)
    return x, weight


def weights_of_term(product: ManyBodyProduct, number: int, weight: Tensor) -> Tensor:
    """Return the weights with those of all other terms set to zero."""
    masks = [
        torch.full((term.count * product.num_channels,), float(k == number)) for k, term in enumerate(product.terms)
    ]
    return weight * torch.cat(masks).to(weight.dtype)


def equivariance_error(product: ManyBodyProduct, seed: int = 0) -> float:
    """Turn and invert the input or the output: the largest difference."""
    x, weight = random_inputs(product, seed=seed)
    rotation = random_rotation(seed)
    turned = product(transform(x, product.irreps_in, rotation, True), weight)
    return _gap(turned, transform(product(x, weight), product.irreps_out, rotation, True))


def homogeneity_error(product: ManyBodyProduct, factor: float = -1.3) -> float:
    """Check that every term scales as the power ν of the input, and that it gives its irrep only."""
    x, weight = random_inputs(product)
    worst = 0.0
    for number, term in enumerate(product.terms):
        own = weights_of_term(product, number, weight)
        plain = product(x, own)
        worst = max(worst, _gap(product(factor * x, own), factor**term.nu * plain))
        for (_, ir), block in zip(product.irreps_out, split_blocks(plain, product.irreps_out)):
            strays = ir != term.ir and bool(block.any())
            missing = ir == term.ir and block.abs().max() < 1e-6
            worst = float("inf") if strays or missing else worst
    return worst


def failed_gradient_checks(product: ManyBodyProduct) -> int:
    """Run torch's gradcheck and gradgradcheck on both arguments; 0 is right. Use small irreps."""
    inputs = tuple(x.requires_grad_() for x in random_inputs(product, rows=2))
    first = torch.autograd.gradcheck(product, inputs, raise_exception=False)
    second = torch.autograd.gradgradcheck(product, inputs, raise_exception=False)
    return 2 - int(first) - int(second)


def float32_error(product: ManyBodyProduct) -> float:
    """Compare float32 with float64, relative to the largest output; infinite if the result is not float32."""
    inputs = random_inputs(product)
    exact = product(*inputs)
    single = deepcopy(product).to(torch.float32)(*(x.float() for x in inputs))
    return _gap(single.double(), exact) / float(exact.abs().max()) if single.dtype == torch.float32 else float("inf")


def lost_digits(product: ManyBodyProduct) -> float:
    """Send the module to float32 and back: its constants must come back with all digits."""
    inputs = random_inputs(product)
    return _gap(deepcopy(product).to(torch.float32).to(torch.float64)(*inputs), product(*inputs))


def row_dependence(product: ManyBodyProduct) -> float:
    """Evaluate rows one by one and together: the largest difference."""
    x, weight = random_inputs(product)
    return _gap(torch.cat([product(x[k : k + 1], weight[k : k + 1]) for k in range(len(x))]), product(x, weight))


def index_error(product: ManyBodyProduct) -> float:
    """Compare sets of weights by index (one of them unused) and one set for all with weights for each row."""
    x, weight = random_inputs(product)
    index = torch.tensor([3, 0, 4, 0, 3])
    by_index = _gap(product(x, weight, index), product(x, weight[index]))
    return max(by_index, _gap(product(x, weight[1]), product(x, weight[1].expand_as(weight))))


def index_gradient_error(product: ManyBodyProduct) -> float:
    """Compare the gradients of x and the sets of weights by index with those of gathered weights."""
    x, weight = (tensor.requires_grad_() for tensor in random_inputs(product))
    index = torch.tensor([3, 0, 4, 0, 3])
    found = torch.autograd.grad(product(x, weight, index).square().sum(), (x, weight))
    expected = torch.autograd.grad(product(x, weight[index]).square().sum(), (x, weight))
    return max(_gap(a, b) for a, b in zip(found, expected))


def channel_mixing(product: ManyBodyProduct) -> float:
    """Change one channel of the input: the largest change of another channel of the output."""
    x, weight = random_inputs(product)
    blocks = [block.clone() for block in split_blocks(x, product.irreps_in)]
    for block in blocks:
        block[:, :, 0] += 1.0
    change = product(join_blocks(blocks), weight) - product(x, weight)
    changed = split_blocks(change, product.irreps_out)
    if max(float(block[:, :, 0].abs().max()) for block in changed) < 1e-3:
        return float("inf")
    return max(float(block[:, :, 1:].abs().max()) for block in changed)


def empty_batch_problems(product: ManyBodyProduct) -> int:
    """Count wrong shapes of the result and the gradients for zero rows; 0 is right."""
    x, weight = (tensor.requires_grad_() for tensor in random_inputs(product, rows=0))
    sets = random_inputs(product, rows=2)[1].requires_grad_()
    problems = 0
    for inputs in ((x, weight), (x, sets[0]), (x, sets, torch.zeros(0, dtype=torch.long))):
        result = product(*inputs)
        gradients = torch.autograd.grad(result.sum(), inputs[:2])
        problems += result.shape != (0, product.irreps_out.dim)
        problems += sum(g.shape != tensor.shape for g, tensor in zip(gradients, inputs))
    return problems


def unit_variance_error(product: ManyBodyProduct) -> float:
    """Return the largest deviation from 1 of E[B²] over all polynomials; exact, by Gauss–Hermite quadrature.

    Use irreps with at most five components in one channel.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(product.correlation + 1)
    n = product.irreps_in.dim // product.num_channels
    x = torch.tensor(list(cartesian(nodes, repeat=n)))
    chances = torch.tensor(list(cartesian(weights / weights.sum(), repeat=n))).prod(dim=1)
    x = x.repeat_interleave(product.num_channels, dim=1)
    worst = 0.0
    for k in range(0, product.weight_numel, product.num_channels):
        weight = torch.zeros(product.weight_numel, dtype=torch.float64)
        weight[k] = 1.0
        for (_, ir), block in zip(product.irreps_out, split_blocks(product(x, weight), product.irreps_out)):
            squares = torch.einsum("r,rm->m", chances, block[:, :, 0].square()) * product.num_polynomials(ir)
            if squares.max() > 1e-9:
                worst = max(worst, float((squares - 1).abs().max()))
    return worst


def gaunt_oracle(product: ManyBodyProduct, x: Tensor, weight: Tensor) -> Tensor:
    """Multiply by x again and again with dense Gaunt coefficients, keeping every degree that arises."""
    lmax = product.irreps_in.lmax
    first: dict[int, Tensor] = {ir.l: b for (_, ir), b in zip(product.irreps_in, split_blocks(x, product.irreps_in))}
    powers = [first]
    for nu in range(2, product.correlation + 1):
        power: dict[int, Tensor] = {}
        for (l1, a), (l2, b) in cartesian(powers[-1].items(), first.items()):
            for l in range(abs(l1 - l2), min(l1 + l2, nu * lmax) + 1):
                # The mean of three component-normalised harmonics is sqrt(4π) ∫ YYY.
                gaunt = gaunt_coefficients(l1, l2, l) * (4 * pi) ** 0.5
                power[l] = power.get(l, 0.0) + torch.einsum("abc,rau,rbu->rcu", gaunt, a, b)
        powers.append(power)
    return _weigh(product, powers, weight)


def fourier_tables(product: ManyBodyProduct, dtype: torch.dtype) -> list[Tensor]:
    """Return y for the input and z for each ν."""
    lmax_out = product.irreps_out.lmax
    kind = torch.complex64 if dtype == torch.float32 else torch.complex128
    columns = torch.cat([torch.arange(ir.l**2, (ir.l + 1) ** 2) for _, ir in product.irreps_in])
    tables = [fourier_coefficients(product.irreps_in.lmax)[columns] * (4 * pi) ** 0.5]
    tables += [
        back_coefficients(lmax_out, nu * product.irreps_in.lmax) / (4 * pi) ** 0.5
        for nu in range(1, product.correlation + 1)
    ]
    return [table.to(kind) for table in tables]


def fourier_convolutions(
    product: ManyBodyProduct, x: Tensor, weight: Tensor, tables: list[Tensor] | None = None
) -> Tensor:
    """Follow the paper (arXiv 2401.10216): Fourier series that grow with ν, multiplied by complex FFTs.

    ``F_ν = F_⌊ν/2⌋ * F_⌈ν/2⌉``, each projected once. Works in any dtype, so that it can be timed, with the tables
    of :func:`fourier_tables` made beforehand.
    """
    tables = fourier_tables(product, x.dtype) if tables is None else tables
    lmax, lmax_out = product.irreps_in.lmax, product.irreps_out.lmax
    coefficients = x.unflatten(1, (-1, product.num_channels))
    series = [torch.einsum("rcn,cuv->rnuv", coefficients.to(tables[0].dtype), tables[0])]
    for nu in range(2, product.correlation + 1):
        shape = (2 * nu * lmax + 1,) * 2
        one, other = (torch.fft.fft2(series[k - 1], s=shape) for k in (nu // 2, nu - nu // 2))
        series.append(torch.fft.ifft2(one * other))
    powers = []
    for nu, (power, table) in enumerate(zip(series, tables[1:]), start=1):
        # Frequencies beyond the output's are orthogonal to it; where there are fewer, the rest is zero.
        half = min(nu * lmax, lmax_out)
        part = power[..., nu * lmax - half : nu * lmax + half + 1]
        cut = table[..., lmax_out - half : lmax_out + half + 1]
        back = torch.einsum("rnuv,cuv->rcn", part, cut).real
        powers.append({ir.l: back[:, ir.l**2 : (ir.l + 1) ** 2] for _, ir in product.irreps_out})
    return _weigh(product, powers, weight)


def _weigh(product: ManyBodyProduct, powers: list[dict[int, Tensor]], weight: Tensor) -> Tensor:
    """Weigh and sum the projections of f^ν for ``f = Σ x Y``, each scaled to unit variance."""
    degrees = [ir.l for _, ir in product.irreps_in]
    dim = sum(2 * l + 1 for l in degrees)
    blocks: dict[Irrep, Tensor | float] = {ir: 0.0 for _, ir in product.irreps_out}
    for term, own in zip(product.terms, weight.split(product.num_channels, dim=-1)):
        variance = dim**term.nu * power_variance(degrees, term.nu, term.ir.l) * product.num_polynomials(term.ir)
        part = powers[term.nu - 1][term.ir.l] * (own.unsqueeze(-2) * variance**-0.5)
        blocks[term.ir] = blocks[term.ir] + part
    return join_blocks([blocks[ir] for _, ir in product.irreps_out])


def multiplicity(irreps: Irreps, nu: int, ir: Irrep) -> int:
    """Return how often an irrep of O(3) occurs in Sym^ν of a representation, from characters.

    Newton's identity ``ν h_ν(g) = Σ_k χ(g^k) h_{ν-k}(g)`` gives the character h_ν of Sym^ν; its inner product with
    the irrep's is an average over the class angle and over inversion, exact for enough equidistant angles.
    """
    # The integrand has the frequencies of ν · lmax + l and of the measure.
    points = 2 * (nu * irreps.lmax + ir.l + 2)
    angles = 2 * pi * np.arange(points) / points
    total = 0.0
    for inverted in (1, -1):
        signs = [[member.p**k if inverted < 0 else 1 for _, member in irreps] for k in range(nu + 1)]
        powers = [
            sum(mul * sign * _character(member.l, k * angles) for sign, (mul, member) in zip(signs[k], irreps))
            for k in range(nu + 1)
        ]
        symmetric = [np.ones(points)]
        for size in range(1, nu + 1):
            symmetric.append(sum(powers[k] * symmetric[size - k] for k in range(1, size + 1)) / size)
        sign = ir.p if inverted < 0 else 1
        total += (symmetric[nu] * sign * _character(ir.l, angles) * (1 - np.cos(angles))).mean() / 2
    return round(float(total))


def _character(degree: int, angles: np.ndarray) -> np.ndarray:
    return 1 + 2 * sum((np.cos(m * angles) for m in range(1, degree + 1)), np.zeros_like(angles))


def irreps_examples() -> list[tuple[Irreps, Irreps, int]]:
    """Return (in, out, correlation) that break careless products: gaps, one irrep, unordered, high degree, ν = 1."""
    texts = [
        ("2x0e+2x1o+2x2e", "0e+1o+2e", 3),
        ("3x1o", "0e+1o+2e", 3),
        ("2x2e+2x0e", "2x0e+2x2e+4e", 2),
        ("2x0e+2x1o", "0e+1o+3o", 4),
        ("2x0e+2x3o", "3o", 2),
        ("4x0e", "0e", 4),
        ("2x1o+2x0e+2x2e", "1o+0e", 1),
    ]
    return [(Irreps(a), Irreps(b), nu) for a, b, nu in texts]


def _gap(found: Tensor, expected: Tensor) -> float:
    if found.shape != expected.shape:
        return float("inf")
    return float((found - expected).abs().max()) if found.numel() else 0.0
