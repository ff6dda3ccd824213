"""The contract of tensor products, run on every yaml in configs/model/tensor_product."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from e3nn.o3 import Irreps

from mlip.core.errors import ConfigError, ShapeError
from mlip.ops.tensor_product.base import LARGEST_DEGREE, TensorProduct
from mlip.testing import tensor_products as contract
from mlip.testing.tensor_products import EXAMPLES, Example
from tests.components import component_names, factory

BACKENDS = component_names("tensor_product")
CASES = [(name, example) for name in BACKENDS for example in EXAMPLES]
SMALL = Example("2x0e+2x1o", "0e+1o", "2x0e+2x1o")
GRADIENTS = (
    SMALL,
    Example("2x0e+2x1o", "2x0e+2x1o", "2x0e+2x1o", {"mode": "uuu"}),
    Example("1x0e+2x1o", "0e+1o", "2x0e+1x1o", {"mode": "uvw"}),
)


@cache
def build(name: str, example: Example) -> TensorProduct | str:
    """Return the product, or the sentence with which the backend refuses."""
    try:
        return factory("tensor_product", name)(*example.irreps, **example.options).double()
    except ConfigError as refusal:
        return str(refusal)


def make(name: str, example: Example) -> TensorProduct:
    made = build(name, example)
    if isinstance(made, str):
        pytest.skip(made)
    return made


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def product(request: pytest.FixtureRequest) -> TensorProduct:
    return make(*request.param)


def test_is_a_tensor_product_of_the_promised_shape(product: TensorProduct) -> None:
    assert isinstance(product, TensorProduct)
    assert product(*contract.random_inputs(product)).shape == (5, product.irreps_out.dim)


@pytest.mark.parametrize("invert", [False, True])
def test_equivariant(product: TensorProduct, invert: bool) -> None:
    assert max(contract.equivariance_error(product, seed, invert) for seed in range(2)) < 1e-11


def test_bilinear(product: TensorProduct) -> None:
    assert contract.bilinearity_error(product) < 1e-12


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("example", GRADIENTS, ids=str)
def test_gradients_of_first_and_second_order(name: str, example: Example) -> None:
    assert contract.failed_gradient_checks(make(name, example)) == 0


def test_float32_agrees(product: TensorProduct) -> None:
    assert contract.float32_error(product) < 1e-5


def test_constants_survive_float32(product: TensorProduct) -> None:
    assert contract.lost_digits(product) < 1e-14


def test_rows_are_independent(product: TensorProduct) -> None:
    assert contract.row_dependence(product) < 1e-13


def test_empty_batch(product: TensorProduct) -> None:
    assert contract.empty_batch_problems(product) == 0


def test_strides_do_not_matter(product: TensorProduct) -> None:
    assert contract.strided_error(product) < 1e-13


def test_convolution_is_gather_multiply_sum(product: TensorProduct) -> None:
    assert contract.convolution_error(product) < 1e-13


def test_agrees_with_its_formula(product: TensorProduct) -> None:
    assert contract.oracle_error(product) < 1e-12


def test_agrees_with_e3nn(product: TensorProduct) -> None:
    if product.operator != "clebsch_gordan":
        pytest.skip("e3nn has no such product")
    assert contract.e3nn_error(product) < 1e-6


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize(
    "example",
    [
        Example("8x0e+8x1o+8x2e", "0e+1o+2e", "0e+1o+2e"),
        Example("9x0e+6x1o+3x2e", "0e+1o+2e", "0e+1o+2e"),
        Example("8x0e+8x1o+8x2e", "8x0e+8x1o+8x2e", "0e+1o+2e", {"mode": "uuu"}),
        Example("8x0e+8x1o", "4x0e+4x1o", "9x0e+8x1o", {"mode": "uvw"}),
    ],
    ids=str,
)
def test_unit_variance(name: str, example: Example) -> None:
    product = make(name, example)
    assert contract.variances(product, rows=2000).tolist() == pytest.approx([1.0] * len(product.irreps_out), abs=0.2)


def test_parameters_and_state_are_the_callers(product: TensorProduct) -> None:
    """Weights come in from outside and constants are recomputed: nothing of a backend is in a model file."""
    assert not list(product.parameters())
    assert not product.state_dict()


def test_expressivity_is_true(product: TensorProduct) -> None:
    """A path is declared if and only if it carries signal."""
    if product.filter_is_harmonics:
        pytest.skip("harmonics come with all their degrees; agreement with the formula covers it")
    declared = set(product.expressivity.paths)
    assert product.expressivity.antisymmetric_paths == any(sum(path) % 2 for path in declared)
    found = set()
    x1, x2, weight = contract.random_inputs(product)
    for (_, ir1), columns1 in zip(product.irreps_in1, product.irreps_in1.slices()):
        for (_, ir2), columns2 in zip(product.irreps_in2, product.irreps_in2.slices()):
            only1, only2 = torch.zeros_like(x1), torch.zeros_like(x2)
            only1[:, columns1], only2[:, columns2] = x1[:, columns1], x2[:, columns2]
            result = product(only1, only2, weight)
            for (_, ir3), columns3 in zip(product.irreps_out, product.irreps_out.slices()):
                # Rounding of a grid is no signal.
                if result[:, columns3].abs().max() > 1e-10:
                    found.add((ir1.l, ir2.l, ir3.l))
    assert found == declared


@pytest.mark.parametrize("name", BACKENDS)
def test_what_a_backend_refuses_it_refuses_with_a_way_out(name: str) -> None:
    """Each backend takes the usual convolution; a refusal names a backend that can."""
    assert isinstance(build(name, EXAMPLES[0]), TensorProduct)
    for example in EXAMPLES:
        made = build(name, example)
        if isinstance(made, str):
            able = [other for other in BACKENDS if other in made.split(";")[-1]]
            assert able, made
            assert any(isinstance(build(other, example), TensorProduct) for other in able), made


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize(
    ("in1", "in2", "out", "options", "words"),
    [
        ("4x0e", "2x0e+1o", "4x0e", {}, "multiplicity 1"),
        ("4x0e+2x0e", "0e", "4x0e", {}, "each irrep once"),
        ("4x0e", "1o", "4x2e", {}, "share no path"),
        ("4x0e+4x1o", "0e+1o", "4x3e", {}, "share no path"),
        ("4x0e", "2x0e", "4x0e", {"mode": "uuu"}, "same multiplicity|supports mode"),
        ("4x0e", "0e", "4x0e", {"mode": "uwu"}, "mode must be one of .* Did you mean 'u[vu]"),
        ("4x0e", "0e", "4x0e", {"weights": "paths"}, "weights must be one of .* Did you mean 'path'"),
        ("4x0e", "0e", "4x0e", {"normalization": "components"}, "Did you mean 'component'"),
        ("4x0e", "0e", "4x0e", {"mode": "uvw", "weights": "none"}, "nothing without its weights|supports"),
        (f"2x{LARGEST_DEGREE + 1}e", "0e", f"2x{LARGEST_DEGREE + 1}e", {}, "degrees up to"),
    ],
)
def test_what_makes_no_sense_is_refused_when_built(
    name: str, in1: str, in2: str, out: str, options: dict[str, str], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        factory("tensor_product", name)(Irreps(in1), Irreps(in2), Irreps(out), **options)


@pytest.mark.parametrize("name", BACKENDS)
def test_wrong_shapes_are_refused_when_called(name: str) -> None:
    product = make(name, SMALL)
    x1, x2, weight = contract.random_inputs(product)
    for wrong, words in [
        ((x1[:, :-1], x2, weight), "x1 of shape"),
        ((x1, x2[:, :-1], weight), "x2 of shape"),
        ((x1, x2[:-1], weight), "x2 of shape"),
        ((x1[0], x2[0], weight), "x1 of shape"),
        ((x1, x2, weight[:, :-1]), "weights of shape"),
        ((x1, x2, weight[:-1]), "weights of shape"),
        ((x1, x2), "weights a row, got none"),
    ]:
        with pytest.raises(ShapeError, match=words):
            product(*wrong)


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_backends_of_one_operator_agree(example: Example) -> None:
    made = [build(name, example) for name in BACKENDS]
    groups: dict[str, list[TensorProduct]] = {}
    for product in made:
        if isinstance(product, TensorProduct):
            groups.setdefault(product.operator, []).append(product)
    assert groups
    for products in groups.values():
        harmonic = [p for p in products if p.filter_is_harmonics]
        inputs = contract.random_inputs((harmonic or products)[0])
        free = contract.random_inputs(products[0])
        for product in products:
            assert product.irreps_out == products[0].irreps_out
            assert (product(*inputs) - products[0](*inputs)).abs().max() < 1e-12
            if not product.filter_is_harmonics and not products[0].filter_is_harmonics:
                assert (product(*free) - products[0](*free)).abs().max() < 1e-12
