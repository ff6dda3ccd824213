"""Checks of what a model predicts besides the energy: each field transforms as the field table says, is continuous
at the cutoff, and depends on the structure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from itertools import product

import numpy as np
import torch
from ase import Atoms

from mlip.core.fields import FIELDS, Field
from mlip.models.base import AtomisticModel
from mlip.testing.evaluate import evaluate, evaluate_many, largest
from mlip.testing.measurement import Measurement
from mlip.testing.smoothness import crossings, leaving_atom, leaving_pairs
from mlip.testing.structures import distorted, isolated_atom, molecule, within_reach
from mlip.testing.symmetry import changed_inputs, random_orthogonal, transformed

EXACT = 1e-9
"""Relative error that rounding in float64 explains, with a margin of a hundred."""
ALIASING = 1e-3
"""Largest relative equivariance error of a model that is equivariant up to a grid."""
SMALLEST = 1e-3
"""Units of the field; errors refer to the largest component or to this, whichever is larger."""
SIGNAL = 1e-6
"""Relative change from structure to structure below which a field says nothing: the bars above need a margin."""
_STEP = 5e-6
"""Of the distance, between those on either side of it."""

Prediction = Mapping[str, np.ndarray]


def checked_fields(model: AtomisticModel) -> list[str]:
    """Return the fields that are checked here; an energy and its parts, and matrices, have checks of their own."""
    elsewhere = ("energy", "energies") if "energy" in model.fields else ()
    return [name for name in model.fields if name not in elsewhere and FIELDS[name].level != "orbital_pair"]


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
            # numpy's maximum keeps a NaN, Python's may lose it.
            errors[field] = float(np.maximum(errors[field], _error({field: expected}, found, [field])))
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
        wrapped = atoms.copy()
        steps = np.random.default_rng(0).integers(-2, 3, size=(len(atoms), 3)) * atoms.pbc
        wrapped.positions += steps @ atoms.cell.array
        cases.append(("wrapping", wrapped, np.arange(len(atoms)), 1))
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
    """Yield single atoms, mixed batches and precision; ``model`` in float64."""
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
        float(np.max([_error(expected, found, fields) for expected, found in zip(single, together)])),
        EXACT,
        "largest component",
        "structures in a batch see each other",
    )
    atoms = within_reach(molecule(model.elements), model.cutoff)
    exact = evaluate(model, atoms, fields)
    rounded = evaluate(deepcopy(model).to(torch.float32), atoms, fields)
    yield Measurement(
        "float32", _error(exact, rounded, fields), 1e-4, "largest component", "float32 loses digits: use float64"
    )


def field_cutoff_rows(model: AtomisticModel) -> Iterator[Measurement]:
    """Yield the steps of every field and of its slope where an atom crosses the cutoff, or the end of an envelope
    within it; ``model`` in float64."""
    fields = checked_fields(model)
    scenes = (*leaving_pairs(model), leaving_atom(model))
    for place, distances in crossings(model).items():
        steps = [steps_at(model, at, distance, fields) for at, distance in product(scenes, distances)]
        for field in fields:
            value, slope = np.max([step[field] for step in steps], axis=0)
            meaning = f"the prediction jumps when an atom crosses {place}"
            yield Measurement(f"{field} at {place}", float(value), 1e-6, "largest component", meaning)
            meaning = f"the prediction has a kink where an atom crosses {place}"
            yield Measurement(f"slope of {field} at {place}", float(slope), 1e-5, "largest component / Å", meaning)


def steps_at(
    model: AtomisticModel, at: Callable[[float], Atoms], distance: float, fields: Sequence[str]
) -> dict[str, tuple[float, float]]:
    """Extrapolate fields and their slopes to a distance, from three distances on either side, and compare.

    Args:
        model: in float64.
        at: gives the structure in which a pair is that far apart (Å).
        distance: Å, such as the cutoff.
        fields: names.

    Returns:
        By field the largest step of the value and of the slope (1/Å), both over the largest component.
    """
    step = _STEP * distance
    structures = [at(distance + side * k * step) for side in (1, -1) for k in (1, 2, 3)]
    found = evaluate_many(model, structures, fields)
    steps = {}
    for field in fields:
        outside, inside = np.array([one[field] for one in found]).reshape(2, 3, -1)
        # Value and derivative at 0 of the parabola through the points 1, 2, 3.
        value = [3, -3, 1] @ (outside - inside)
        slope = [-2.5, 4, -1.5] @ (outside + inside) / step
        scale = max(largest(inside), SMALLEST)
        steps[field] = largest(value) / scale, largest(slope) / scale
    return steps


def signal_rows(model: AtomisticModel, structures: Mapping[str, Atoms]) -> Iterator[Measurement]:
    """Yield whether there is anything to check: fields that change with the structure, structures that count.

    A field may be zero by symmetry in some structures (the chirality of a crystal with two equal atoms in its
    cell), not in all of them, unless the model says so.

    Args:
        model: in float64.
        structures: with edges.
    """
    fields, silent = checked_fields(model), model.silent_fields
    plain = {name: evaluate(model, atoms, fields) for name, atoms in structures.items()}
    moved = {name: evaluate(model, distorted(atoms), fields) for name, atoms in structures.items()}
    seen = {
        (field, name): _error({field: plain[name][field]}, moved[name], [field]) > SIGNAL
        for field in fields
        for name in structures
    }
    for field in fields:
        if field in silent:
            value = float(np.max([largest(found[field]) for found in (*plain.values(), *moved.values())]))
            meaning = "the model declares that this field is zero, and it is not"
            yield Measurement(f"declared zero: {field}", value, 0.0, "units of the field", meaning)
        else:
            value = float(not any(seen[field, name] for name in structures))
            meaning = "it is the same for all structures: the other rows prove nothing about it"
            yield Measurement(f"signal: {field}", value, 0.0, "fields", meaning)
    for name in structures:
        value = float(not any(seen[field, name] for field in fields))
        meaning = "moving the atoms changes nothing here: the other rows of this structure prove nothing"
        yield Measurement(f"signal ({name})", value, 0.0, "structures", meaning)


def _error(expected: Prediction, found: Prediction, fields: Sequence[str]) -> float:
    """Return the largest error of any field over its largest component."""
    errors = [largest(found[field] - expected[field]) / max(largest(expected[field]), SMALLEST) for field in fields]
    return float(np.max(errors))
