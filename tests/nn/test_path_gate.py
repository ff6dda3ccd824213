"""The sparse gate of paths: its phases, its draws, and the smaller product that remains."""

from __future__ import annotations

from collections import Counter
from copy import deepcopy

import pytest
import torch
from e3nn.o3 import Irreps
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mlip.core.errors import ConfigError
from mlip.nn.orbitals.pair_product import PairProduct
from mlip.nn.orbitals.path_gate import PathGate
from mlip.ops.layout import split_blocks
from mlip.ops.wigner import wigner_3j
from tests.components import factory

IRREPS, WANTED = Irreps("2x0e+2x1o+2x2e"), Irreps("2x0e+2x1o+2x1e+2x2e+2x2o+2x3e+2x4e")


def gate(num_paths: int = 20, sparsity: float = 0.7, random_steps: int = 3, adaptive_steps: int = 2) -> PathGate:
    """Return a gate with distinct strengths around one, the last paths strongest."""
    made = PathGate(num_paths, sparsity, random_steps, adaptive_steps).double()
    with torch.no_grad():
        made.strengths.add_(torch.linspace(-0.5, 0.5, num_paths, dtype=torch.float64))
    return made


def product(backend: str = "clebsch_gordan_dense", sparsity: float = 0.7) -> PairProduct:
    made = PairProduct(IRREPS, WANTED, factory("tensor_product", backend), lambda count: gate(count, sparsity))
    return made.double()


