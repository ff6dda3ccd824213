"""Sparse products: tables of nonzeros, their derivatives of any order, generated code and its compilation."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations

import pytest
import torch
from e3nn.o3 import Irreps
from torch import Tensor

from mlip.ops.layout import natural_irreps
from mlip.ops.tensor_product.nonzeros import (
    COPIED_FROM,
    Form,
    NonzeroTable,
    Shared,
    WeightedTable,
    contract,
    evaluate_eagerly,
)
from mlip.ops.tensor_product.unrolled_source import needed_slots, shared_columns, unrolled_source
from mlip.ops.wigner import gaunt_coefficients
from tests.components import factory

WANTED = [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2)]
WEIGHTED_WANTED = [*WANTED, (3,), (0, 3), (2, 3), (0, 1, 3), (1, 2, 3), (0, 2, 3)]
EVERY: Shared = ((), (), ())


def gaunt_table(lmax: int) -> NonzeroTable:
    size = (lmax + 1) ** 2
    degrees = range(lmax + 1)
    blocks = [
        ((a * a, b * b, c * c), gaunt_coefficients(a, b, c))
        for a in degrees
        for b in degrees
        for c in degrees
        if abs(a - b) <= c <= a + b
    ]
    return NonzeroTable.from_blocks((size, size, size), blocks)


def random_table(sizes: tuple[int, int, int] = (3, 4, 5), seed: int = 0) -> NonzeroTable:
    """No symmetry at all, and components that no entry reaches."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(sizes, generator=generator, dtype=torch.float64)
    values[torch.rand(sizes, generator=generator) < 0.6] = 0.0
    values[0], values[:, 1], values[:, :, 2] = 0.0, 0.0, 0.0
    return NonzeroTable.from_blocks(sizes, [((0, 0, 0), values)])


