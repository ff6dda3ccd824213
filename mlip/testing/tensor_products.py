"""Checks that every tensor-product backend must pass; each returns a measured error."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field

import torch
from e3nn.o3 import Irreps
from torch import Tensor

from mlip.ops.layout import split_blocks
from mlip.ops.segment import segment_sum
from mlip.ops.spherical_harmonics import spherical_harmonics
from mlip.ops.tensor_product.base import TensorProduct
from mlip.testing.measurement import Measurement
from mlip.testing.tensor_product_oracles import e3nn_oracle, oracle
from mlip.testing.wigner import random_rotation, transform


@dataclass(frozen=True)
class Example:
    """Arguments that break careless products.

    Attributes:
        in1, in2, out: irreps.
        options: mode, weights, normalisation; what is left out takes the backend's default.
    """

    in1: str
    in2: str
    out: str
    options: dict[str, str] = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        return " ".join([*self.options.values(), self.in1, "x", self.in2])

    @property
    def irreps(self) -> tuple[Irreps, Irreps, Irreps]:
        """The three arguments."""
        return Irreps(self.in1), Irreps(self.in2), Irreps(self.out)


RAGGED, EVEN, EDGE = "4x0e+3x1o+2x2e", "3x0e+3x1o+3x2e", "0e+1o+2e"
EXAMPLES = (
    # Mode uvu with the default weights: ragged, scalars only, with gaps, of high degree, few outputs.
    Example(RAGGED, EDGE, RAGGED),
    Example("3x0e", EDGE, "4x0e+2x1o+2x2e"),
    Example("3x0e", "0e", "3x0e"),
    Example("2x0e+3x2e", "0e+2e", "2x0e+2x2e"),
    Example("2x0e+2x1o", "0e+1o+2e+3o", "2x0e+2x1o+2x2e+2x3o"),
    Example("2x0e+2x1o+1x2e+1x3o", "0e+1o+2e+3o", "1x0e"),
    # Outputs of both parities, and inputs of both.
    Example(EVEN, EDGE, "0e+1o+1e+2e+2o+3o"),
    Example("2x0e+1x0o+2x1o+3x1e", "0e+1o", "0e+0o+1o+1e+2e+2o"),
    Example("2x0e+1x0o+2x1o+3x1e", "0e+1o", "0e+0o+1o+1e+2e+2o", {"weights": "degree"}),
    # Other weights and normalisations.
    *(Example(RAGGED, EDGE, RAGGED, {"weights": w}) for w in ("path", "degree", "none")),
    *(Example(RAGGED, EDGE, RAGGED, {"normalization": n}) for n in ("norm", "none")),
    # Other modes.
    *(
        Example(EVEN, EVEN, "0e+1o+1e+2e", {"mode": "uuu", "weights": w})
        for w in ("path_channel", "path", "degree", "none")
    ),
    *(Example(EVEN, EVEN, "0e+1o+1e+2e", {"mode": "uuu", "normalization": n}) for n in ("norm", "none")),
    Example("2x0e+2x0o+2x1o+2x1e", "2x0e+2x1o", "0e+0o+1o+1e+2e", {"mode": "uuu"}),
    Example("2x0e+3x1o", "3x0e+1x1o", "0e+1o+1e+2e", {"mode": "uvuv"}),
    Example("2x0e+2x1o", "3x0e+3x1o", "0e+1o+2e", {"mode": "uvuv"}),
    Example("2x0e+2x1o", "3x0e+3x1o", "0e+1o+2e", {"mode": "uvuv", "weights": "none"}),
    Example("2x0e+2x1o", EDGE, "0e+1o+2e", {"mode": "uvuv"}),
    Example(RAGGED, "2x0e+1x1o", "5x0e+2x1o+3x2e", {"mode": "uvw"}),
    Example(RAGGED, EDGE, "5x0e+2x1o+3x2e", {"mode": "uvw"}),
    Example(RAGGED, EDGE, "2x0e+2x1o", {"mode": "uvw", "normalization": "norm"}),
)


def examine(product: TensorProduct) -> Iterator[Measurement]:
    """Measure what every product promises in every mode; gradients and variances are dearer and on their own."""
    yield Measurement("shape", _gap_of_shape(product), 0)
    yield Measurement("turned", max(equivariance_error(product, seed, False) for seed in (0, 1)), 1e-11)
    yield Measurement("turned and inverted", max(equivariance_error(product, seed, True) for seed in (2, 3)), 1e-11)
    yield Measurement("bilinear", bilinearity_error(product), 1e-12)
    yield Measurement("definition in plain loops", oracle_error(product), 1e-12)
    if product.operator == "clebsch_gordan":
        yield Measurement("e3nn", e3nn_error(product), 1e-6)
    yield Measurement("float32", float32_error(product), 1e-5)
    yield Measurement("back from float32", lost_digits(product), 1e-14)
    yield Measurement("rows one by one", row_dependence(product), 1e-13)
    yield Measurement("no rows, no edges", empty_batch_problems(product), 0)
    yield Measurement("strides", strided_error(product), 1e-13)
    yield Measurement("gather, multiply, sum", convolution_error(product), 1e-13)
    yield Measurement("paths that are not as declared", undeclared_paths(product), 0)
    yield Measurement("some paths kept", kept_paths_error(product), 1e-12)
    yield Measurement("parameters and state", len(list(product.parameters())) + len(product.state_dict()), 0)


def _gap_of_shape(product: TensorProduct) -> float:
    return float(tuple(product(*random_inputs(product)).shape) != (5, product.irreps_out.dim))


def random_inputs(product: TensorProduct, rows: int = 5, seed: int = 0) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return (x1, x2, weight) of unit variance in float64; harmonics and None where the product needs that."""
    generator = torch.Generator().manual_seed(seed)
    sizes = (product.irreps_in1.dim, product.irreps_in2.dim, product.weight_numel)
    x1, x2, weight = (torch.randn(rows, n, generator=generator, dtype=torch.float64) for n in sizes)
    if product.filter_is_harmonics:
        x2 = harmonics(product, torch.randn(rows, 3, generator=generator, dtype=torch.float64))
    return x1, x2, weight if product.weight_numel else None