def inputs(made: PairProduct, rows: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    sizes = (IRREPS.dim, IRREPS.dim, made.weight_numel)
    x1, x2, weight = (torch.randn(rows, n, generator=generator, dtype=torch.float64) for n in sizes)
    return x1, x2, weight


def test_phases_begin_at_their_steps() -> None:
    made = gate().train()
    kinds = []
    for step in range(7):
        made.begin_step(step)
        numbers = made().numbers
        kinds.append("fixed" if made.is_fixed else "adaptive" if numbers.tolist() == list(range(14, 20)) else "random")
        assert len(numbers) == made.num_kept == 6
    assert kinds == ["random"] * 3 + ["adaptive"] * 2 + ["fixed"] * 2


def test_validations_do_not_count() -> None:
    made = gate().train()
    made.begin_step(2)
    made.eval()
    for _ in range(50):
        made()
    assert int(made.step) == 2
    assert not made.is_fixed


def test_draws_are_uniform_and_of_the_right_size() -> None:
    made, counts = gate(random_steps=2000).train(), torch.zeros(20)
    for step in range(2000):
        made.begin_step(step)
        drawn = made().numbers
        assert len(set(drawn.tolist())) == 6
        assert torch.equal(drawn, drawn.sort().values)
        counts[drawn] += 1
    # 600 expected, standard deviation 20.
    assert float(counts.min()) > 500
    assert float(counts.max()) < 700


def test_draws_are_those_of_the_gate_and_the_step() -> None:
    """Whatever else draws numbers, in every process and after an interruption; another gate has others."""
    made, other = gate(random_steps=100).train(), gate(random_steps=100).train()
    again = deepcopy(made)
    same = 0
    for step in range(50):
        drawn = []
        for each in (made, again, other):
            torch.rand(step)
            each.begin_step(step)
            drawn.append(each().numbers.tolist())
        assert drawn[0] == drawn[1] == made().numbers.tolist()
        same += drawn[0] == drawn[2]
    assert same < 3


def test_adaptive_follows_the_strengths_and_fixed_does_not() -> None:
    made = gate().train()
    made.begin_step(3)
    assert made().numbers.tolist() == list(range(14, 20))
    with torch.no_grad():
        made.strengths[0] = 9.0
    assert made().numbers.tolist() == [0, *range(15, 20)]
    made.begin_step(5)
    numbers, scales = made()
    with torch.no_grad():
        made.strengths.copy_(made.strengths.flip(0))
    made.begin_step(6)
    assert torch.equal(made().numbers, numbers)
    assert torch.equal(made().scales, scales)


def test_scales_are_strengths_over_their_mean() -> None:
    made = gate().train()
    for step in (0, 3, 5):
        made.begin_step(step)
        numbers, scales = made()
        assert torch.allclose(scales, made.strengths[numbers] / made.strengths[numbers].mean())
    made.eval()
    assert torch.allclose(made().scales, scales)


def test_validation_in_the_first_phase_is_the_mean_of_the_draws() -> None:
    made = product().train()
    made.gate.random_steps = 800
    with torch.no_grad():
        made.gate.strengths.fill_(1.0)
    x1, x2, weight = inputs(made, rows=2)
    drawn = []
    with torch.no_grad():
        for step in range(800):
            made.gate.begin_step(step)
            drawn.append(made(x1, x2, weight))
        expected = made.eval()(x1, x2, weight)
    found = torch.stack(drawn)
    spread = found.std(dim=0) / len(drawn) ** 0.5
    assert ((found.mean(dim=0) - expected).abs() < 5 * spread + 1e-9).all()


def test_strengths_get_gradients_in_every_phase() -> None:
    """Those of the kept paths move them; when they are fixed, zeros keep distributed training content."""
    made = product().train()
    x1, x2, weight = inputs(made)
    for step, moves in ((0, True), (3, True), (5, False)):
        made.gate.begin_step(step)
        made.zero_grad(set_to_none=True)
        columns = made.columns
        made(x1, x2, weight if columns is None else weight[:, columns]).square().sum().backward()
        assert made.gate.strengths.grad is not None
        assert bool(made.gate.strengths.grad.any()) == moves


@pytest.mark.parametrize("backend", ["clebsch_gordan", "clebsch_gordan_dense", "clebsch_gordan_sparse"])
@pytest.mark.parametrize("sparsity", [0.0, 0.4, 0.7, 0.99])
def test_fixed_is_the_same_product_with_fewer_weights(backend: str, sparsity: float) -> None:
    made = product(backend, sparsity).train()
    x1, x2, weight = inputs(made)
    made.gate.begin_step(4)
    adaptive = made(x1, x2, weight).detach()
    assert made.columns is None
    made.gate.begin_step(5)
    columns = made.columns
    assert len(columns) == 2 * made.gate.num_kept
    assert made.gate.num_kept == max(1, len(made.full.paths) - int(sparsity * len(made.full.paths) + 1e-9))
    assert (made(x1, x2, weight[:, columns]).detach() - adaptive).abs().max() < 1e-13
    small = made._small[1]
    assert len(small.paths) == made.gate.num_kept
    assert small.weight_numel == len(columns)


def test_fixed_against_the_dense_formula() -> None:
    """``Σ_p ω_p/ω̄ w_p c_p 3j x y`` over the kept paths alone, with e3nn's 3j; irreps that none reaches are zero."""
    made = product(sparsity=0.8).train()
    made.gate.begin_step(5)
    kept, scales = (values.tolist() for values in made.gate())
    x1, x2, weight = inputs(made)
    terms = Counter(path.ir_out for path in made.full.paths)
    weights = weight.unflatten(1, (-1, 2))
    blocks1, blocks2 = split_blocks(x1, IRREPS), split_blocks(x2, IRREPS)
    expected = {ir: torch.zeros(5, ir.dim, 2, dtype=torch.float64) for _, ir in made.irreps_out}
    for number, scale in zip(kept, scales, strict=True):
        path = made.full.paths[number]
        degrees = IRREPS[path.in1].ir.l, IRREPS[path.in2].ir.l, path.ir_out.l
        # Components of unit variance: divided by the number of all paths, not only of the kept.
        size = scale * (path.ir_out.dim / terms[path.ir_out]) ** 0.5
        coupled = torch.einsum("abc,rau,rbu->rcu", wigner_3j(*degrees), blocks1[path.in1], blocks2[path.in2])
        expected[path.ir_out] += size * weights[:, None, number] * coupled
    found = split_blocks(made(x1, x2, weight[:, made.columns]).detach(), made.irreps_out)
    reached = {made.full.paths[number].ir_out for number in kept}
    assert 0 < len(reached) < len(expected)
    for (_, ir), block in zip(made.irreps_out, found, strict=True):
        assert torch.allclose(block, expected[ir], atol=1e-12)
        assert bool(block.any()) == (ir in reached)


@pytest.mark.parametrize("backend", ["gaunt_grid", "matrix"])
def test_a_gate_needs_weights_for_every_path(backend: str) -> None:
    with pytest.raises(ConfigError, match="A path gate needs a product with weights for every path"):
        product(backend)


@pytest.mark.parametrize("step", [1, 3, 6])
def test_state_goes_on_where_it_stopped(step: int) -> None:
    made = product().train()
    for k in range(step + 1):
        made.gate.begin_step(k)
    other = product().train()
    other.load_state_dict(made.state_dict())
    x1, x2, weight = inputs(made)
    columns = made.columns
    weight = weight if columns is None else weight[:, columns]
    for k in (step + 1, step + 2):
        made.gate.begin_step(k)
        columns = made.columns
        w = inputs(made)[2] if columns is None else inputs(made)[2][:, columns]
        expected = made(x1, x2, w)
        other.gate.begin_step(k)
        assert torch.equal(other(x1, x2, w), expected)


def test_averages_and_copies_follow() -> None:
    """The average is made before the paths are fixed, and gets no module that it lacks."""
    made = product().train()
    average = AveragedModel(made, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    x1, x2, weight = inputs(made)
    for step in range(8):
        made.gate.begin_step(step)
        columns = made.columns
        made(x1, x2, weight if columns is None else weight[:, columns])
        with torch.no_grad():
            made.gate.strengths.add_(0.1 * torch.linspace(1, -1, len(made.gate.strengths)))
        average.update_parameters(made)
    kept = weight[:, made.columns]
    for copy in (average.module.eval(), deepcopy(made), deepcopy(average.module)):
        assert copy.gate.is_fixed
        assert int(copy.gate.step) == 7
        assert torch.equal(copy.columns, made.columns)
        assert torch.equal(copy(x1, x2, kept), made(x1, x2, kept))
    assert set(average.module.state_dict()) == set(made.state_dict())


def test_dtypes_follow() -> None:
    made = product().train()
    x1, x2, weight = inputs(made)
    made.gate.begin_step(5)
    kept = weight[:, made.columns]
    exact = made(x1, x2, kept)
    single = deepcopy(made).float()(x1.float(), x2.float(), kept.float())
    assert single.dtype == torch.float32
    assert (single - exact).abs().max() < 1e-5
    assert (made.float().double()(x1, x2, kept) - exact).abs().max() < 1e-6


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sparsity": 1.0}, "from 0 to below 1, got 1.0"),
        ({"sparsity": -0.1}, "from 0 to below 1"),
        ({"sparsity": float("nan")}, "from 0 to below 1"),
        ({"sparsity": True}, "from 0 to below 1"),
        ({"random_steps": -1}, "random_steps must be a whole number of steps, got -1"),
        ({"random_steps": 10.5}, "random_steps must be"),
        ({"adaptive_steps": None}, "adaptive_steps must be"),
    ],
)
def test_refusals(options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        PathGate(20, **options)
