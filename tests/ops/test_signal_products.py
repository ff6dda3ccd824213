"""Products of signals that reach antisymmetric paths: vector and irrep fields on the sphere, matrices."""

from __future__ import annotations

import math

import pytest
import torch
from e3nn.o3 import Irrep, Irreps

from mlip.core.errors import ConfigError
from mlip.ops import row_chunks
from mlip.ops.layout import natural_irreps
from mlip.ops.tensor_product.gaunt_grid import GauntGrid
from mlip.ops.tensor_product.irrep_grid import IrrepGrid
from mlip.ops.tensor_product.matrix import MatrixProduct
from mlip.ops.tensor_product.signal_product import SignalProduct
from mlip.ops.tensor_product.vector_grid import VectorGrid
from mlip.ops.wigner import gaunt_coefficients
from mlip.testing import tensor_products as contract
from tests.components import factory
from tests.ops.recoupling import wigner_3j_000, wigner_9j
from tests.ops.signal_couplings import couplings, symbol

BOTH = "0e+1o+1e+2e+2o+3o+3e"
"""All irreps up to degree 3 that the vector and the matrix signals hold."""

KINDS = {
    "vector": (VectorGrid, {}),
    "vector_lowest": (VectorGrid, {"max_degree": 0}),
    "cross": (VectorGrid, {"products": "cross"}),
    "tensor_fields": (IrrepGrid, {"fiber1": "2e", "fiber2": "1o", "fiber3": ["1o", "2o"]}),
    "matrix": (MatrixProduct, {}),
    "matrix_spin": (MatrixProduct, {"space": "spin"}),
}


def make(kind: str, in1: str, in2: str, out: str, mode: str = "uuu", **options: object) -> SignalProduct:
    cls, special = KINDS[kind]
    return cls(Irreps(in1), Irreps(in2), Irreps(out), mode, **special, **options).double()


# The fields on the sphere.


@pytest.mark.parametrize(
    ("fibers", "in1", "in2", "out"),
    [
        (("1o", "1o", ("0e", "1e")), BOTH, BOTH, BOTH + "+0o"),
        (("2e", "1o", ("1o", "2o")), "1o+2e+2o", "0e+1o+1e+2e", "0e+0o+1o+1e+2o+3o"),
    ],
)
def test_raw_fields_follow_the_9j_symbols(fibers: tuple, in1: str, in2: str, out: str) -> None:
    first, second, outs = Irrep(fibers[0]), Irrep(fibers[1]), [Irrep(f) for f in fibers[2]]
    options = {"fiber1": fibers[0], "fiber2": fibers[1], "fiber3": fibers[2], "normalization": "none"}
    product = IrrepGrid(Irreps(in1), Irreps(in2), Irreps(out), "uuu", **options).double()
    seen = 0
    for key, found in couplings(product).items():
        a, b, c = (product.sides[side][n] for side, n in enumerate(key))
        (j1, l1), (j2, l2), (j3, l3) = ((x.ir.l, x.label[1]) for x in (a, b, c))
        s1, s2, s3 = first.l, second.l, outs[c.label[0]].l
        if not (abs(l1 - l2) <= l3 <= l1 + l2 and abs(j1 - j2) <= j3 <= j1 + j2) or (l1 + l2 + l3) % 2:
            assert found.abs().max() < 1e-13
            continue
        dims = [2 * n + 1 for n in (j1, j2, j3, s3)]
        direct = math.sqrt(math.prod(dims)) * torch.einsum(
            "nam,obq,pcr,nop,abc->mqr",
            symbol(l1, s1, j1),
            symbol(l2, s2, j2),
            symbol(l3, s3, j3),
            gaunt_coefficients(l1, l2, l3),
            symbol(s1, s2, s3),
        )
        assert (found - direct).abs().max() < 1e-12
        gaunt = math.sqrt((2 * l1 + 1) * (2 * l2 + 1) * (2 * l3 + 1) / (4 * math.pi)) * wigner_3j_000(l1, l2, l3)
        kappa = math.sqrt(math.prod(dims)) * abs(gaunt * wigner_9j(l1, s1, j1, l2, s2, j2, l3, s3, j3))
        assert float(found.norm()) == pytest.approx(kappa, abs=1e-12)
        seen += kappa > 1e-10
    assert seen > 50