def harmonics(product: TensorProduct, vectors: Tensor) -> Tensor:
    """Return the spherical harmonics that a product takes as its second input."""
    degrees = [ir.l for _, ir in product.irreps_in2]
    values = spherical_harmonics(max(degrees), torch.nn.functional.normalize(vectors, dim=1))
    return torch.cat([values[:, l * l : (l + 1) ** 2] for l in degrees], dim=1)


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
    """Check ``f(a x + b x', y) = a f(x, y) + b f(x', y)`` and the same in the second argument, if it is free."""
    x1, x2, weight = random_inputs(product, seed=1)
    other1, other2, _ = random_inputs(product, seed=2)
    a, b = 1.7, -0.6
    plain = product(x1, x2, weight)
    first = product(a * x1 + b * other1, x2, weight) - (a * plain + b * product(other1, x2, weight))
    if product.filter_is_harmonics:
        return float(first.abs().max())
    second = product(x1, a * x2 + b * other2, weight) - (a * plain + b * product(x1, other2, weight))
    return max(float(first.abs().max()), float(second.abs().max()))


def failed_gradient_checks(product: TensorProduct, all_entries: bool = True) -> int:
    """Run torch's gradcheck and gradgradcheck on all arguments; 0 is right. Use small irreps.

    Where the second input must be harmonics, the derivatives are taken with respect to the vectors.

    Args:
        product: in float64.
        all_entries: compare second derivatives entry by entry; else along random directions, ten times as fast.
    """
    x1, x2, weight = random_inputs(product, rows=2)
    vectors = torch.tensor([[0.3, -1.1, 0.4], [-0.2, 0.7, 0.9]], dtype=torch.float64)
    inputs = [x1, vectors if product.filter_is_harmonics else x2] + ([] if weight is None else [weight])

    def call(first: Tensor, second: Tensor, *weights: Tensor) -> Tensor:
        return product(first, harmonics(product, second) if product.filter_is_harmonics else second, *weights)

    arguments = tuple(x.requires_grad_() for x in inputs)
    first = torch.autograd.gradcheck(call, arguments, raise_exception=False)
    second = torch.autograd.gradgradcheck(call, arguments, raise_exception=False, fast_mode=not all_entries)
    return 2 - int(first) - int(second)


def float32_error(product: TensorProduct) -> float:
    """Compare float32 with float64; infinite if the result is not float32."""
    inputs = random_inputs(product)
    single = deepcopy(product).to(torch.float32)(*(None if x is None else x.float() for x in inputs))
    return _gap(single.double(), product(*inputs)) if single.dtype == torch.float32 else float("inf")


def lost_digits(product: TensorProduct) -> float:
    """Send the module to float32 and back: its constants must come back with all digits."""
    inputs = random_inputs(product)
    return _gap(deepcopy(product).to(torch.float32).to(torch.float64)(*inputs), product(*inputs))


def row_dependence(product: TensorProduct) -> float:
    """Evaluate rows one by one and together: the largest difference."""
    x1, x2, weight = random_inputs(product)
    rows = [
        product(x1[k : k + 1], x2[k : k + 1], None if weight is None else weight[k : k + 1]) for k in range(len(x1))
    ]
    return _gap(torch.cat(rows), product(x1, x2, weight))


def empty_batch_problems(product: TensorProduct) -> int:
    """Count wrong shapes and gradients for zero rows and for a convolution without edges; 0 is right."""
    x1, x2, weight = random_inputs(product, rows=0)
    inputs = [x.requires_grad_() for x in (x1, x2, weight) if x is not None]
    result = product(x1, x2, weight)
    gradients = torch.autograd.grad(result.sum(), inputs, allow_unused=True)
    none = torch.zeros(0, dtype=torch.long)
    nodes = torch.ones(3, product.irreps_in1.dim, dtype=torch.float64)
    alone = product.convolve(nodes, x2, weight, none, none, 3)
    wrong = [
        result.shape != (0, product.irreps_out.dim),
        alone.shape != (3, product.irreps_out.dim),
        bool(alone.any()),
    ]
    return sum(wrong) + sum(g is not None and g.shape != x.shape for g, x in zip(gradients, inputs))


