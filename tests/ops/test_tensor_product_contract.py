"""The contract of tensor products, run on every yaml in configs/model/tensor_product."""

from __future__ import annotations

import re
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


def case(name: str, *values: object) -> object:
    """A case of a backend; those that choose by measuring are made of the others, and take seconds."""
    return pytest.param(name, *values, marks=pytest.mark.slow if name.startswith("auto") else ())


CASES = [case(name, example) for name in BACKENDS for example in EXAMPLES]
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


@pytest.mark.parametrize(("name", "example"), CASES, ids=str)
def test_contract(name: str, example: Example) -> None:
    """Constants are recomputed and weights come in from outside; everything else is measured numbers."""
    product = make(name, example)
    assert isinstance(product, TensorProduct)
    wrong = [
        f"{row.name}: {row.value:.1e} > {row.tolerance:.0e}" for row in contract.examine(product) if not row.passed
    ]
    assert not wrong, "; ".join(wrong)


@pytest.mark.parametrize("name", [case(name) for name in BACKENDS])
@pytest.mark.parametrize("example", GRADIENTS, ids=str)
def test_gradients_of_first_and_second_order(name: str, example: Example) -> None:
    """Second derivatives entry by entry for the convolution that models use."""
    assert contract.failed_gradient_checks(make(name, example), all_entries=example == SMALL) == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("example", GRADIENTS[1:], ids=str)
def test_every_entry_of_second_derivatives(name: str, example: Example) -> None:
    assert contract.failed_gradient_checks(make(name, example)) == 0


@pytest.mark.parametrize("name", [case(name) for name in BACKENDS])
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


@pytest.mark.parametrize("name", [case(name) for name in BACKENDS])
def test_what_a_backend_refuses_it_refuses_with_a_way_out(name: str) -> None:
    """Each backend takes the usual convolution; following the refusals leads to a backend that can."""
    assert isinstance(build(name, EXAMPLES[0]), TensorProduct)
    for example in EXAMPLES:
        made = build(name, example)
        for _ in range(2):
            if isinstance(made, str):
                able = [other for other in BACKENDS if re.search(rf"\b{other}\b", made.split(";")[-1])]
                assert able, made
                made = build(able[0], example)
        assert isinstance(made, TensorProduct), made


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
        ("4x0e", "0e", "2x0e+3x0e", {"mode": "uvw"}, "each irrep once in the output"),
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
        ((x1, x2.float(), weight), "one dtype"),
        ((x1, x2, weight.float()), "one dtype"),
    ]:
        with pytest.raises(ShapeError, match=words):
            product(*wrong)
    edges = torch.zeros(5, dtype=torch.long)
    for wrong, words in [
        ((x1, x2, weight, edges[:4], edges, 3), "senders of shape"),
        ((x1, x2, weight, edges, edges[:4], 3), "receivers of shape"),
        ((x1, x2[:1], weight[:1], edges, edges, 3), "senders of shape"),
        ((x1[:, :-1], x2, weight, edges, edges, 3), "x1 of shape"),
        ((x1, x2, weight[:4], edges, edges, 3), "weights of shape"),
    ]:
        with pytest.raises(ShapeError, match=words):
            product.convolve(*wrong)


@pytest.mark.parametrize("measured", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_backends_of_one_operator_agree(example: Example, measured: bool) -> None:
    made = [build(name, example) for name in BACKENDS if measured or not name.startswith("auto")]
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
