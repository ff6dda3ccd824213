"""The profiler against sleeping modules, products counted by hand, and the counter of whole calls."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ase import Atoms
from ase.build import bulk
from e3nn.o3 import Irreps
from torch import Tensor, nn

from mlip.benchmark import profile as measured
from mlip.benchmark.counting import count
from mlip.benchmark.flame_graph import write_flame_graph
from mlip.benchmark.profile_count import PartCounter, count_step
from mlip.benchmark.profile_forms import edge_flops, kernel_flops, polynomial_flops, table_flops
from mlip.benchmark.profile_limit import CompulsoryBytes, needed_flops
from mlip.benchmark.profile_scopes import BACKWARD, ELSE, FORWARD, SECOND, UPDATE, Scopes
from mlip.benchmark.profile_steps import Step, md_step, repeated, training_step
from mlip.benchmark.profile_trace import Trace, trace_step
from mlip.benchmark.roofline import Roofline, measure_roofline
from mlip.core.errors import StructureError
from mlip.models.base import AtomisticModel
from mlip.nn.convolution import Convolution
from mlip.nn.linear import EquivariantLinear
from mlip.nn.nonlinearity.base import Nonlinearity
from mlip.ops.kernels.form import ConvolutionForm, Coupling
from mlip.ops.kernels.polynomial_form import PolynomialForm
from tests.components import small_facet

MACHINE = Roofline(flops=1e11, bandwidth=1e10)
LINEARS, GATES, CONVOLUTION = "linears", "gates, mixer, norm", "convolution"


@pytest.fixture(scope="module")
def model() -> AtomisticModel:
    return small_facet("model.elements=[Si]", "model/nonlinearity=gate", "model.linear_in=true").float()


@pytest.fixture
def atoms() -> Atoms:
    silicon = bulk("Si", cubic=True)
    silicon.rattle(0.05, seed=1)
    return silicon


def counted(step: Step) -> PartCounter:
    step.run()
    scopes = Scopes()
    scopes.install(step.model)
    step.wrap(scopes)
    try:
        return count_step(step.run, scopes, MACHINE)
    finally:
        scopes.remove()
        step.unwrap()


def linear_flops(model: nn.Module, rows: int) -> int:
    """Operations of the maps between channels of the linears that are parts of their own."""
    maps = [
        linear
        for convolution in model.modules()
        if isinstance(convolution, Convolution)
        for linear in (convolution.linear_in, convolution.linear)
    ]
    return sum(
        2 * rows * before.mul * after.mul * after.ir.dim
        for one in maps
        for after in one.irreps_out
        for before in one.irreps_in
        if before.ir == after.ir
    )


def test_parts_of_a_step_of_dynamics(model: AtomisticModel, atoms: Atoms) -> None:
    # So short that no edge comes or goes.
    step = md_step(model, atoms, "off", timestep=1e-9)
    counter = counted(step)
    products = linear_flops(step.model, len(atoms))
    forward, backward = counter.work[LINEARS, FORWARD], counter.work[LINEARS, BACKWARD]
    # Weights are frozen: the only gradients are those of the inputs, as many products as forward, but for the first
    # map, whose input does not depend on the positions. Scales and sums are the small rest.
    first = step.model.layers[0].convolution.linear_in
    before = 2 * len(atoms) * first.irreps_in.dim * first.irreps_out.dim
    assert products <= forward.flops <= 1.2 * products
    assert products - before <= backward.flops <= 1.2 * (products - before)
    assert not any(direction == SECOND for _, direction in counter.work)
    assert sum(work.flops for work in counter.work.values()) == counter.flops
    assert sum(work.moved for work in counter.work.values()) == counter.bytes
    assert counter.flops == pytest.approx(count(step.run).flops, rel=1e-12)
    assert all(
        max(work.flops / MACHINE.flops, work.moved / MACHINE.bandwidth) <= work.seconds * (1 + 1e-9)
        for work in counter.work.values()
    )


def test_parts_of_a_training_step(model: AtomisticModel, atoms: Atoms) -> None:
    step = training_step(model, atoms, "off", batch_size=2)
    assert step.num_atoms == 16
    counter = counted(step)
    assert counter.flops == pytest.approx(count(step.run).flops, rel=1e-12)
    directions = {direction for part, direction in counter.work if part == LINEARS}
    assert directions == {FORWARD, BACKWARD, SECOND}
    # Gradients of the weights and of the inputs, of the map and of its gradient.
    products = linear_flops(model, 16)
    assert 2 * products < counter.work[LINEARS, SECOND].flops < 4.8 * products
    assert counter.work[UPDATE, FORWARD].flops > sum(weight.numel() for weight in model.parameters())


class Sleeping(torch.autograd.Function):
    """Takes its time in both directions."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        time.sleep(0.02)
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        time.sleep(0.04)
        return gradient * 2


