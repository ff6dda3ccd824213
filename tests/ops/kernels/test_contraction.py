"""Generated contractions against the eager evaluation of the same tables."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch
from e3nn.o3 import Irreps
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from mlip.core.errors import ConfigError
from mlip.ops.kernels import contraction, contraction_source
from mlip.ops.kernels.compiler import NoCompiler, compiler
from mlip.ops.kernels.contraction import evaluate_native
from mlip.ops.tensor_product import evaluators
from mlip.ops.tensor_product.base import TensorProduct
from mlip.ops.tensor_product.nonzeros import NonzeroTable, WeightedTable, contract, evaluate_eagerly
from tests.components import factory
from tests.ops.test_sparse import FORMS, expected, random_operands

try:
    compiler()
except NoCompiler as error:
    pytest.skip(str(error), allow_module_level=True)

TABLE = NonzeroTable((3, 2, 4), ((0, 0, 1, 0.5), (0, 1, 3, -1.25), (1, 1, 0, 2.0), (2, 0, 2, 0.75), (2, 1, 2, -0.3)))
SLOW = pytest.mark.slow
# The contracts of products run the same code in the quick tests.
pytestmark = SLOW
WEIGHTED = WeightedTable(TABLE, outputs=(0, 1, 1, 2), weights=(1, 0, 0, 1))


@pytest.mark.parametrize("form", [pytest.param(TABLE, id="plain", marks=SLOW), pytest.param(WEIGHTED, id="weighted")])
@pytest.mark.parametrize("channels", [*(pytest.param(n, marks=SLOW) for n in (1, 3, 16)), 21])
@pytest.mark.parametrize("single", [(), (1,)], ids=["all have channels", "a filter"])
def test_every_set_of_derivatives(form, channels, single) -> None:
    if channels == 1 and single:
        pytest.skip("one channel is one channel")
    generator = torch.Generator().manual_seed(0)
    slots = range(len(form.sizes))
    shared = tuple((2,) if slot in single else () for slot in slots)
    operands = [
        torch.randn(5, size, 1 if slot in single else channels, generator=generator, dtype=torch.float64)
        for slot, size in enumerate(form.sizes)
    ]
    for count in (1, 2, len(form.sizes)):
        for wanted in itertools.combinations(slots, count):
            found, expected = (run(form, wanted, shared, operands) for run in (evaluate_native, evaluate_eagerly))
            for one, other in zip(found, expected, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rows", [0, 1])
def test_few_rows_and_shared_weights(rows) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(rows, size, 8, generator=generator, dtype=torch.float64) for size in TABLE.sizes[:2])
    weight = torch.randn(1, 2, 8, generator=generator, dtype=torch.float64)
    found, expected = (contract(WEIGHTED, x, y, weight, run) for run in (evaluate_native, evaluate_eagerly))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("wanted", [(2,), (0, 1, 3)], ids=str)
@pytest.mark.parametrize("name", ["weighted, all shared", "weighted, rows shared"])
def test_code_in_several_functions(name, wanted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contraction_source, "NONZEROS_A_FUNCTION", 5)
    contraction._library.cache_clear()
    form, shared = FORMS[name]
    operands = random_operands(form, shared)
    for slot, found in zip(wanted, evaluate_native(form, wanted, shared, operands), strict=True):
        torch.testing.assert_close(found, expected(form, slot, shared, operands), rtol=1e-12, atol=1e-12)
    contraction._library.cache_clear()


def product(name: str, mode: str, kernels: str, weights: str | None = None) -> TensorProduct:
    irreps = Irreps("3x0e+3x1o")
    second = Irreps("0e+1o") if mode == "uvu" else irreps
    made = factory("tensor_product", name)(irreps, second, irreps, mode, weights).double()
    made.kernels = kernels
    return made


def inputs_of(made: TensorProduct, rows: int = 2, shared: bool = False) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(rows, made.irreps_in1.dim), (rows, made.irreps_in2.dim)]
    if made.weight_numel:
        shapes.append((made.weight_numel,) if shared else (rows, made.weight_numel))
    return [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, ...]]]:
    """What generated C++ was asked for."""
    asked: list[tuple[int, ...]] = []

    def evaluate(form, wanted, *rest):
        asked.append(wanted)
        return evaluate_native(form, wanted, *rest)

    monkeypatch.setattr(evaluators, "evaluate_native", evaluate)
    return asked


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("clebsch_gordan_dense", "uuu"), ("clebsch_gordan_sparse", "uuu"), ("clebsch_gordan_sparse", "uvu"),
        ("clebsch_gordan_sparse", "uvw"), ("gaunt_sparse", "uuu"),
    ],
)  # fmt: skip
def test_products_and_their_derivatives_are_those_of_plain_torch(name, mode, spy) -> None:
    with_kernels, plain = product(name, mode, "on"), product(name, mode, "off")
    assert list(with_kernels.state_dict()) == list(plain.state_dict())
    orders = []
    for made in (plain, with_kernels):
        assert not spy
        tensors = inputs_of(made, shared=mode == "uvw")
        result = made(*tensors)
        first = torch.autograd.grad(result.square().sum(), tensors, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), tensors)
        orders.append((result, *first, *second))
    torch.testing.assert_close(*orders, rtol=1e-12, atol=1e-12)
    assert (2,) in spy
    assert (0, 1) in spy or (0, 1, 3) in spy


def test_third_derivatives(spy) -> None:
    def third(made: TensorProduct) -> tuple[Tensor, ...]:
        x, y, w = inputs_of(made)
        first = torch.autograd.grad(made(x, y, w).pow(2).sum(), x, create_graph=True)[0]
        second = torch.autograd.grad(first.pow(2).sum(), y, create_graph=True)[0]
        return torch.autograd.grad(second.pow(2).sum(), [x, y, w])

    found, reference = (third(product("clebsch_gordan_sparse", "uuu", kernels)) for kernels in ("on", "off"))
    torch.testing.assert_close(found, reference, rtol=1e-12, atol=1e-12)
    assert spy


@pytest.mark.parametrize("name", ["clebsch_gordan_dense", "clebsch_gordan_sparse", "gaunt_sparse"])
def test_auto_looks_at_how_much_there_is_to_do(name, spy, monkeypatch: pytest.MonkeyPatch) -> None:
    made = product(name, "uuu", "auto")
    tensors = inputs_of(made)
    few = made(*tensors)
    assert not spy
    monkeypatch.setattr(evaluators, "ENOUGH", 1)
    made(*tensors)
    assert not spy, "less is enough in training only"
    monkeypatch.setattr(evaluators, "ENOUGH_IN_TRAINING", 1)
    torch.testing.assert_close(made(*tensors), few, rtol=1e-12, atol=1e-12)
    assert spy == [(2,)]
    monkeypatch.setattr(evaluators, "LARGEST_FORM", 1)
    assert torch.equal(made(*tensors), few)
    assert spy == [(2,)]


@pytest.mark.parametrize("name", ["clebsch_gordan_dense", "clebsch_gordan_sparse", "gaunt_sparse"])
def test_without_a_compiler(name, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise NoCompiler("there is none")

    monkeypatch.setattr(evaluators, "prepare", fail)
    monkeypatch.setattr(evaluators, "ENOUGH_IN_TRAINING", 1)
    plain, auto, demanded = (product(name, "uuu", kernels) for kernels in ("off", "auto", "on"))
    assert torch.equal(auto(*inputs_of(auto)), plain(*inputs_of(plain)))
    with pytest.raises(ConfigError, match="kernels=on cannot be done: there is none"):
        demanded(*inputs_of(demanded))


@pytest.mark.parametrize("shared", [False, True], ids=["weights a row", "weights for all"])
@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("clebsch_gordan_dense", "path_channel"), ("clebsch_gordan_sparse", "path"), ("clebsch_gordan_sparse", "none"),
        ("gaunt_sparse", "degree"),
    ],
)  # fmt: skip
def test_what_is_built_before_is_what_is_asked_for(name, weights, shared, monkeypatch: pytest.MonkeyPatch) -> None:
    made = product(name, "uuu", "on", weights)
    known, asked = made.kernel_sources(torch.float64), []

    def load(source: str) -> None:
        asked.append(source)
        raise NoCompiler("not needed")

    monkeypatch.setattr(contraction, "load_library", load)
    monkeypatch.setattr(evaluators, "ENOUGH_IN_TRAINING", 1)
    contraction._library.cache_clear()
    made.kernels = "auto"
    for wanted in (slice(0, 2), slice(0, 3)):
        tensors = inputs_of(made, shared=shared)
        torch.autograd.grad(made(*tensors).sum(), tensors[wanted])
    contraction._library.cache_clear()
    assert asked
    assert set(asked) <= set(known)
    assert product(name, "uuu", "off", weights).kernel_sources(torch.float64) == []


def test_other_numbers_are_refused_only_where_kernels_are_demanded() -> None:
    made = product("clebsch_gordan_sparse", "uuu", "on").bfloat16()
    tensors = [t.detach().bfloat16() for t in inputs_of(made)]
    with pytest.raises(ConfigError, match=r"float32 and float64, not for torch\.bfloat16"):
        made(*tensors)


@pytest.mark.parametrize("name", ["clebsch_gordan_dense", "clebsch_gordan_sparse", "gaunt_sparse"])
def test_who_traces_gets_plain_torch(name, spy, monkeypatch: pytest.MonkeyPatch) -> None:
    made = product(name, "uuu", "on")
    tensors = [t.detach() for t in inputs_of(made)]
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = made(*map(mode.from_tensor, tensors))
    assert fake.shape == (2, made.irreps_out.dim)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    made(*tensors)
    assert not spy


def test_derivatives_of_derivatives() -> None:
    made = product("clebsch_gordan_sparse", "uuu", "on")
    tensors = tuple(inputs_of(made))
    assert torch.autograd.gradcheck(made, tensors)
    assert torch.autograd.gradgradcheck(made, tensors)
