"""Worker of mlip itself."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import torch
from ase import Atoms
from e3nn.o3 import Irreps
from omegaconf import OmegaConf
from torch import Tensor
from torch_geometric.data import Batch

from mlip import MLIPCalculator, keep_freed_memory
from mlip.cli.compose import compose
from mlip.data.build_graph import graph_of
from mlip.models.build import build_model
from mlip.nn.derivatives import predict
from mlip.ops.segment import first_edges
from mlip.ops.tensor_product.clebsch_gordan_dense import ClebschGordanDense
from mlip.simulate.relax import RelaxOptions, relax_with
from mlip.simulate.relax_many import relax_many
from peers.protocol import Prepared, serve
from peers.tasks import Relaxed, convolution, convolving, dynamics, labelled, relaxing, training


def prepare(task: dict[str, Any]) -> Prepared:
    """Build the steps of a task; memory as the ``mlip`` command treats it, with ``keep_memory``."""
    if task.get("keep_memory"):
        keep_freed_memory()
    facts = {"version": version("mlip-kit")}
    if task["kind"] == "md":
        return dynamics(MLIPCalculator(task["model"], kernels=task["kernels"]), task, facts)
    if task["kind"] == "relax":
        return _relaxation(task, facts)
    return _training(task, facts) if task["kind"] == "train" else _convolution(task, facts)


def _relaxation(task: dict[str, Any], facts: dict[str, Any]) -> Prepared:
    calculator = MLIPCalculator(task["model"])
    options = RelaxOptions("FIRE", task["fmax"], task["max_steps"], relax_cell=True)

    def relax(structures: list[Atoms]) -> list[Relaxed]:
        if task["batched"]:
            found = sorted(relax_many(structures, calculator, options), key=lambda one: one.number)
            results = [one.result for one in found]
        else:
            results = [relax_with(atoms, calculator, options) for atoms in structures]
        return [(one.after.energy, one.atoms.get_volume(), one.steps) for one in results]

    return relaxing(relax, task, facts)


def _training(task: dict[str, Any], facts: dict[str, Any]) -> Prepared:
    structures, labels = labelled(task, torch.float64)
    config = compose("train", [*task["settings"], f"cutoff={task['cutoff']}"])
    elements = task["elements"]
    config.statistics.update(
        elements=elements,
        num_neighbors=task["num_neighbors"],
        atomic_energies=dict.fromkeys(elements, 0.0),
        force_rms=1.0,
        energy_per_atom_mean=0.0,
    )
    model = build_model(OmegaConf.to_container(config.model, resolve=True))
    model.train()
    batch = Batch.from_data_list([graph_of(atoms, model.graph_builder) for atoms in structures])

    def predicted() -> tuple[Tensor, Tensor]:
        found = predict(model, batch, ("energy", "forces"), create_graph=True)
        return found["energy"], found["forces"]

    return training(model, predicted, labels, {**facts, "edges": batch.edge_index.shape[1]})


def _convolution(task: dict[str, Any], facts: dict[str, Any]) -> Prepared:
    problem = convolution(task)
    channels, degrees = task["channels"], range(task["lmax"] + 1)
    features = Irreps([(channels, (l, (-1) ** l)) for l in degrees])
    filters = Irreps.spherical_harmonics(task["lmax"])
    product = ClebschGordanDense(features, filters, features).to(problem.x.dtype)
    product.kernels = task["kernels"]
    found = [(features[path.in1].ir.l, filters[path.in2].ir.l, path.ir_out.l) for path in product.paths]
    order = [found.index(path) for path in problem.paths]
    back = [problem.paths.index(path) for path in found]
    sizes = [2 * path[2] + 1 for path in problem.paths]
    cotangent = torch.cat([problem.cotangent.split(sizes, dim=1)[k] for k in back], dim=1).flatten(1)
    atoms, senders, receivers = len(problem.x), problem.senders, problem.receivers
    starts = first_edges(receivers, atoms)

    def convolve(x: Tensor, harmonics: Tensor, weights: Tensor) -> Tensor:
        return product.convolve(x, harmonics, weights, senders, receivers, atoms, starts)

    def unpack(out: Tensor) -> Tensor:
        blocks = out.unflatten(1, (-1, channels)).split([2 * path[2] + 1 for path in found], dim=1)
        return torch.cat([blocks[k] for k in order], dim=1)

    inputs = problem.x.flatten(1), problem.harmonics, problem.weights[:, back].flatten(1)
    return convolving(convolve, inputs, cotangent, unpack, facts)


if __name__ == "__main__":
    serve(prepare)