def test_the_components_of_an_irrep_are_added() -> None:
    product = make("vector", BOTH, BOTH, BOTH, weights="none", normalization="none")
    x1, x2, _ = contract.random_inputs(product, rows=3)
    assert len(product.sides[0]) == len(product.irreps_in1)
    expected = torch.zeros(3, product.irreps_out.dim, dtype=torch.float64)
    slices = [irreps.slices() for irreps in (product.irreps_in1, product.irreps_in2, product.irreps_out)]
    weighted = make("vector", BOTH, BOTH, BOTH, normalization="none")
    for key, tensor in couplings(weighted).items():
        i, j, k = (slices[side][weighted.sides[side][n].block] for side, n in enumerate(key))
        expected[:, k] += torch.einsum("abc,ra,rb->rc", tensor, x1[:, i], x2[:, j])
    assert (product(x1, x2) - expected).abs().max() < 1e-12


def test_scalar_fibers_are_the_gaunt_product() -> None:
    irreps = Irreps("2x0e+2x1o+2x2e")
    for options in ({}, {"weights": "none", "normalization": "none"}):
        fields = IrrepGrid(irreps, irreps, irreps, "uuu", fiber1="0e", fiber2="0e", fiber3="0e", **options).double()
        gaunt = GauntGrid(irreps, irreps, irreps, "uuu", **options).double()
        inputs = contract.random_inputs(gaunt)
        assert (fields(*inputs) - gaunt(*inputs)).abs().max() < 1e-13


def test_constant_vector_fields_have_dot_and_cross_products() -> None:
    """With l = 0 alone the fields are constant: the definition of every factor shows."""
    product = make("vector_lowest", "1o", "1o", "0e+1e", weights="none", normalization="none")
    x1, x2, _ = contract.random_inputs(product)
    dot, cross = product(x1, x2).split([1, 3], dim=1)
    scale = 1 / math.sqrt(4 * math.pi)
    assert (cross - torch.linalg.cross(x1, x2) * scale / math.sqrt(2)).abs().max() < 1e-14
    # The value is a constant scalar field, and 0e of a scalar field is its mean.
    assert (dot - (x1 * x2).sum(1, keepdim=True) * scale / math.sqrt(3)).abs().max() < 1e-14


@pytest.mark.parametrize("name", ["vector_grid", "irrep_grid", "matrix"])
def test_two_vectors_have_their_cross_product(name: str) -> None:
    """The path that products of scalar functions do not have, with the options that are shipped."""
    natural = Irreps("4x0e+4x1o+4x2e+4x3o")
    product = factory("tensor_product", name)(natural, natural, Irreps("4x1e+4x1o"), mode="uuu").double()
    assert (1, 1, 1) in product.expressivity.paths
    product = factory("tensor_product", name)(Irreps("1o"), Irreps("1o"), Irreps("1e"), mode="uuu").double()
    x1, x2, _ = contract.random_inputs(product)
    found = product(x1, x2, torch.ones(product.weight_numel, dtype=torch.float64))
    cross = torch.linalg.cross(x1, x2)
    factor = (found * cross).sum() / cross.square().sum()
    assert abs(float(factor)) > 0.01
    assert (found - factor * cross).abs().max() < 1e-13


def test_vector_and_irrep_grid_agree_as_shipped() -> None:
    irreps = Irreps("2x0e+2x1o+2x2e")
    products = [factory("tensor_product", n)(irreps, irreps, irreps, mode="uuu") for n in ("vector_grid", "irrep_grid")]
    assert products[0].operator == products[1].operator
    inputs = contract.random_inputs(products[0])
    assert torch.equal(products[0].double()(*inputs), products[1].double()(*inputs))


def test_max_degree_drops_harmonics_but_never_the_last() -> None:
    irreps = "0e+1o+2e+3o"
    labels = [[c.label[1] for c in make("vector", irreps, irreps, irreps, max_degree=n).sides[0]] for n in (9, 2)]
    assert labels == [[1, 0, 2, 1, 3, 2, 4], [1, 0, 2, 1, 2]]


@pytest.mark.parametrize("kind", KINDS)
def test_unit_variance_without_weights(kind: str) -> None:
    """The terms of one irrep are not independent there."""
    product = make(kind, "6x1o+6x2e+6x3o", "6x1o+6x2e+6x3o", "6x0e+6x1e+6x1o+6x2e", weights="none")
    measured = contract.variances(product, rows=3000)
    assert measured.tolist() == pytest.approx([1.0] * len(product.irreps_out), abs=0.1)


