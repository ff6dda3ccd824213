"""Checks of what a model predicts besides the energy: each field transforms as the field table says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy

import numpy as np
import torch
from ase import Atoms

from mlip.core.fields import FIELDS, Field
from mlip.models.base import AtomisticModel
from mlip.testing.evaluate import evaluate, evaluate_many, largest
from mlip.testing.measurement import Measurement
from mlip.testing.structures import isolated_atom, molecule
from mlip.testing.symmetry import changed_inputs, random_orthogonal, transformed

EXACT = 1e-9
"""Relative error that rounding in float64 explains, with a margin of a hundred."""
ALIASING = 1e-3
"""Largest relative equivariance error of a model that is equivariant up to a grid."""
SMALLEST = 1e-3
"""Units of the field; errors refer to the largest component or to this, whichever is larger."""

Prediction = Mapping[str, np.ndarray]


def checked_fields(model: AtomisticModel) -> list[str]:
    """Return the fields that are checked here; the energy and its derivatives have checks of their own."""
    return [name for name in model.fields if name not in ("energy", "energies")]


def turned(value: np.ndarray, field: Field, matrix: np.ndarray) -> np.ndarray:
    """Return a field of the structure that an orthogonal matrix maps the structure to.

    Each of the last ``rank`` dimensions is multiplied by the matrix; a pseudo-field by its determinant, too.
    """
    for axis in range(value.ndim - field.rank, value.ndim):
        value = np.moveaxis(np.tensordot(value, matrix, axes=(axis, 1)), -1, axis)
    return value * np.linalg.det(matrix) if field.pseudo else value


def field_rows(model: AtomisticModel, name: str, atoms: Atoms) -> Iterator[Measurement]:
    """Yield the symmetries of every field for one structure; ``model`` in float64."""
    fields = checked_fields(model)
    plain = evaluate(model, atoms, fields)
    group = "rotation" if model.symmetry == "SO3" else "rotation and inversion"
    tolerance = EXACT if model.exactly_equivariant else ALIASING
    errors = {field: 0.0 for field in fields}
    for seed in range(4):
        matrix = random_orthogonal(seed, proper=model.symmetry == "SO3" or seed % 2 == 0)
        found = evaluate(model, transformed(atoms, matrix), fields)
        for field in fields:
            expected = turned(plain[field], FIELDS[field], matrix)
            errors[field] = max(errors[field], _error({field: expected}, found, [field]))
    for field in fields:
        meaning = "turning the structure changes the prediction in a way that the field does not allow"
        yield Measurement(f"{group}: {field} ({name})", errors[field], tolerance, "largest component", meaning)
    yield from _same_structure_rows(model, name, atoms, plain)
    yield Measurement(
        f"input unchanged ({name})",
        float(changed_inputs(model, atoms)),
        0.0,
        "fields",
        "a second evaluation of the same graph gives another result",
    )


def _same_structure_rows(model: AtomisticModel, name: str, atoms: Atoms, plain: Prediction) -> Iterator[Measurement]:
    """Compare with other ways of writing the same structure down."""
    fields = checked_fields(model)
    moved, order = atoms.copy(), np.arange(len(atoms))[::-1]
    moved.positions += [7.3, -11.9, 23.1]
    cases = [("translation", moved, np.arange(len(atoms)), 1), ("permutation", atoms[order], order, 1)]
    if atoms.pbc.any():
        axis = int(np.argmax(atoms.pbc))
        doubled = atoms.repeat([2 if k == axis else 1 for k in range(3)])
        cases.append(("supercell", doubled, np.tile(np.arange(len(atoms)), 2), 2))
    for case, same, rows, copies in cases:
        expected = {
            field: plain[field][rows]
            if FIELDS[field].level == "atom"
            else plain[field] * (copies if FIELDS[field].extensive else 1)
            for field in fields
        }
        error = _error(expected, evaluate(model, same, fields), fields)
        meaning = "the same structure, written down differently, has another prediction"
        yield Measurement(f"{case} ({name})", error, EXACT, "largest component", meaning)


def field_case_rows(model: AtomisticModel, structures: Mapping[str, Atoms]) -> Iterator[Measurement]:
    """Yield single atoms, mixed batches, precision, and whether there is any signal; ``model`` in float64."""
    fields = checked_fields(model)
    alone = [evaluate(model, isolated_atom(symbol), fields) for symbol in model.elements]
    finite = all(np.isfinite(value).all() for one in alone for value in one.values())
    yield Measurement(
        "one atom, no edges", float(not finite), 0.0, "predictions", "an isolated atom has no finite prediction"
    )
    batch = [*structures.values(), isolated_atom(model.elements[0])]
    together = evaluate_many(model, batch, fields)
    single = [evaluate(model, atoms, fields) for atoms in batch]
    yield Measurement(
        "batch = single",
        max(_error(expected, found, fields) for expected, found in zip(single, together)),
        EXACT,
        "largest component",
        "structures in a batch see each other",
    )
    atoms = molecule(model.elements)
    exact = evaluate(model, atoms, fields)
    rounded = evaluate(deepcopy(model).to(torch.float32), atoms, fields)
    yield Measurement(
        "float32", _error(exact, rounded, fields), 1e-4, "largest component", "float32 loses digits: use float64"
    )
    other = evaluate(model, molecule(model.elements, seed=1), fields)
    same = [field for field in fields if FIELDS[field].level == "graph" and np.array_equal(exact[field], other[field])]
    graph_fields = [field for field in fields if FIELDS[field].level == "graph"]
    yield Measurement(
        "all predictions are the same",
        float(bool(graph_fields) and len(same) == len(graph_fields)),
        0.0,
        "models",
        "the atoms do not see each other: the other rows prove nothing",
    )


def _error(expected: Prediction, found: Prediction, fields: Sequence[str]) -> float:
    """Return the largest error of any field over its largest component."""
    return max(largest(found[field] - expected[field]) / max(largest(expected[field]), SMALLEST) for field in fields)
