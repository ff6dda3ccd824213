"""Worker of SevenNet: its calculator, and a training step of SevenNet-0's size."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import sevenn._keys as KEY
import torch
from ase import Atoms
from ase.data import atomic_numbers
from sevenn._const import DEFAULT_DATA_CONFIG, DEFAULT_E3_EQUIVARIANT_MODEL_CONFIG, DEFAULT_TRAINING_CONFIG
from sevenn.atom_graph_data import AtomGraphData
from sevenn.calculator import SevenNetCalculator
from sevenn.model_build import build_E3_equivariant_model
from sevenn.train.dataload import unlabeled_atoms_to_graph
from torch_geometric.data import Batch

from peers.protocol import Prepared, serve
from peers.tasks import calculating, dynamics, labelled, relax_one_by_one, relaxing, training

HIDDEN = "128x0e+64x1e+32x2e"


def prepare(task: dict[str, Any]) -> Prepared:
    """Build the step of a task."""
    facts = {"version": version("sevenn")}
    if task["kind"] != "train":
        calculator = SevenNetCalculator(task["checkpoint"], device="cpu")
        if task["kind"] == "calculator":
            return calculating(calculator, facts)
        if task["kind"] == "relax":
            return relaxing(relax_one_by_one(calculator, task), task, facts)
        return dynamics(calculator, task, facts)
    structures, labels = labelled(task, torch.float32)
    model = network(task)
    model.train()
    model.set_is_batch_data(True)
    batch = Batch.from_data_list([graph(atoms, task["cutoff"]) for atoms in structures])

    def predict() -> tuple[torch.Tensor, torch.Tensor]:
        # The model writes into what it is given.
        found = model(batch.clone())
        return found[KEY.PRED_TOTAL_ENERGY], found[KEY.PRED_FORCE]

    return training(model, predict, labels, {**facts, "edges": batch[KEY.EDGE_IDX].shape[1]})


def network(task: dict[str, Any]) -> torch.nn.Module:
    """Return SevenNet-0's architecture with random weights."""
    torch.manual_seed(0)
    numbers = sorted(atomic_numbers[symbol] for symbol in task["elements"])
    config = {**DEFAULT_E3_EQUIVARIANT_MODEL_CONFIG, **DEFAULT_DATA_CONFIG, **DEFAULT_TRAINING_CONFIG}
    config |= {
        KEY.CUTOFF: task["cutoff"],
        KEY.CUTOFF_FUNCTION: {KEY.CUTOFF_FUNCTION_NAME: "XPLOR", "cutoff_on": 0.9 * task["cutoff"]},
        KEY.RADIAL_BASIS: {KEY.RADIAL_BASIS_NAME: "bessel", "bessel_basis_num": 8},
        KEY.NUM_CONVOLUTION: 5,
        KEY.LMAX: 2,
        KEY.IS_PARITY: False,
        KEY.NODE_FEATURE_MULTIPLICITY: 128,
        KEY.IRREPS_MANUAL: ["128x0e", *4 * [HIDDEN], "128x0e"],
        KEY.SELF_CONNECTION_TYPE: "linear",
        KEY.CONV_DENOMINATOR: task["num_neighbors"],
        KEY.SHIFT: 0.0,
        KEY.SCALE: 1.0,
        KEY.NUM_SPECIES: len(numbers),
        KEY.TYPE_MAP: {number: index for index, number in enumerate(numbers)},
    }
    return build_E3_equivariant_model(config)


def graph(atoms: Atoms, cutoff: float) -> AtomGraphData:
    """Return the graph of a structure without the entry that cannot be batched."""
    found = unlabeled_atoms_to_graph(atoms, cutoff)
    found.pop(KEY.INFO, None)
    return AtomGraphData.from_numpy_dict(found)


if __name__ == "__main__":
    serve(prepare)
