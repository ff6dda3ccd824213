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
from mlip.evaluation.predict import square_matrices
from mlip.models.base import AtomisticModel
from mlip.nn.derivatives import predict

SMALLEST_FORCE = 1e-3
"""eV/Å. Relative errors refer to the RMS force or to this, whichever is larger."""
_BATCH_ATOMS = 1000


def graph_for(model: AtomisticModel, atoms: Atoms) -> AtomGraph:
    """Return the graph of a structure; inputs that it does not state, such as the charge, get one that is known.

    A model that adds to matrices (``needs``) gets zeros: what is checked is the part that is its own.
    """
    given = {
        name: values[len(values) // 2]
        for name, values in model.inputs.items()
        if FIELDS[name].level == "graph" and name not in atoms.info
    }
    labels = dict(stated_inputs(atoms, model.inputs, given))
    if model.needs:
        size = sum(2 * degree + 1 for symbol in atoms.symbols for degree in model.shells[symbol])
        labels |= {name: np.zeros((size, size)) for name in model.needs}
    return graph_of(atoms, model.graph_builder, labels)


def evaluate(model: AtomisticModel, atoms: Atoms, fields: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Build the graph anew and predict; numpy arrays of one structure (the energy is a scalar array).

    ``fields`` None: energy and forces, or the fields of a model without an energy.
    """
    if fields is None:
        fields = ("energy", "forces") if "energy" in model.fields else model.fields
    (found,) = _evaluate(model, [atoms], fields)
    return found


def evaluate_many(
    model: AtomisticModel, structures: Sequence[Atoms], fields: Sequence[str] = ("energy", "forces")
) -> list[dict[str, np.ndarray]]:
    """Do the same for many structures, in batches; that batches change nothing is a check of its own."""
    size = max(1, _BATCH_ATOMS // max(len(atoms) for atoms in structures))
    parts = [structures[start : start + size] for start in range(0, len(structures), size)]
    return [found for part in parts for found in _evaluate(model, part, fields)]


def _evaluate(model: AtomisticModel, structures: Sequence[Atoms], fields: Sequence[str]) -> list[dict[str, np.ndarray]]:
    """Predict for one batch; a single structure is no batch."""
    graphs = [graph_for(model, atoms) for atoms in structures]
    graph = (graphs[0] if len(graphs) == 1 else Batch.from_data_list(graphs)).to(model.device)
    predicted = {name: value.cpu().numpy() for name, value in predict(model, graph, fields).items()}
    first = np.cumsum([0, *(len(atoms) for atoms in structures)])
    split: dict[str, Sequence[np.ndarray]] = {}
    for name in predicted.keys() & FIELDS.keys():
        value = predicted[name]
        if FIELDS[name].level == "orbital_pair":
            split[name] = square_matrices(value, predicted["num_orbitals"].tolist())
        else:
            split[name] = np.split(value, first[1:-1]) if FIELDS[name].level == "atom" else value
    return [{name: values[k] for name, values in split.items()} for k in range(len(structures))]


def force_scale(forces: np.ndarray) -> float:
    """Return the RMS of force components in eV/Å, at least :data:`SMALLEST_FORCE`."""
    return max(rms(forces), SMALLEST_FORCE)


def rms(values: np.ndarray) -> float:
    """Return the root of the mean square, 0 for an empty array."""
    return float(np.sqrt(np.mean(np.square(values)))) if np.size(values) else 0.0


def largest(values: np.ndarray) -> float:
    """Return the largest absolute value; NaN if there is one, 0 for an empty array."""
    return float(np.max(np.abs(values))) if np.size(values) else 0.0