def weighted(table: NonzeroTable) -> WeightedTable:
    """Scale the components of the third slot by three weights and add them up in twos."""
    size = table.sizes[2]
    return WeightedTable(table, tuple(q // 2 for q in range(size)), tuple(q % 3 for q in range(size)))


def dense(form: Form) -> Tensor:
    if isinstance(form, NonzeroTable):
        return form.dense()
    full = torch.zeros(form.sizes, dtype=torch.float64)
    for q, (k, p) in enumerate(zip(form.outputs, form.weights)):
        full[:, :, k, p] += form.table.dense()[:, :, q]
    return full


def expected(form: Form, wanted: int, shared: Shared, operands: list[Tensor]) -> Tensor:
    """The derivative of the form with respect to a slot, from the dense coefficients."""
    letters = "xyzw"[: len(operands)]
    full = torch.broadcast_shapes(*(t[:, :1].shape for t in operands))
    others = [s for s in range(len(operands)) if s != wanted]
    spread = [operands[s].expand(full[0], -1, full[2]) for s in others]
    subscripts = ",".join([letters, *(f"r{letters[s]}c" for s in others)])
    result = torch.einsum(f"{subscripts}->r{letters[wanted]}c", dense(form), *spread)
    return result.sum(shared[wanted], keepdim=True) if shared[wanted] else result


def random_operands(form: Form, shared: Shared, rows: int = 5, channels: int = 4) -> list[Tensor]:
    torch.manual_seed(0)
    return [
        torch.randn(1 if 0 in dims else rows, size, 1 if 2 in dims else channels, dtype=torch.float64)
        for size, dims in zip(form.sizes, shared)
    ]


def run_source(form: Form, wanted: tuple[int, ...], shared: Shared, operands: list[Tensor]) -> list[Tensor]:
    """Run the generated code without compiling it."""
    space = {"torch": torch}
    exec(unrolled_source(form, wanted, shared, "generated"), space)
    results = space["generated"](*(operands[s] for s in needed_slots(form, wanted)))
    return [r.sum(0, keepdim=True) if 0 in shared[s] else r for s, r in zip(wanted, results)]


FORMS = {
    "random": (random_table(), EVERY),
    "random, single filter": (random_table(), ((), (2,), ())),
    "gaunt": (gaunt_table(2), EVERY),
    "gaunt, component order": (gaunt_table(4), EVERY),
    "weighted": (weighted(random_table((3, 4, 6))), (*EVERY, ())),
    "weighted, all shared": (weighted(random_table((3, 4, 6))), ((), (2,), (), (0, 2))),
    "weighted, rows shared": (weighted(gaunt_table(1)), (*EVERY, (0,))),
}


@pytest.mark.parametrize("evaluate", [evaluate_eagerly, run_source], ids=["eager", "generated"])
@pytest.mark.parametrize("name", FORMS)
def test_every_derivative_of_a_form(name: str, evaluate: Callable[..., list[Tensor]]) -> None:
    form, shared = FORMS[name]
    operands = random_operands(form, shared)
    for wanted in WEIGHTED_WANTED if len(form.sizes) == 4 else WANTED:
        for slot, found in zip(wanted, evaluate(form, wanted, shared, operands)):
            reference = expected(form, slot, shared, operands)
            assert found.shape == reference.shape
            torch.testing.assert_close(found, reference, rtol=0, atol=1e-12)


def test_both_ways_of_eager_evaluation_are_tested() -> None:
    copied = [len(form) >= COPIED_FROM * sum(form.sizes) for form, _ in FORMS.values()]
    assert any(copied)
    assert not all(copied)


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_exchange_is_a_permutation_of_the_dense_coefficients(order: tuple[int, int, int]) -> None:
    table = random_table()
    assert torch.equal(table.exchanged(order).dense(), table.dense().permute(order))
    back = tuple(order.index(s) for s in range(3))
    assert table.exchanged(order).exchanged(back) == table


def test_exchanged_tables_are_the_gradients() -> None:
    table = random_table()
    x, y, z = random_operands(table, EVERY)
    x.requires_grad_(), y.requires_grad_()
    dx, dy = torch.autograd.grad(contract(table, x, y), (x, y), z)
    torch.testing.assert_close(contract(table.exchanged((2, 1, 0)), z, y), dx, rtol=0, atol=1e-13)
    torch.testing.assert_close(contract(table.exchanged((0, 2, 1)), x, z), dy, rtol=0, atol=1e-13)


def test_table_refuses_what_is_none() -> None:
    with pytest.raises(ValueError, match="outside"):
        NonzeroTable((2, 2, 2), ((0, 2, 0, 1.0),))
    with pytest.raises(ValueError, match="twice"):
        NonzeroTable((2, 2, 2), ((0, 1, 0, 1.0), (0, 1, 0, 2.0)))


def test_blocks_that_overlap_are_summed_and_may_cancel() -> None:
    one = torch.ones(1, 1, 1, dtype=torch.float64)
    table = NonzeroTable.from_blocks(
        (2, 2, 2), [((0, 1, 1), one), ((0, 1, 1), 2 * one), ((1, 0, 0), one), ((1, 0, 0), -one)]
    )
    assert table.entries == ((0, 1, 1, 3.0),)


def test_equal_contents_are_one_key() -> None:
    assert random_table() == random_table()
    assert hash(random_table()) == hash(random_table())
    assert random_table() != random_table(seed=1)
    forms = {weighted(random_table()), weighted(random_table()), random_table()}
    assert len(forms) == 2


@pytest.mark.parametrize("slot", [0, 1, 2])
@pytest.mark.parametrize("table", [gaunt_table(3), random_table()], ids=["gaunt", "random"])
def test_shared_columns_hold_every_coefficient(table: NonzeroTable, slot: int) -> None:
    a, b = (s for s in range(3) if s != slot)
    found = torch.zeros(table.sizes, dtype=torch.float64).permute(a, b, slot).contiguous()
    for column, members in shared_columns(table, slot):
        for k, value in column:
            for i, j, ratio in members:
                assert found[i, j, k] == 0.0
                found[i, j, k] = ratio * value
    torch.testing.assert_close(found, table.dense().permute(a, b, slot), rtol=0, atol=1e-12)


def test_code_shares_the_work_of_a_symmetric_product() -> None:
    """A plain sum takes two multiplications for each nonzero and slot."""
    table = gaunt_table(3)
    assert unrolled_source(table, (2,), EVERY).count(" * ") < 1.2 * len(table)
    assert unrolled_source(table, (0, 1), EVERY).count(" * ") < 2 * len(table)


@pytest.mark.parametrize("shared", [EVERY, ((), (2,), ())], ids=["channels", "single filter"])
def test_derivatives_of_any_order(shared: Shared) -> None:
    table = random_table((2, 3, 3))
    x, y, _ = (t.requires_grad_() for t in random_operands(table, shared, rows=2, channels=2))
    assert torch.autograd.gradcheck(lambda x, y: contract(table, x, y), (x, y))
    assert torch.autograd.gradgradcheck(lambda x, y: contract(table, x, y), (x, y))

    def second(x: Tensor, y: Tensor) -> Tensor:
        (first,) = torch.autograd.grad(contract(table, x, y).pow(3).sum(), x, create_graph=True)
        return torch.autograd.grad(first.pow(2).sum(), y, create_graph=True)[0]

    assert torch.autograd.gradcheck(second, (x, y))


@pytest.mark.parametrize("dims", [(), (0,), (2,), (0, 2)], ids=str)
def test_derivatives_with_weights(dims: tuple[int, ...]) -> None:
    form = weighted(random_table((2, 3, 4)))
    x, y, _, w = (t.requires_grad_() for t in random_operands(form, (*EVERY, dims), rows=2, channels=2))
    assert torch.autograd.gradcheck(lambda *t: contract(form, *t), (x, y, w))
    assert torch.autograd.gradgradcheck(lambda *t: contract(form, *t), (x, y, w))


def test_only_the_inputs_are_saved() -> None:
    table = gaunt_table(2)
    x, y = (torch.randn(3, 9, 2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    saved: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        contract(table, x, y)
    assert {t.data_ptr() for t in saved} == {x.data_ptr(), y.data_ptr()}


def test_gradient_of_one_input_alone_does_no_work_for_the_other() -> None:
    asked: list[tuple[int, ...]] = []

    def spy(form: Form, wanted: tuple[int, ...], *rest: object) -> list[Tensor]:
        asked.append(wanted)
        return evaluate_eagerly(form, wanted, *rest)

    x, y = torch.randn(2, 4, 3, requires_grad=True), torch.randn(2, 4, 3)
    contract(gaunt_table(1), x, y, evaluator=spy).sum().backward()
    assert asked == [(2,), (0,)]


MODES = [
    ("uuu", "4x0e+4x1o+4x2e", "4x0e+4x1o+4x1e", "4x0e+4x1o+4x2e+4x1e"),
    ("uvu", "4x0e+3x1o+3x2e", "0e+1o+2e", "4x0e+3x1o+2x2e+1e"),
    ("uvuv", "4x0e+4x1o+3x2e", "2x0e+2x1o+3x2e", "1x0e+1x1o+1x2e+1x1e"),
    ("uvuv", "4x0e+4x1o", "2x0e+2x1o", "1x0e+1x1o+1x2e"),
    ("uvw", "4x0e+4x1o+3x2e", "2x0e+2x1o+3x2e", "4x0e+3x1o+2x2e+1x1e"),
    ("uvw", "4x0e+4x1o+3x2e", "0e+1o", "4x0e+3x1o+2x2e"),
]


@pytest.mark.parametrize("normalization", ["component", "norm", "none"])
@pytest.mark.parametrize("weights", ["path_channel", "path", "none"])
@pytest.mark.parametrize("case", MODES, ids=lambda case: f"{case[0]}-{case[2]}")
def test_numbers_are_those_of_the_dense_product(case: tuple[str, ...], weights: str, normalization: str) -> None:
    mode, *texts = case
    if mode == "uvw" and weights != "path_channel":
        pytest.skip("mode uvw has no other weights")
    options = (*map(Irreps, texts), mode, weights, normalization)
    ours, other = (factory("tensor_product", f"clebsch_gordan_{n}")(*options).double() for n in ("sparse", "dense"))
    assert (ours.irreps_out, ours.weight_numel) == (other.irreps_out, other.weight_numel)
    torch.manual_seed(0)
    for shape in ((5, other.weight_numel), (other.weight_numel,)):
        inputs = [torch.randn(5, ir.dim, dtype=torch.float64) for ir in (other.irreps_in1, other.irreps_in2)]
        inputs += [torch.randn(shape, dtype=torch.float64)] if other.weight_numel else []
        inputs = [x.requires_grad_() for x in inputs]
        found, reference = ours(*inputs), other(*inputs)
        torch.testing.assert_close(found, reference, rtol=0, atol=1e-12)
        cotangent = torch.randn_like(found)
        gradients = [torch.autograd.grad(result, inputs, cotangent) for result in (found, reference)]
        torch.testing.assert_close(*gradients, rtol=0, atol=1e-12)


@pytest.mark.parametrize("lmax", [2, 6])
def test_gaunt_sparse_is_gaunt_grid(lmax: int) -> None:
    irreps = natural_irreps(lmax, 2)
    ours, other = (
        factory("tensor_product", f"gaunt_{n}")(irreps, irreps, irreps, mode="uuu").double() for n in ("sparse", "grid")
    )
    torch.manual_seed(0)
    x1, x2, weight = (torch.randn(3, n, dtype=torch.float64) for n in (irreps.dim, irreps.dim, other.weight_numel))
    torch.testing.assert_close(ours(x1, x2, weight), other(x1, x2, weight), rtol=0, atol=1e-12)


def test_gaunt_sparse_without_normalisation_is_the_plain_coefficients() -> None:
    product = factory("tensor_product", "gaunt_sparse")(
        *[natural_irreps(2)] * 3, mode="uuu", weights="none", normalization="none"
    )
    assert product.table == gaunt_table(2)


@pytest.mark.parametrize("name", ["clebsch_gordan_sparse", "gaunt_sparse"])
def test_rows_none_and_inputs_not_contiguous(name: str) -> None:
    irreps = natural_irreps(2, 3)
    product = factory("tensor_product", name)(irreps, irreps, irreps, mode="uuu", weights="none").double()
    torch.manual_seed(0)
    x1, x2 = (torch.randn(irreps.dim, 4, dtype=torch.float64).T for _ in range(2))
    assert not x1.is_contiguous()
    assert torch.equal(product(x1, x2), product(x1.contiguous(), x2.contiguous()))
    empty = torch.zeros(0, irreps.dim, dtype=torch.float64, requires_grad=True)
    assert product(empty, x2[:0]).shape == (0, product.irreps_out.dim)
    assert torch.autograd.grad(product(empty, x2[:0]).sum(), empty)[0].shape == empty.shape
