"""The contract of tensor products, run on every yaml in configs/model/tensor_product."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from e3nn.o3 import Irreps

from mlip.core.errors import ConfigError
from mlip.ops.tensor_product.base import TensorProduct
from mlip.testing import tensor_products as contract
from tests.components import component_names, factory

EXAMPLES = contract.irreps_examples()
BACKENDS = component_names("tensor_product")


@cache
def make(name: str, example: int) -> TensorProduct:
    return factory("tensor_product", name)(*EXAMPLES[example]).double()


@pytest.fixture(params=[(name, k) for name in BACKENDS for k in range(len(EXAMPLES))], ids=lambda p: f"{p[0]}-{p[1]}")
def product(request: pytest.FixtureRequest) -> TensorProduct:
    return make(*request.param)


def test_is_a_tensor_product_of_the_promised_shape(product: TensorProduct) -> None:
    assert isinstance(product, TensorProduct)
    assert product(*contract.random_inputs(product)).shape == (5, product.irreps_out.dim)


@pytest.mark.parametrize("invert", [False, True])
def test_equivariant(product: TensorProduct, invert: bool) -> None:
    assert max(contract.equivariance_error(product, seed, invert) for seed in range(3)) < 1e-12


def test_bilinear(product: TensorProduct) -> None:
    assert contract.bilinearity_error(product) < 1e-12


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("example", [1, 3])
def test_gradients_of_first_and_second_order(name: str, example: int) -> None:
    assert contract.failed_gradient_checks(make(name, example)) == 0


def test_float32_agrees(product: TensorProduct) -> None:
    assert contract.float32_error(product) < 1e-5


def test_constants_survive_float32(product: TensorProduct) -> None:
    assert contract.lost_digits(product) == 0.0


def test_rows_are_independent(product: TensorProduct) -> None:
    assert contract.row_dependence(product) < 1e-13


def test_empty_batch(product: TensorProduct) -> None:
    assert contract.empty_batch_problems(product) == 0


def test_convolution_is_gather_multiply_sum(product: TensorProduct) -> None:
    assert contract.convolution_error(product) < 1e-13


def test_agrees_with_its_formula(product: TensorProduct) -> None:
    assert contract.oracle_error(product) < 1e-12


def test_agrees_with_e3nn(product: TensorProduct) -> None:
    if product.expressivity.weights != "path":
        pytest.skip("e3nn has no product with weights by degree")
    assert contract.e3nn_error(product) < 1e-6


@pytest.mark.parametrize("name", BACKENDS)
def test_unit_variance(name: str) -> None:
    irreps = Irreps("8x0e+8x1o+8x2e")
    product = factory("tensor_product", name)(irreps, Irreps("0e+1o+2e"), irreps).double()
    assert contract.variances(product, rows=3000).tolist() == pytest.approx([1.0] * len(product.irreps_out), abs=0.15)


def test_parameters_and_state_are_the_callers(product: TensorProduct) -> None:
    """Weights come in from outside and constants are recomputed: nothing of a backend is in a model file."""
    assert not list(product.parameters())
    assert not product.state_dict()


def test_expressivity_is_true(product: TensorProduct) -> None:
    """A path is declared if and only if it carries signal."""
    declared = set(product.expressivity.paths)
    assert product.expressivity.antisymmetric_paths == any(sum(path) % 2 for path in declared)
    found = set()
    x1, x2, weight = contract.random_inputs(product)
    for (mul1, ir1), columns1 in zip(product.irreps_in1, product.irreps_in1.slices()):
        for (_, ir2), columns2 in zip(product.irreps_in2, product.irreps_in2.slices()):
            only1, only2 = torch.zeros_like(x1), torch.zeros_like(x2)
            only1[:, columns1], only2[:, columns2] = x1[:, columns1], x2[:, columns2]
            result = product(only1, only2, weight)
            for (_, ir3), columns3 in zip(product.irreps_out, product.irreps_out.slices()):
                # Rounding of a grid is no signal.
                if mul1 and result[:, columns3].abs().max() > 1e-10:
                    found.add((ir1.l, ir2.l, ir3.l))
    assert found == declared


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize(
    ("in1", "in2", "out", "mode", "words"),
    [
        ("4x0e", "2x0e+1o", "4x0e", "uvu", "multiplicity 1"),
        ("4x0e+2x0e", "0e", "4x0e", "uvu", "each irrep once"),
        ("4x0e", "1o", "4x2e", "uvu", "share no path"),
        ("4x0e", "0e", "4x0e", "uuu", "supports mode"),
    ],
)
def test_what_it_cannot_do_is_refused_when_built(
    name: str, in1: str, in2: str, out: str, mode: str, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        factory("tensor_product", name)(Irreps(in1), Irreps(in2), Irreps(out), mode=mode)


def test_gaunt_refuses_other_parities() -> None:
    with pytest.raises(ConfigError, match=r"parities \(-1\)\^l"):
        factory("tensor_product", "gaunt_grid")(Irreps("4x1e"), Irreps("0e"), Irreps("4x1e"))


def test_path_backends_agree_with_each_other() -> None:
    products = [make(name, 0) for name in BACKENDS]
    alike = [product for product in products if product.expressivity.weights == "path"]
    results = [product(*contract.random_inputs(product)) for product in alike]
    assert len(results) >= 2
    assert max(float((result - results[0]).abs().max()) for result in results) < 1e-13
