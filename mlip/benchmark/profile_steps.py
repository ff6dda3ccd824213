"""The steps that are measured: one of molecular dynamics, one of a training, one prediction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from ase import Atoms, units
from ase.md.verlet import VelocityVerlet
from numpy.random import default_rng
from torch_geometric.data import Batch

from mlip.benchmark.profile_scopes import GRAPH, NEIGHBOURS, UPDATE, Scopes
from mlip.calculators.ase import MLIPCalculator
from mlip.calculators.structure_checks import check_structure
from mlip.core.errors import ConfigError, StructureError
from mlip.data.build_graph import graph_of
from mlip.data.graph import AtomGraph
from mlip.data.inputs import stated_inputs
from mlip.models.base import AtomisticModel
from mlip.nn.derivatives import predict, predictable
from mlip.ops.kernels.choice import Kernels
from mlip.simulate.velocities import degrees_of_freedom, draw_velocities

TEMPERATURE = 300.0
"""K, of the velocities at the start."""


@dataclass
class Step:
    """A step that can be repeated.

    Attributes:
        name: what it is, in words.
        run: makes it.
        model: that computes.
        num_atoms, num_edges: of all its structures together.
        passes: how often the model's work is done in forward passes' worth: 3 for energy and forces, 6 for a training
            on forces, 1 without derivatives. A backward pass costs two forward passes.
        wrap: puts the scopes around what is not a module.
        unwrap: forgets them.
        neighbours: how often the neighbour list was built.
        calculator: of molecular dynamics.
    """

    name: str
    run: Callable[[], object]
    model: AtomisticModel
    num_atoms: int
    num_edges: int
    passes: int
    wrap: Callable[[Scopes], None] = field(default=lambda scopes: None)
    unwrap: Callable[[], None] = field(default=lambda: None)
    neighbours: Callable[[], int] = field(default=lambda: 0)


def repeated(atoms: Atoms, repeat: tuple[int, int, int]) -> Atoms:
    """Return the structure with its cell repeated along its vectors.

    Raises:
        StructureError: along a direction that is not periodic.
    """
    for axis, (times, periodic) in enumerate(zip(repeat, atoms.pbc)):
        if times > 1 and not periodic:
            raise StructureError(
                f"The structure is not periodic along axis {axis + 1}: repeat it along periodic axes only, got "
                f"{'x'.join(map(str, repeat))}."
            )
    return atoms.repeat(repeat) if max(repeat) > 1 else atoms


def make_step(
    model: AtomisticModel, atoms: Atoms, task: str, kernels: Kernels, batch_size: int = 1, skin: float = 0.5
) -> Step:
    """Return the step of a task, ``md`` or ``train``; of a model that has no energy, ``md`` is its prediction.

    Raises:
        ConfigError: there is no such step of this model.
        StructureError: a structure that the model does not know.
    """
    if task == "train":
        return training_step(model, atoms, kernels, batch_size)
    if "energy" not in model.fields:
        return prediction_step(model, atoms, kernels)
    return md_step(model, atoms, kernels, skin=skin)


def md_step(model: AtomisticModel, atoms: Atoms, kernels: Kernels, timestep: float = 1.0, skin: float = 0.5) -> Step:
    """Return a step of NVE molecular dynamics from 300 K, as ``mlip md`` makes it.

    Args:
        model: of the energy.
        atoms: is not changed.
        kernels: see :meth:`~mlip.models.base.AtomisticModel.use_kernels`.
        timestep: fs.
        skin: Å.
    """
    atoms = atoms.copy()
    atoms.set_constraint()
    calculator = MLIPCalculator(model, skin=skin, kernels=kernels)
    atoms.calc = calculator
    # A single atom does not move, and its step can be measured all the same.
    if degrees_of_freedom(atoms, momentum_conserved=True) > 0:
        draw_velocities(atoms, TEMPERATURE, default_rng(0))
    dynamics = VelocityVerlet(atoms, timestep=timestep * units.fs)
    atoms.get_forces()

    def wrap(scopes: Scopes) -> None:
        scopes.wrap(calculator, "calculate", GRAPH, "calculator")
        if calculator.neighbours is not None:
            scopes.wrap(calculator.neighbours, "update", NEIGHBOURS, "neighbour list")

    graph = graph_of(atoms, calculator.model.graph_builder, _stated(atoms, calculator.model))
    builds = (lambda: 0) if calculator.neighbours is None else (lambda: calculator.neighbours.num_builds)
    # The first call of step() computes the forces it starts from; later ones go on.
    return Step(
        "MD step", lambda: dynamics.run(1), calculator.model, len(atoms), graph.num_edges, 3, wrap, neighbours=builds
    )


def training_step(model: AtomisticModel, atoms: Atoms, kernels: Kernels, batch_size: int = 1) -> Step:
    """Return a step of a training, see :func:`training_step_of`, on a batch of copies of a structure.

    Raises:
        ConfigError: a model that has no energy and forces.
    """
    _require_forces(model)
    graph = graph_of(atoms, model.graph_builder, _stated(atoms, model))
    return training_step_of(model, [graph] * batch_size, kernels)


def training_step_of(model: AtomisticModel, graphs: Sequence[AtomGraph], kernels: Kernels) -> Step:
    """Return a step of a training on energy and forces: the mean squares of both as loss, and Adam.

    Labels are zero and so is the learning rate, so that every step is the same work.

    Raises:
        ConfigError: a model that has no energy and forces.
    """
    _require_forces(model)
    model.use_kernels(kernels)
    model.train().requires_grad_(True)
    batch = Batch.from_data_list(list(graphs))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.0)
    counts = torch.bincount(batch.batch).double()
    scopes: list[Scopes] = []

    def run() -> None:
        optimizer.zero_grad()
        found = predict(model, batch, ("energy", "forces"), create_graph=True)
        loss = (found["energy"] / counts).square().mean() + found["forces"].square().mean()
        with scopes[0].loss() if scopes else nullcontext():
            loss.backward()
        with scopes[0].scope(UPDATE, UPDATE) if scopes else nullcontext():
            optimizer.step()

    return Step("training step", run, model, batch.num_nodes, batch.num_edges, 6, scopes.append, scopes.clear)


def _require_forces(model: AtomisticModel) -> None:
    if not {"energy", "forces"} <= set(predictable(model)):
        raise ConfigError(
            f"A training step is measured for models of energy and forces; {type(model).__name__} predicts "
            f"{', '.join(predictable(model))}. Take mlip profile --task md for it."
        )


def prediction_step(model: AtomisticModel, atoms: Atoms, kernels: Kernels) -> Step:
    """Return the evaluation of a model that has no energy, with its graph given."""
    model.use_kernels(kernels)
    model.eval().requires_grad_(False)
    graph = graph_of(atoms, model.graph_builder, _stated(atoms, model))
    return Step("prediction", lambda: predict(model, graph, model.fields), model, len(atoms), graph.num_edges, 1)


def _stated(atoms: Atoms, model: AtomisticModel) -> dict[str, Any]:
    check_structure(atoms, model)
    return stated_inputs(atoms, model.inputs, {})