def strided_error(product: TensorProduct) -> float:
    """Give the same numbers in tensors that are not contiguous: the largest difference."""
    inputs = random_inputs(product)
    strided = [None if x is None else x.repeat(1, 2).T.contiguous().T[:, : x.shape[1]] for x in inputs]
    return _gap(product(*strided), product(*inputs))


def convolution_error(product: TensorProduct) -> float:
    """Compare ``convolve`` with gather, multiply and sum, a node without edges included."""
    _, x2, weight = random_inputs(product, rows=7)
    nodes = random_inputs(product, rows=4, seed=3)[0]
    senders, receivers = torch.tensor([1, 2, 3, 0, 0, 3, 1]), torch.tensor([0, 0, 1, 1, 1, 3, 3])
    expected = segment_sum(product(nodes[senders], x2, weight), receivers, 4)
    return _gap(product.convolve(nodes, x2, weight, senders, receivers, 4), expected)


def kept_paths_error(product: TensorProduct) -> float:
    """Compare every second path, kept, with zero weights for the others; 0 where paths have no weights."""
    sizes = product.weights_by_path
    if sizes is None:
        return 0.0
    x1, x2, weight = random_inputs(product)
    parts, kept = weight.split(sizes, dim=1), range(0, len(sizes), 2)
    small = product.keep(kept).double()
    found = split_blocks(small(x1, x2, torch.cat([parts[k] for k in kept], dim=1)), small.irreps_out)
    zeroed = [part if k in kept else torch.zeros_like(part) for k, part in enumerate(parts)]
    wanted = split_blocks(product(x1, x2, torch.cat(zeroed, dim=1)), product.irreps_out)
    if product.mode in ("uuu", "uvw"):
        # One block an irrep; those that no kept path reaches are not there.
        by_irrep = {ir: block for (_, ir), block in zip(small.irreps_out, found)}
        pairs = [(by_irrep.get(ir, torch.zeros_like(w)), w) for (_, ir), w in zip(product.irreps_out, wanted)]
    else:
        pairs = list(zip(found, [wanted[k] for k in kept], strict=True))
    return max(_gap(a, b) for a, b in pairs)


def undeclared_paths(product: TensorProduct) -> int:
    """Count paths that carry signal and are not declared, or the other way round; 0 is right.

    Harmonics come with all their degrees, so products that need them are left to their definition.
    """
    if product.filter_is_harmonics:
        return 0
    found = set()
    x1, x2, weight = random_inputs(product)
    for (_, ir1), columns1 in zip(product.irreps_in1, product.irreps_in1.slices()):
        for (_, ir2), columns2 in zip(product.irreps_in2, product.irreps_in2.slices()):
            only1, only2 = torch.zeros_like(x1), torch.zeros_like(x2)
            only1[:, columns1], only2[:, columns2] = x1[:, columns1], x2[:, columns2]
            blocks = split_blocks(product(only1, only2, weight), product.irreps_out)
            # Rounding of a grid is no signal.
            found |= {(ir1.l, ir2.l, ir.l) for (_, ir), b in zip(product.irreps_out, blocks) if b.abs().max() > 1e-10}
    declared = product.expressivity
    odd = any(sum(path) % 2 for path in found)
    return len(found ^ set(declared.paths)) + int(declared.antisymmetric_paths != odd)


def variances(product: TensorProduct, rows: int = 4000) -> Tensor:
    """Return the mean square of every output irrep for inputs and weights of unit variance: 1 is promised."""
    result = product(*random_inputs(product, rows=rows))
    return torch.stack([block.square().mean() for block in split_blocks(result, product.irreps_out)])


def oracle_error(product: TensorProduct) -> float:
    """Compare with the definition: one weight a row, and one for all rows."""
    return max(_gap(product(*inputs), oracle(product, *inputs)) for inputs in _per_row_and_shared(product))


def e3nn_error(product: TensorProduct) -> float:
    """Compare a product with path weights to e3nn's own, whose constants have the digits of float32."""
    return max(_gap(product(*inputs), e3nn_oracle(product, *inputs)) for inputs in _per_row_and_shared(product))


def _per_row_and_shared(product: TensorProduct) -> list[tuple[Tensor, Tensor, Tensor | None]]:
    x1, x2, weight = random_inputs(product)
    return [(x1, x2, weight)] if weight is None else [(x1, x2, weight), (x1, x2, weight[0])]


def _gap(found: Tensor, expected: Tensor) -> float:
    if found.shape != expected.shape:
        return float("inf")
    return float((found - expected).abs().max()) if found.numel() else 0.0