class SlowGate(Nonlinearity):
    """Sleeps."""

    def __init__(self) -> None:
        nn.Module.__init__(self)

    exact = True

    def forward(self, x: Tensor) -> Tensor:
        return Sleeping.apply(x)


def slow_step() -> tuple[Callable[[], object], nn.Module]:
    model = nn.Sequential(EquivariantLinear(Irreps("4x0e"), Irreps("4x0e")), SlowGate())
    x = torch.randn(3, 4, requires_grad=True)
    return lambda: torch.autograd.grad(model(x).sum(), x), model


def test_time_goes_to_the_part_that_took_it() -> None:
    run, model = slow_step()
    scopes, trace = Scopes(), Trace()
    scopes.install(model)
    trace_step(run, scopes, trace)
    scopes.remove()
    assert 0.02 <= trace.parts[GATES, FORWARD] < 0.03
    assert 0.04 <= trace.parts[GATES, BACKWARD] < 0.05
    assert {(LINEARS, FORWARD), (LINEARS, BACKWARD)} <= set(trace.parts)
    assert sum(trace.stacks.values()) == pytest.approx(trace.seconds)
    assert any(stack[:3] == ("step", "model", "1") for stack in trace.stacks)
    assert not model._forward_hooks
    assert not model[0]._forward_pre_hooks


def test_nodes_belong_to_the_part_that_made_them() -> None:
    _, model = slow_step()
    scopes = Scopes()
    scopes.install(model)
    x = torch.randn(3, 4, requires_grad=True)
    result = model(2 * x)
    scopes.remove()
    assert scopes.owner(result.grad_fn._sequence_nr()) == GATES
    node = result.grad_fn.next_functions[0][0]
    assert scopes.owner(node._sequence_nr()) == LINEARS
    assert scopes.owner(result.sum().grad_fn._sequence_nr()) == ELSE


def test_operations_of_a_kernel() -> None:
    # Four channels: a scalar times a vector, and a vector times a vector to a scalar.
    up = Coupling(4, 0, 1, 0, 0, (1, 3, 3), tuple((0, m, m, 1.0) for m in range(3)))
    down = Coupling(4, 4, 1, 12, 4, (3, 3, 1), tuple((m, m, 0, 0.5) for m in range(3)))
    form = ConvolutionForm(16, 4, 8, 16, (up, down))
    # 3 sums of one term each; up: 3 places, 3 results, 1 operand; down: 3 places, 1 result, 3 operands.
    assert edge_flops(form) == (12 + 4 * (6 + 6) + 4 * (6 + 2), 24 + 4 * (18 + 9 + 1) + 4 * (18 + 3 + 3))
    assert table_flops(form) == (48, 96)
    assert kernel_flops("something_else", [torch.zeros(2, dtype=torch.int64), "key"]) is None
    # a x0² + b x0 x1 + c x1: trees of x0 (x0, x1) and x1 have four variables.
    square = PolynomialForm(2, 1, 4, ((0, (0, 0)), (0, (0, 1)), (0, (1,))))
    assert polynomial_flops(square, "polynomial", False) == 4 * 4 * 2
    assert polynomial_flops(square, "polynomial_backward", True) == 4 * (4 * 5 + 3)


