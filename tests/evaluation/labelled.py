"""Labelled structures whose labels are a model's own predictions, with known errors added."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.build import molecule

from mlip.data.build_graph import build_graph
from mlip.data.graph import AtomGraph
from mlip.models.base import AtomisticModel
from mlip.nn.derivatives import predict


def structures(count: int, periodic: bool = False, seed: int = 0) -> list[Atoms]:
    """Return rattled molecules of H, C and O, of different sizes; in a box if periodic."""
    rng = np.random.default_rng(seed)
    found = []
    for k in range(count):
        atoms = molecule(("CH3CH2OH", "CH3OH", "H2O")[k % 3])
        atoms.positions += 0.08 * rng.standard_normal((len(atoms), 3))
        if periodic:
            atoms.set_cell(np.diag([6.0, 6.5, 7.0]) + 0.3 * rng.standard_normal((3, 3)))
            atoms.pbc = True
        found.append(atoms)
    return found


def labelled_graph(model: AtomisticModel, atoms: Atoms, energy: float = 0.0, force: float = 0.0) -> AtomGraph:
    """Return a graph labelled with the model's predictions minus the given errors (eV, eV/Å)."""
    fields = ["energy", "forces", "stress"] if atoms.pbc.any() else ["energy", "forces"]
    graph = build_graph(atoms, model.cutoff)
    predicted = {name: predict(model, graph, fields)[name].numpy() for name in fields}
    predicted["energy"] = predicted["energy"] - energy
    predicted["forces"] = predicted["forces"] - force
    return build_graph(atoms, model.cutoff, predicted)
