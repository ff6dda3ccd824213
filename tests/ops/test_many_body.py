"""Many-body products: the contract of every shipped backend, and what is special to each."""

from functools import cache
from itertools import permutations
from math import comb

import pytest
import torch
from e3nn.o3 import Irrep, Irreps, spherical_harmonics, wigner_3j

import mlip.testing.many_body as contract
from mlip.core.errors import ConfigError, ShapeError
from mlip.ops.layout import natural_irreps, split_blocks
from mlip.ops.many_body.base import ManyBodyProduct
from mlip.ops.many_body.symmetric_basis import gaussian_vectors, multisets, rank, symmetric_bases
from mlip.ops.sphere_grid import gauss_legendre_grid
from tests.components import component_names, factory

BACKENDS = component_names("many_body")
GAUNT = [name for name in BACKENDS if name.startswith("gaunt")]
EXAMPLES = contract.irreps_examples()


@cache
def make(name: str, example: int) -> ManyBodyProduct:
    irreps_in, irreps_out, correlation = EXAMPLES[example]
    return factory("many_body", name)(irreps_in=irreps_in, irreps_out=irreps_out, correlation=correlation).double()


def natural(name: str, lmax: int, lmax_out: int, correlation: int, channels: int = 2) -> ManyBodyProduct:
    irreps_in, irreps_out = natural_irreps(lmax, channels), natural_irreps(lmax_out)
    return factory("many_body", name)(irreps_in=irreps_in, irreps_out=irreps_out, correlation=correlation).double()


@pytest.fixture(params=[(name, k) for name in BACKENDS for k in range(len(EXAMPLES))], ids=lambda p: f"{p[0]}-{p[1]}")
def product(request: pytest.FixtureRequest) -> ManyBodyProduct:
    return make(*request.param)


# The contract.


def test_every_backend_is_enumerated() -> None:
    assert {"symmetric_contraction", "gaunt_grid", "gaunt_fourier"} <= set(BACKENDS)


def test_equivariant_under_rotations_and_inversion(product: ManyBodyProduct) -> None:
    assert contract.equivariance_error(product) < 1e-11


def test_terms_are_homogeneous_polynomials(product: ManyBodyProduct) -> None:
    assert contract.homogeneity_error(product) < 1e-11


def test_rows_and_channels_are_independent(product: ManyBodyProduct) -> None:
    assert contract.row_dependence(product) < 1e-12
    assert contract.channel_mixing(product) < 1e-12


def test_weights_by_index(product: ManyBodyProduct) -> None:
    assert contract.index_error(product) < 1e-12
    assert contract.index_gradient_error(product) < 1e-10


def test_empty_batch(product: ManyBodyProduct) -> None:
    assert contract.empty_batch_problems(product) == 0


def test_precision(product: ManyBodyProduct) -> None:
    assert contract.float32_error(product) < 1e-5
    assert contract.lost_digits(product) == 0.0


def test_nothing_is_in_the_state(product: ManyBodyProduct) -> None:
    assert not list(product.parameters())
    assert not product.state_dict()


