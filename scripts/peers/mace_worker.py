"""Worker of MACE: a training step."""

from __future__ import annotations

import os
from importlib.metadata import version
from typing import Any

# The e3nn that mace-torch wants cannot be imported beside newer versions of torch without it.
os.environ.setdefault("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")

import numpy as np
import torch
from ase.data import atomic_numbers
from e3nn import o3
from mace import data, modules, tools
from mace.tools import torch_geometric

from peers.protocol import Prepared, serve
from peers.tasks import labelled, training


def prepare(task: dict[str, Any]) -> Prepared:
    """Build the model and a batch: ScaleShiftMACE, 64x0e+64x1o, max_ell 3, correlation 3, 2 layers."""
    torch.set_default_dtype(torch.float32)
    torch.manual_seed(0)
    structures, labels = labelled(task, torch.float32)
    numbers = sorted(atomic_numbers[symbol] for symbol in task["elements"])
    block = modules.interaction_classes["RealAgnosticResidualInteractionBlock"]
    model = modules.ScaleShiftMACE(
        r_max=task["cutoff"],
        num_bessel=8,
        num_polynomial_cutoff=5,
        max_ell=3,
        interaction_cls=block,
        interaction_cls_first=block,
        num_interactions=2,
        num_elements=len(numbers),
        hidden_irreps=o3.Irreps("64x0e+64x1o"),
        MLP_irreps=o3.Irreps("16x0e"),
        gate=torch.nn.functional.silu,
        atomic_energies=np.zeros(len(numbers)),
        atomic_numbers=numbers,
        avg_num_neighbors=task["num_neighbors"],
        correlation=3,
        atomic_inter_scale=1.0,
        atomic_inter_shift=0.0,
    )
    table, keys = tools.AtomicNumberTable(numbers), data.KeySpecification(info_keys={}, arrays_keys={})
    configurations = [data.config_from_atoms(atoms, key_specification=keys) for atoms in structures]
    graphs = [data.AtomicData.from_config(one, z_table=table, cutoff=task["cutoff"]) for one in configurations]
    batch = torch_geometric.Batch.from_data_list(graphs).to_dict()

    def predict() -> tuple[torch.Tensor, torch.Tensor]:
        found = model(dict(batch), training=True, compute_force=True)
        return found["energy"], found["forces"]

    facts = {"version": version("mace-torch"), "edges": batch["edge_index"].shape[1]}
    return training(model, predict, labels, facts)


if __name__ == "__main__":
    serve(prepare)