# All of them.


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("mode", "normalization"),
    [*((mode, "component") for mode in ("uuu", "uvu", "uvuv", "uvw")), ("uuu", "norm"), ("uvw", "none")],
)
def test_equivariant_with_both_parities(kind: str, mode: str, normalization: str) -> None:
    in1 = "2x1o+2x1e+2x2e+2x2o"
    in2 = {"uuu": in1, "uvu": "1o+1e+2e", "uvuv": "3x1o+3x1e+3x2e", "uvw": "1x1o+3x1e+2x2e"}[mode]
    product = make(kind, in1, in2, "2x0o+2x0e+3x1o+2x1e+2x2e+2x2o+2x3o", mode, normalization=normalization)
    assert {ir.p for _, ir in product.irreps_out} == {1, -1}
    assert (
        max(contract.equivariance_error(product, seed, invert) for seed in (0, 1) for invert in (False, True)) < 1e-11
    )


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_first_and_second_order(kind: str) -> None:
    assert contract.failed_gradient_checks(make(kind, "1x1o+1x1e", "1x1o+1x1e", "1x0e+1x1e")) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_float32_agrees(kind: str) -> None:
    product = make(kind, "4x1o+4x1e+4x2e", "4x1o+4x1e+4x2e", "4x0e+4x1e+4x1o+4x2e+4x3o")
    size = float(product(*contract.random_inputs(product)).abs().max())
    assert contract.float32_error(product) < 1e-5 * size


@pytest.mark.parametrize("kind", ["vector", "matrix", "matrix_spin"])
@pytest.mark.parametrize(("lmax", "paths"), [(1, 6), (2, 19), (3, 44)])
def test_every_path_is_reached_and_declared(kind: str, lmax: int, paths: int) -> None:
    """As many as Clebsch–Gordan (methods of arXiv 2506.13523: 6, 19, 44); each carries signal of its own."""
    out = Irreps([(1, (l, p)) for l in range(2 * lmax + 1) for p in (1, -1)])
    product = make(kind, str(natural_irreps(lmax)), str(natural_irreps(lmax)), str(out))
    found = {
        tuple(product.sides[side][n].ir.l for side, n in enumerate(key))
        for key, tensor in couplings(product).items()
        if tensor.norm() > 1e-10
    }
    assert found == set(product.expressivity.paths)
    assert len(found) == paths
    assert product.expressivity.antisymmetric_paths


@pytest.mark.parametrize("kind", KINDS)
def test_coupling_power_from_few_evaluations(kind: str) -> None:
    product = make(kind, "1o+1e+2e", "1o+1e+2e", "0e+1o+1e+2e+3o", normalization="none")
    expected = torch.zeros_like(product.power)
    for key, tensor in couplings(product).items():
        expected[key] = tensor.square().sum((0, 1)).mean()
    assert (product.coupling_power() - expected).abs().max() < 1e-13 * expected.max()


@pytest.mark.parametrize("kind", ["vector", "matrix"])
def test_pieces_of_rows_give_the_same(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    product = make(kind, "2x1o+2x2e+2x3o", "2x1o+2x2e+2x3o", "2x0e+2x1e")
    inputs = contract.random_inputs(product, rows=11)
    monkeypatch.setattr(row_chunks, "CACHE_BYTES", 10**12)
    at_once = product(*inputs)
    monkeypatch.setattr(row_chunks, "CACHE_BYTES", 1)
    assert (product(*inputs) - at_once).abs().max() < 1e-14


@pytest.mark.parametrize(
    ("kind", "irreps", "options", "words"),
    [
        ("vector", ("0o", "1o", "1e"), {}, "no signal for 0o"),
        ("matrix", ("1o", "0o+1o", "1e"), {"space": "degrees"}, "no signal for 0o"),
        ("matrix_spin", ("5o", "1o", "4e"), {"degree": 2}, "no signal for 5o"),
        ("vector", ("1o", "1o", "0e"), {"products": ["crss"]}, "Did you mean 'cross'"),
        ("vector", ("1o", "1o", "0e"), {"products": []}, "at least one of dot, cross"),
        ("cross", ("1o", "1o", "0e"), {}, "cannot reach"),
        ("matrix", ("1o", "1o", "0e"), {"space": "spn"}, "Did you mean 'spin'"),
        ("matrix", ("1o", "1o", "0e"), {"degree": -1}, "0 or more, got -1"),
    ],
)
def test_refusals(kind: str, irreps: tuple[str, str, str], options: dict, words: str) -> None:
    cls, special = KINDS[kind]
    with pytest.raises(ConfigError, match=words):
        cls(*map(Irreps, irreps), "uuu", **{**special, **options})


@pytest.mark.parametrize(
    ("fibers", "words"),
    [
        ({"fiber1": "vector"}, "one irrep such as '1o', got 'vector'"),
        ({"fiber3": "3e"}, "among 0e, 1e, 2e"),
        ({"fiber3": ["1e", "1e"]}, "different irreps"),
        ({"fiber3": []}, "different irreps"),
    ],
)
def test_fibers_that_do_not_fit_are_refused(fibers: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        IrrepGrid(Irreps("1o"), Irreps("1o"), Irreps("0e"), "uuu", **fibers)