def test_what_it_returns_is_what_it_says(product: ManyBodyProduct) -> None:
    x, weight = contract.random_inputs(product)
    assert product(x, weight).shape == (len(x), product.irreps_out.dim)
    assert {mul for mul, _ in product.irreps_out} == {product.num_channels}
    assert product.weight_numel == product.num_channels * sum(term.count for term in product.terms)
    strided = torch.stack([x, x], dim=2)[:, :, 0]
    assert torch.equal(product(strided, weight), product(x, weight))


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("correlation", [1, 2, 3, 4])
def test_first_and_second_gradients(name: str, correlation: int) -> None:
    assert contract.failed_gradient_checks(natural(name, 1, 1, correlation, channels=1)) == 0


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize(("irreps", "correlation"), [("1x0e+1x1o", 4), ("2x2e", 3)])
def test_unit_variance_of_every_polynomial(name: str, irreps: str, correlation: int) -> None:
    product = factory("many_body", name)(Irreps(irreps), natural_irreps(3), correlation).double()
    assert contract.unit_variance_error(product) < 1e-11


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize(
    ("irreps_in", "irreps_out", "correlation", "words"),
    [
        ("4x0e+2x1o", "0e", 2, "same multiplicity"),
        ("4x0e+4x0e", "0e", 2, "each irrep once"),
        ("4x0e", "1o", 3, "reaches"),
        ("4x0e", "2x0e", 3, "channels"),
        ("4x0e", "0e", 0, "correlation"),
        ("4x0e", "0e", 5, "correlation"),
        ("4x0e", "0e", 2.5, "correlation"),
        ("", "0e", 2, "entries"),
        ("4x0e", "", 2, "entries"),
        ("1x13o", "13o", 1, "up to 12"),
    ],
)
def test_what_it_cannot_do_is_refused(name: str, irreps_in: str, irreps_out: str, correlation: int, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        factory("many_body", name)(Irreps(irreps_in), Irreps(irreps_out), correlation)


@pytest.mark.parametrize("name", BACKENDS)
def test_wrong_shapes_are_refused(name: str) -> None:
    product = make(name, 0)
    x, weight = contract.random_inputs(product)
    index = torch.zeros(5, dtype=torch.long)
    bad = [
        (x[:, 1:], weight, None),
        (x[0], weight, None),
        (x, weight[:3], None),
        (x, weight[:, 1:], None),
        (x, weight[0, 1:], None),
        (x, weight[0], index),
        (x, weight[:, 1:], index),
        (x, weight, index[:3]),
    ]
    for arguments in bad:
        with pytest.raises(ShapeError, match="needs"):
            product(*arguments)


# Gaunt.


@pytest.mark.parametrize("name", GAUNT)
@pytest.mark.parametrize(
    ("lmax", "correlation"), [(1, 4), (2, 2), (2, 3), (2, 4), (3, 2), (3, 3), (3, 4), (4, 3), (5, 3), (6, 3)]
)
def test_gaunt_is_repeated_multiplication_by_gaunt_coefficients(name: str, lmax: int, correlation: int) -> None:
    product = natural(name, lmax, min(lmax, 3), correlation)
    x, weight = contract.random_inputs(product, rows=2)
    assert (product(x, weight) - contract.gaunt_oracle(product, x, weight)).abs().max() < 1e-12


@pytest.mark.parametrize("name", GAUNT)
@pytest.mark.parametrize("example", range(len(EXAMPLES)))
def test_gaunt_is_the_fft_of_the_paper(name: str, example: int) -> None:
    product = make(name, example)
    x, weight = contract.random_inputs(product)
    assert (product(x, weight) - contract.fourier_convolutions(product, x, weight)).abs().max() < 1e-12


@pytest.mark.parametrize("name", GAUNT)
def test_correlation_three_is_a_mean_over_the_sphere(name: str) -> None:
    """f³ from e3nn's harmonics, averaged on a grid far finer than needed; f itself left out by its weight."""
    product = natural(name, 3, 2, 3, channels=1)
    x, weight = contract.random_inputs(product)
    weight[:, :6] = 0.0
    grid = gauss_legendre_grid(24, 48)
    harmonics = spherical_harmonics(list(range(4)), grid.points, normalize=True, normalization="component")
    cubes = (x @ harmonics.T) ** 3
    result = product(x, weight)
    for l in range(3):
        columns = slice(l * l, (l + 1) ** 2)
        expected = (cubes * grid.weights) @ harmonics[:, columns] * weight[:, 6 + l, None]
        ratio = result[:, columns] / expected
        assert (ratio - ratio[0, 0]).abs().max() < 1e-10


@pytest.mark.parametrize("name", GAUNT)
def test_gaunt_refuses_other_parities(name: str) -> None:
    with pytest.raises(ConfigError, match="symmetric_contraction takes any"):
        factory("many_body", name)(Irreps("2x0e+2x1e"), Irreps("0e"), 2)


@pytest.mark.parametrize(("lmax", "correlation"), [(1, 4), (2, 3), (3, 3), (2, 4)])
def test_gaunt_terms_are_symmetric_contractions(lmax: int, correlation: int) -> None:
    """Least squares in the larger family leaves nothing, and orthonormality gives the norm of the coefficients."""
    gaunt, full = (natural(name, lmax, 2, correlation, 1) for name in ("gaunt_grid", "symmetric_contraction"))
    x = torch.randn(200, gaunt.irreps_in.dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    by_term = {(term.nu, term.ir): k for k, term in enumerate(gaunt.terms)}
    start = 0
    for term in full.terms:
        columns = []
        for k in range(start, start + term.count):
            weight = torch.zeros(full.weight_numel, dtype=torch.float64)
            weight[k] = full.num_polynomials(term.ir) ** 0.5
            columns.append(full(x, weight).flatten())
        start += term.count
        if (term.nu, term.ir) not in by_term:
            continue
        weight = torch.zeros(gaunt.weight_numel, dtype=torch.float64)
        weight[by_term[term.nu, term.ir]] = gaunt.num_polynomials(term.ir) ** 0.5
        target = gaunt(x, weight).flatten()
        design = torch.stack(columns, dim=1)
        solution = torch.linalg.lstsq(design, target[:, None]).solution[:, 0]
        assert (design @ solution - target).abs().max() < 1e-11
        assert float(solution.square().sum()) == pytest.approx(1.0, abs=1e-11)


# The symmetric basis.


@pytest.mark.parametrize(
    ("irreps", "correlation"),
    [
        ("0e+1o", 4),
        ("0e+1o+2e", 4),
        ("0e+1o+2e+3o", 3),
        ("0e+1o+2e+3o", 4),
        ("0o+1e+1o", 3),
        ("2o+3e", 3),
    ],
)
def test_number_of_polynomials_is_that_of_the_characters(irreps: str, correlation: int) -> None:
    wanted = [Irrep(l, p) for l in range(4) for p in (1, -1)]
    bases = symmetric_bases(Irreps(irreps), wanted, correlation)
    found = {(basis.nu, basis.ir): len(basis.coefficients) for basis in bases}
    for nu in range(1, correlation + 1):
        for ir in wanted:
            assert found.get((nu, ir), 0) == contract.multiplicity(Irreps(irreps), nu, ir)


def test_characters_count_known_cases() -> None:
    """Sym³ of a vector is l = 1 and 3; all irreps of Sym^ν together have its dimension."""
    vector = Irreps("1o")
    assert [contract.multiplicity(vector, 3, Irrep(l, -1)) for l in range(4)] == [0, 1, 0, 1]
    irreps = Irreps("0e+1o+2e")
    total = sum((2 * l + 1) * contract.multiplicity(irreps, 3, Irrep(l, p)) for l in range(7) for p in (1, -1))
    assert total == comb(9 + 2, 3)


@pytest.mark.parametrize(("irreps", "correlation"), [("0e+1o+2e+3o", 3), ("0e+1o+2e", 4)])
def test_basis_is_orthonormal_component_by_component(irreps: str, correlation: int) -> None:
    for basis in symmetric_bases(Irreps(irreps), [Irrep("0e"), Irrep("1o"), Irrep("2e")], correlation):
        for m in range(basis.ir.dim):
            vectors = gaussian_vectors(basis.coefficients[:, m], basis.nu, Irreps(irreps).dim)
            assert (vectors @ vectors.T - torch.eye(len(vectors))).abs().max() < 1e-11


def test_gaussian_vectors_give_moments() -> None:
    """E[x⁴] = 3, E[x²y²] = 1, E[x³·x] = 3, E[x²·yx] = 0."""
    sets = multisets(2, 2).tolist()
    unit = gaussian_vectors(torch.eye(3, dtype=torch.float64), 2, 2)
    moments = unit @ unit.T
    expected = torch.tensor([[3.0, 0, 1], [0, 1, 0], [1, 0, 3]], dtype=torch.float64)
    assert sets == [[0, 0], [0, 1], [1, 1]]
    assert torch.allclose(moments, expected, atol=1e-13)
    quartic = gaussian_vectors(torch.eye(5, dtype=torch.float64), 4, 2)
    assert torch.allclose((quartic @ quartic.T).diagonal(), torch.tensor([105.0, 15, 9, 15, 105]).double(), atol=1e-11)


def test_multisets_do_not_know_an_order() -> None:
    sets = multisets(4, 3)
    for order in permutations(range(3)):
        assert torch.equal(rank(sets[:, list(order)], 4), torch.arange(len(sets)))


@pytest.mark.parametrize("ir_out", ["0e", "1o", "2e", "1e"])
def test_every_coupling_of_mace_is_in_the_span(ir_out: str) -> None:
    """((x x)_L' x)_L for all paths, with e3nn's 3j: MACE's couplings of equal features, no more and no fewer."""
    ir, irreps = Irrep(ir_out), natural_irreps(2)
    x = torch.randn(60, irreps.dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    pairs = _couple(list(zip([member for _, member in irreps], split_blocks(x, irreps))), x, irreps)
    triples = [values.flatten() for found, values in _couple(pairs, x, irreps) if found == ir]
    design = torch.stack(triples, dim=1)
    basis = [b for b in symmetric_bases(irreps, [ir], 3) if b.nu == 3]
    expected = len(basis[0].coefficients) if basis else 0
    assert torch.linalg.matrix_rank(design, atol=1e-9, rtol=1e-9) == expected
    if basis:
        monomials = x[:, multisets(irreps.dim, 3)].prod(dim=2)
        values = torch.einsum("kcm,rm->rck", basis[0].coefficients, monomials).flatten(0, 1)
        assert (values @ torch.linalg.lstsq(values, design).solution - design).abs().max() < 1e-11


def _couple(
    terms: list[tuple[Irrep, torch.Tensor]], x: torch.Tensor, irreps: Irreps
) -> list[tuple[Irrep, torch.Tensor]]:
    coupled = []
    for ir1, a in terms:
        for (_, ir2), b in zip(irreps, split_blocks(x, irreps)):
            for ir in ir1 * ir2:
                symbol = wigner_3j(ir1.l, ir2.l, ir.l, dtype=torch.float64)
                coupled.append((ir, torch.einsum("abc,rau,rbu->rcu", symbol, a, b)))
    return coupled


def test_symmetric_contraction_takes_any_parity() -> None:
    product = factory("many_body", "symmetric_contraction")(Irreps("2x0o+2x1e+2x1o"), Irreps("0o+1e+1o"), 3).double()
    assert [str(ir) for _, ir in product.irreps_out] == ["0o", "1o", "1e"]
    assert contract.equivariance_error(product) < 1e-11
    assert contract.homogeneity_error(product) < 1e-11


def test_symmetric_contraction_states_its_limit() -> None:
    with pytest.raises(ConfigError, match="take fewer degrees"):
        natural("symmetric_contraction", 6, 0, 4)


def test_symmetric_contraction_refuses_an_index_beyond_the_sets() -> None:
    product = make("symmetric_contraction", 0)
    x, weight = contract.random_inputs(product)
    with pytest.raises(ShapeError, match="goes up to 5"):
        product(x, weight, torch.tensor([0, 1, 5, 0, 0]))


def test_basis_is_the_same_every_time() -> None:
    wanted = [Irrep("0e"), Irrep("2e")]
    first, second = (symmetric_bases(natural_irreps(2), wanted, 3) for _ in range(2))
    assert all(torch.equal(a.coefficients, b.coefficients) for a, b in zip(first, second))
