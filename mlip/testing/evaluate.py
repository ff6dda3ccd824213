"""Evaluate a model on ASE structures, the way every check does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from torch_geometric.data import Batch

from mlip.core.fields import FIELDS
from mlip.data.build_graph import graph_of
from mlip.data.graph import AtomGraph
from mlip.data.inputs import stated_inputs
from mlip.models.base import AtomisticModel
from mlip.nn.derivatives import predict

SMALLEST_FORCE = 1e-3
"""eV/Å. Relative errors refer to the RMS force or to this, whichever is larger."""
_BATCH_ATOMS = 1000


def graph_for(model: AtomisticModel, atoms: Atoms) -> AtomGraph:
    """Return the graph of a structure; inputs that it does not state, such as the charge, get one that is known."""
    given = {
        name: values[len(values) // 2]
        for name, values in model.inputs.items()
        if FIELDS[name].level == "graph" and name not in atoms.info
    }
    return graph_of(atoms, model.graph_builder, stated_inputs(atoms, model.inputs, given))


def evaluate(model: AtomisticModel, atoms: Atoms, fields: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Build the graph anew and predict; numpy arrays of one structure (the energy is a scalar array).

    ``fields`` None: energy and forces, or the fields of a model without an energy.
    """
    if fields is None:
        fields = ("energy", "forces") if "energy" in model.fields else model.fields
    graph = graph_for(model, atoms).to(model.device)
    found = {name: value.cpu().numpy() for name, value in predict(model, graph, fields).items()}
    return {name: value[0] if FIELDS[name].level == "graph" else value for name, value in found.items()}


def evaluate_many(
    model: AtomisticModel, structures: Sequence[Atoms], fields: Sequence[str] = ("energy", "forces")
) -> list[dict[str, np.ndarray]]:
    """Do the same for many structures, in batches; that batches change nothing is a check of its own."""
    found: list[dict[str, np.ndarray]] = []
    size = max(1, _BATCH_ATOMS // max(len(atoms) for atoms in structures))
    for start in range(0, len(structures), size):
        part = structures[start : start + size]
        batch = Batch.from_data_list([graph_for(model, atoms) for atoms in part]).to(model.device)
        values = {name: value.cpu().numpy() for name, value in predict(model, batch, fields).items()}
        first = np.cumsum([0, *(len(atoms) for atoms in part)])
        for k in range(len(part)):
            rows = slice(first[k], first[k + 1])
            found.append({name: v[rows] if FIELDS[name].level == "atom" else v[k] for name, v in values.items()})
    return found


def force_scale(forces: np.ndarray) -> float:
    """Return the RMS of force components in eV/Å, at least :data:`SMALLEST_FORCE`."""
    return max(rms(forces), SMALLEST_FORCE)


def rms(values: np.ndarray) -> float:
    """Return the root of the mean square, 0 for an empty array."""
    return float(np.sqrt(np.mean(np.square(values)))) if np.size(values) else 0.0


def largest(values: np.ndarray) -> float:
    """Return the largest absolute value; NaN if there is one, 0 for an empty array."""
    return float(np.max(np.abs(values))) if np.size(values) else 0.0