def test_least_of_a_step(model: AtomisticModel, atoms: Atoms) -> None:
    step = md_step(model, atoms, "off", timestep=1e-9)
    with CompulsoryBytes(step.model) as compulsory:
        counter = counted(step)
    # The step was run twice; weights count once.
    layers, weights = step.model.layers, sum(weight.numel() for weight in step.model.parameters())
    nodes = len(atoms) * sum(layer.irreps_in.dim + layer.irreps_out.dim for layer in layers)
    edges = step.num_edges * len(layers) * (4 * (step.model.edges.irreps.dim + 1) + 8)
    assert compulsory.moved == 4 * weights + 2 * (4 * nodes + edges)
    needed = needed_flops(counter.work, step)
    assert counter.work[LINEARS, FORWARD].flops < needed <= counter.flops


def test_profile_adds_up(model: AtomisticModel, atoms: Atoms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured, "measure_roofline", lambda dtype: MACHINE)
    told = []
    found = measured.profile_step(md_step(model, atoms, "off"), 2, lambda text, share: told.append(share))
    assert sum(row.ms for row in found.rows) == pytest.approx(found.profiled_ms)
    assert sum(row.share for row in found.rows) == pytest.approx(1)
    assert sum(found.stacks.values()) == pytest.approx(found.profiled_ms)
    assert {row.part for row in found.rows} >= {"neighbour list", "graph, checks", "edges, harmonics", CONVOLUTION}
    assert found.distance == pytest.approx(found.step_ms / found.limit_ms)
    assert (found.num_atoms, found.steps) == (8, 2)
    assert told == sorted(told)
    measured.write_rows(tmp_path / "table.csv", found)
    lines = (tmp_path / "table.csv").read_text().splitlines()
    assert lines[0].startswith("part,direction,ms,share,gflop")
    assert lines[-1].startswith("total,,")


def test_roofline() -> None:
    assert MACHINE.seconds(1e11, 1e9) == 1
    assert MACHINE.seconds(1e10, 1e10) == 1


@pytest.mark.slow
def test_kernels_do_about_as_much_as_plain_torch(atoms: Atoms) -> None:
    """With every operation of theirs counted; plain torch forms the products with w edge by edge, too."""
    irreps = ("model.irreps_hidden=16x0e+16x1o+16x2e", "model.elements=[Si]", "model/nonlinearity=gate")
    parts = {}
    for kernels in ("on", "off"):
        step = md_step(small_facet(*irreps).float(), atoms, kernels, timestep=1e-9)
        counter = counted(step)
        assert not counter.unknown
        parts[kernels] = counter.work
        assert bool(counter.work[CONVOLUTION, FORWARD].kernels) == (kernels == "on")
    for direction in (FORWARD, BACKWARD):
        ratio = parts["on"][CONVOLUTION, direction].flops / parts["off"][CONVOLUTION, direction].flops
        assert 0.3 < ratio < 2
        assert parts["on"][CONVOLUTION, direction].moved < 0.5 * parts["off"][CONVOLUTION, direction].moved


@pytest.mark.slow
def test_roofline_of_this_machine() -> None:
    single, double = measure_roofline(torch.float32), measure_roofline(torch.float64)
    # Twice as many numbers of half the size in a vector.
    assert 1.3 < single.flops / double.flops < 3
    assert 1e9 < single.bandwidth < 1e12


def test_cells_are_repeated_along_periodic_axes(atoms: Atoms) -> None:
    assert len(repeated(atoms, (2, 1, 3))) == 48
    atoms.pbc = (True, True, False)
    assert len(repeated(atoms, (2, 2, 1))) == 32
    with pytest.raises(StructureError, match="not periodic along axis 3"):
        repeated(atoms, (1, 1, 2))


def test_flame_graph(tmp_path: Path) -> None:
    stacks = {("a",): 1.0, ("a", "b</script>"): 2.0, ("a", "c", "b"): 3.0, ("d",): 1e-9}
    write_flame_graph(tmp_path / "graph.html", stacks, "<title>")
    page = (tmp_path / "graph.html").read_text(encoding="utf-8")
    assert page.count("</script>") == 1
    assert "&lt;title&gt;" in page
    assert "<script src" not in page
    assert "http" not in page
    tree = json.loads(re.search(r"const tree = (.*), row = 18", page)[1])
    (a,) = tree["children"]
    assert (a["name"], a["ms"], a["self"]) == ("a", 6, 1)
    assert [(child["name"], child["ms"]) for child in a["children"]] == [("b</script>", 2), ("c", 3)]
