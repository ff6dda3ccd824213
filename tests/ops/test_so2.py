"""Products in the frame of the edge, against the same maps computed in space."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from e3nn.o3 import Irrep, Irreps
from torch import Tensor

from mlip.core.errors import ConfigError, ShapeError
from mlip.ops.edge_rotation import EdgeRotation, frame_axes
from mlip.ops.layout import natural_irreps
from mlip.ops.spherical_harmonics import spherical_harmonics
from mlip.ops.tensor_product.base import TensorProduct
from mlip.testing.wigner import random_rotation, transform, wigner_d
from tests.components import factory

ORACLES = {"so2": "clebsch_gordan_dense", "gaunt_so2": "gaunt_grid"}

OPTIONS = [
    ("so2", "uvu", "path_channel"),
    ("so2", "uvu", "path"),
    ("so2", "uvu", "none"),
    ("so2", "uvw", "path_channel"),
    ("gaunt_so2", "uvu", "degree"),
    ("gaunt_so2", "uvu", "none"),
    ("gaunt_so2", "uvw", "degree"),
]

IRREPS = {
    "ragged": ("4x0e+3x1o+2x2e", "0e+1o+2e", "3x0e+2x1o+1x2e"),
    "degree 6": (str(natural_irreps(6, 2)), str(natural_irreps(6)), str(natural_irreps(6, 3))),
    "gaps": ("2x3o", "1o+3o", "1x2e+2x4e"),
    "to scalars": ("3x0e+3x1o+3x2e", "0e+1o+2e", "2x0e"),
    "from scalars": ("3x0e", "0e+1o+2e+3o", "2x0e+2x1o+2x3o"),
    "vectors only": ("3x1o", "1o", "2x0e+1x2e"),
    "scalars only": ("3x0e+2x1o", "0e", "2x0e+1x1o"),
    "other order": ("2x2e+3x0e", "2e+0e+1o", "2x1o+3x2e"),
}

PSEUDO = ("2x0e+3x0o+2x1o+2x1e+2x2e+1x2o", "0e+1o+2e+3o", "2x0e+1x0o+2x1o+3x1e+2x2e+1x2o+2x3e")

UNIT = [[0, 1, 0], [0, -1, 0], [1, 0, 0], [0, 0, -1], [0.6, 0, 0.8], [0.48, 0.6, 0.64], [0.48, -0.6, 0.64]]
NEAR_POLES = [[e, s, -0.3 * e] for s in (1.0, -1.0) for e in (1e-3, 1e-6, 1e-9)]
SEAM = [[0.6, y, -0.8] for y in (1e-9, -1e-9, 1e-300, -1e-300, 0.0, -0.0)]
SPECIAL = torch.tensor(UNIT + NEAR_POLES + SEAM, dtype=torch.float64)


def harmonics(irreps: Irreps, vectors: Tensor) -> Tensor:
    """Return what a model gives as the second input; a zero vector has Y_0 = 1 and zeros."""
    squared = vectors.square().sum(dim=1, keepdim=True)
    there = squared > 0
    values = spherical_harmonics(irreps.lmax, vectors * torch.where(there, squared, 1.0).rsqrt())
    blocks = [values[:, ir.l**2 : (ir.l + 1) ** 2] for _, ir in irreps]
    return torch.cat([block if block.shape[1] == 1 else torch.where(there, block, 0.0) for block in blocks], dim=1)


def build(name: str, irreps: tuple[str, str, str], mode: str, weights: str, **options: str) -> TensorProduct:
    parts = [Irreps(text) for text in irreps]
    return factory("tensor_product", name)(*parts, mode=mode, weights=weights, **options).double()


def inputs(product: TensorProduct, rows: int, shared: bool = False, seed: int = 0) -> tuple[Tensor, Tensor | None]:
    generator = torch.Generator().manual_seed(seed)
    x1 = torch.randn(rows, product.irreps_in1.dim, generator=generator, dtype=torch.float64)
    shape = (product.weight_numel,) if shared else (rows, product.weight_numel)
    weight = torch.randn(shape, generator=generator, dtype=torch.float64)
    return x1, weight if product.weight_numel else None


def random_vectors(rows: int, seed: int = 5) -> Tensor:
    return torch.randn(rows, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gap(
    name: str, irreps: tuple[str, str, str], mode: str, weights: str, shared: bool = False, **options: str
) -> float:
    """Compare with the product in space, zero vectors, poles and the seam of the charts included."""
    product, oracle = (build(which, irreps, mode, weights, **options) for which in (name, ORACLES[name]))
    vectors = torch.cat([SPECIAL, random_vectors(6), torch.zeros(1, 3, dtype=torch.float64)])
    x1, weight = inputs(product, len(vectors), shared)
    x2 = harmonics(product.irreps_in2, vectors)
    assert product.irreps_out == oracle.irreps_out
    assert product.weight_numel == oracle.weight_numel
    expected = oracle(x1, x2, weight)
    return float((product(x1, x2, weight) - expected).abs().max() / expected.abs().max())


# The rotation to the frame.


@pytest.mark.parametrize("vectors", [SPECIAL, random_vectors(20)], ids=["special", "random"])
def test_harmonics_of_the_edge_have_one_component_in_its_frame(vectors: Tensor) -> None:
    directions = vectors / vectors.norm(dim=1, keepdim=True)
    values = spherical_harmonics(6, directions)
    frames = EdgeRotation([Irrep(l, (-1) ** l) for l in range(7)], 6).double()(directions)
    for l, frame in enumerate(frames):
        expected = torch.zeros(len(vectors), 2 * l + 1, dtype=torch.float64)
        expected[:, 0] = (2 * l + 1) ** 0.5
        turned = torch.einsum("rab,rb->ra", frame, values[:, l * l : (l + 1) ** 2])
        assert (turned - expected).abs().max() < 1e-12
        assert (frame @ frame.transpose(1, 2) - torch.eye(2 * l + 1)).abs().max() < 1e-12


def test_all_degrees_turn_by_the_same_rotation() -> None:
    directions = torch.nn.functional.normalize(torch.cat([random_vectors(3), -SPECIAL[:2]]), dim=1)
    irreps = [Irrep(l, (-1) ** l) for l in (1, 2, 5)]
    first, *others = EdgeRotation(irreps, 5).double()(directions)
    for k, vector_frame in enumerate(first):
        # Components x, y, z of degree 1 are those of the vector.
        rotation = frame_axes(irreps[0], 1).T @ vector_frame
        assert float(torch.linalg.det(rotation)) == pytest.approx(1.0, abs=1e-12)
        for ir, frame in zip(irreps[1:], others):
            assert (frame_axes(ir, 5).T @ frame[k] - wigner_d(ir.l, rotation)).abs().max() < 1e-11


def test_orders_beyond_the_largest_are_left_out_and_a_scale_multiplies() -> None:
    irreps, directions = [Irrep("1o"), Irrep("4e"), Irrep("4o")], random_vectors(4) * 0.0 + torch.tensor([0.6, -0.8, 0])
    full = EdgeRotation(irreps, 4).double()(directions)
    scale = torch.tensor([[0.0], [1.0], [-2.0], [0.5]], dtype=torch.float64)
    few = EdgeRotation(irreps, 2).double()(directions, scale)
    assert [frame.shape[1] for frame in few] == [3, 5, 5]
    for all_rows, rows in zip(full, few):
        assert torch.allclose(rows, scale[:, :, None] * all_rows[:, : rows.shape[1]], rtol=0, atol=1e-14)


@pytest.mark.parametrize("factor", [0.5, 1.2, 3**-0.5])
@pytest.mark.parametrize("name", ORACLES)
def test_harmonics_of_another_scale_are_refused(name: str, factor: float) -> None:
    """Another normalisation, or an envelope in the filter, would give plausible numbers that are wrong."""
    product = build(name, IRREPS["ragged"], "uvu", "none")
    x1, _ = inputs(product, 3)
    x2 = harmonics(product.irreps_in2, random_vectors(3))
    product(x1, x2)
    with pytest.raises(ShapeError, match="component normalisation"):
        product(x1, x2 * factor)


# The same numbers as in space.


@pytest.mark.parametrize("irreps", IRREPS.values(), ids=IRREPS.keys())
@pytest.mark.parametrize("shared", [False, True], ids=["weights a row", "shared weights"])
@pytest.mark.parametrize(("name", "mode", "weights"), OPTIONS)
def test_same_numbers(name: str, mode: str, weights: str, shared: bool, irreps: tuple[str, str, str]) -> None:
    assert gap(name, irreps, mode, weights, shared=shared) < 1e-12


@pytest.mark.parametrize("normalization", ["norm", "none"])
@pytest.mark.parametrize(("name", "mode", "weights"), OPTIONS)
def test_same_numbers_in_other_normalisations(name: str, mode: str, weights: str, normalization: str) -> None:
    assert gap(name, IRREPS["ragged"], mode, weights, normalization=normalization) < 1e-12


@pytest.mark.parametrize(("mode", "weights"), [option[1:] for option in OPTIONS if option[0] == "so2"])
def test_same_numbers_with_cross_products(mode: str, weights: str) -> None:
    assert build("so2", PSEUDO, mode, weights).expressivity.antisymmetric_paths
    assert gap("so2", PSEUDO, mode, weights) < 1e-12


@pytest.mark.parametrize(
    ("name", "irreps"), [("so2", PSEUDO), *((n, IRREPS[k]) for n in ORACLES for k in ("ragged", "gaps", "to scalars"))]
)
def test_same_paths(name: str, irreps: tuple[str, str, str]) -> None:
    parts = [Irreps(text) for text in irreps]
    products = [factory("tensor_product", which)(*parts) for which in (name, ORACLES[name])]
    assert products[0].expressivity == products[1].expressivity


@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize(("name", "mode", "weights"), OPTIONS)
def test_equivariant_when_the_vector_turns(name: str, mode: str, weights: str, invert: bool) -> None:
    product = build(name, PSEUDO if name == "so2" else IRREPS["ragged"], mode, weights)
    vectors = torch.cat([SPECIAL, random_vectors(4)])
    x1, weight = inputs(product, len(vectors))
    rotation = random_rotation(3)
    turned = product(
        transform(x1, product.irreps_in1, rotation, invert),
        harmonics(product.irreps_in2, vectors @ rotation.T * (-1 if invert else 1)),
        weight,
    )
    expected = transform(
        product(x1, harmonics(product.irreps_in2, vectors), weight), product.irreps_out, rotation, invert
    )
    assert (turned - expected).abs().max() < 1e-12 * expected.abs().max()


# Derivatives.


def derivatives(product: TensorProduct, x1: Tensor, vectors: Tensor, weight: Tensor | None) -> list[Tensor]:
    """Return first derivatives of a curved function of the result, and the derivatives of a function of those."""
    leaves = [x.clone().requires_grad_() for x in (x1, vectors, *([] if weight is None else [weight]))]
    result = product(leaves[0], harmonics(product.irreps_in2, leaves[1]), *leaves[2:])
    steps = torch.linspace(-1.0, 1.0, result.numel(), dtype=result.dtype).view_as(result)
    first = torch.autograd.grad((steps * result).sin().sum(), leaves, create_graph=True)
    slopes = sum((torch.linspace(-1.0, 2.0, g.numel(), dtype=g.dtype).view_as(g) * g).sum() for g in first)
    return [g.detach() for g in (*first, *torch.autograd.grad(slopes, leaves))]


@pytest.mark.parametrize(
    ("name", "mode", "weights", "irreps"),
    [(*option, IRREPS["ragged"]) for option in OPTIONS]
    + [(*option, PSEUDO) for option in OPTIONS if option[0] == "so2"],
)
def test_same_first_and_second_derivatives(name: str, mode: str, weights: str, irreps: tuple[str, str, str]) -> None:
    """At the poles, near them, on both sides of the seam between the charts."""
    product, oracle = (build(which, irreps, mode, weights) for which in (name, ORACLES[name]))
    x1, weight = inputs(product, len(SPECIAL))
    for found, expected in zip(
        derivatives(product, x1, SPECIAL, weight), derivatives(oracle, x1, SPECIAL, weight), strict=True
    ):
        assert (found - expected).abs().max() < 1e-10 * max(1.0, float(expected.abs().max()))


@pytest.mark.parametrize(
    "vector",
    [
        [0.0, 1.0, 0.0],
        [0.6, 1e-9, -0.8],
        pytest.param([0.0, -1.0, 0.0], marks=pytest.mark.slow),
        pytest.param([0.6, -1e-9, -0.8], marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(("name", "mode", "weights"), [OPTIONS[0], OPTIONS[3], OPTIONS[4]])
def test_gradients_of_first_and_second_order(name: str, mode: str, weights: str, vector: list[float]) -> None:
    # Finite steps cross the seam.
    product = build(name, ("1x0e+1x1o", "0e+1o+2e", "1x0e+1x1o"), mode, weights)
    x1, weight = inputs(product, 1)
    arguments = (x1, torch.tensor([vector], dtype=torch.float64), weight)
    arguments = tuple(x.requires_grad_() for x in arguments)

    def message(x1: Tensor, vectors: Tensor, weight: Tensor) -> Tensor:
        return product(x1, harmonics(product.irreps_in2, vectors), weight)

    assert torch.autograd.gradcheck(message, arguments)
    assert torch.autograd.gradgradcheck(message, arguments)


@pytest.mark.parametrize(("name", "mode", "weights"), OPTIONS)
def test_zero_vectors_have_finite_derivatives(name: str, mode: str, weights: str) -> None:
    product, oracle = (build(which, IRREPS["ragged"], mode, weights) for which in (name, ORACLES[name]))
    vectors = torch.tensor([[0.0, 0.0, 0.0], [0.1, 0.2, -0.7], [0.0, 0.0, 0.0]], dtype=torch.float64)
    x1, weight = inputs(product, 3)
    for found, expected in zip(derivatives(product, x1, vectors, weight), derivatives(oracle, x1, vectors, weight)):
        assert (found - expected).abs().max() < 1e-10 * max(1.0, float(expected.abs().max()))


@pytest.mark.parametrize(("name", "mode", "weights"), OPTIONS)
def test_float32_near_the_poles(name: str, mode: str, weights: str) -> None:
    product, oracle = (build(which, IRREPS["degree 6"], mode, weights) for which in (name, ORACLES[name]))
    vectors = torch.cat([SPECIAL, random_vectors(20)])
    x1, weight = inputs(product, len(vectors))
    expected = oracle(x1, harmonics(product.irreps_in2, vectors), weight)
    single = product.float()(
        x1.float(), harmonics(product.irreps_in2, vectors.float()), None if weight is None else weight.float()
    )
    assert single.dtype == torch.float32
    assert (single - expected).abs().max() < 1e-5 * expected.abs().max()


# How it is used.


@pytest.mark.parametrize(("name", "mode", "weights"), OPTIONS)
def test_convolution_is_gather_multiply_sum(name: str, mode: str, weights: str) -> None:
    product, oracle = (build(which, IRREPS["ragged"], mode, weights) for which in (name, ORACLES[name]))
    senders, receivers = torch.tensor([1, 2, 3, 0, 0, 3, 1]), torch.tensor([0, 0, 1, 1, 1, 3, 3])
    nodes, weight = inputs(product, 7)[0][:4], inputs(product, 7)[1]
    arguments = (nodes, harmonics(product.irreps_in2, random_vectors(7)), weight, senders, receivers, 4)
    assert (product.convolve(*arguments) - oracle.convolve(*arguments)).abs().max() < 1e-12


@pytest.mark.parametrize(("name", "mode", "weights"), OPTIONS)
def test_no_rows(name: str, mode: str, weights: str) -> None:
    product = build(name, IRREPS["ragged"], mode, weights)
    x1, weight = (x if x is None else x.requires_grad_() for x in inputs(product, 0))
    result = product(x1, harmonics(product.irreps_in2, torch.zeros(0, 3, dtype=torch.float64)), weight)
    assert result.shape == (0, product.irreps_out.dim)
    assert torch.autograd.grad(result.sum(), x1)[0].shape == x1.shape


@pytest.mark.parametrize(
    ("irreps_in2", "mode", "words"),
    [
        ("0e+2e", "uvu", "needs 1o"),
        ("2e", "uvw", "clebsch_gordan_dense"),
        ("0e+1e", "uvu", "1x1e"),
        ("2x0e+2x1o", "uvw", "2x0e"),
        ("0e+1o", "uvuv", "supports mode"),
        ("0e+1o", "uuu", "supports mode"),
    ],
)
def test_so2_refuses_what_is_no_harmonic(irreps_in2: str, mode: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        factory("tensor_product", "so2")(Irreps("1x0e+1x1o+1x2e"), Irreps(irreps_in2), Irreps("0e+1o+2e+1e"), mode=mode)


@pytest.mark.parametrize(("irreps_in2", "mode"), [("0e+2e", "uvu"), ("2x0e+2x1o", "uvw"), ("0e+1o", "uvuv")])
def test_gaunt_so2_refuses_what_is_no_harmonic(irreps_in2: str, mode: str) -> None:
    make = partial(factory("tensor_product", "gaunt_so2"), Irreps("1x0e+1x1o+1x2e"))
    with pytest.raises(ConfigError, match=r"needs 1o|irreps 1x0e|supports mode"):
        make(Irreps(irreps_in2), Irreps("0e+1o+2e"), mode=mode)


@pytest.mark.parametrize("name", ORACLES)
def test_it_says_that_the_filter_is_harmonics_and_keeps_no_state(name: str) -> None:
    product = build(name, IRREPS["ragged"], "uvu", OPTIONS[0][2] if name == "so2" else "degree")
    assert product.filter_is_harmonics
    assert product.operator == factory("tensor_product", ORACLES[name])(*map(Irreps, IRREPS["ragged"])).operator
    assert not list(product.parameters())
    assert not product.state_dict()
