"""Checks of predicted matrices over orbitals: they turn with the molecule, and follow its atoms.

Errors are over the largest entry. Left out, against other fields: periodic structures, which such models refuse, and
derivatives, which matrices have none of. Of a model that adds to an initial guess, its own part is checked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from itertools import product

import numpy as np
import torch
from ase import Atoms

from mlip.core.fields import FIELDS
from mlip.data.orbital_rotation import rotation_of_shells
from mlip.models.base import AtomisticModel
from mlip.testing.evaluate import evaluate, evaluate_many, largest
from mlip.testing.field_checks import EXACT, SIGNAL, SMALLEST, steps_at
from mlip.testing.measurement import Measurement, worst
from mlip.testing.smoothness import crossings, leaving_atom, leaving_pairs
from mlip.testing.structures import distorted, isolated_atom, molecule, within_reach
from mlip.testing.symmetry import changed_inputs, random_orthogonal, transformed

UNIT = "largest entry"


def matrix_fields(model: AtomisticModel) -> list[str]:
    """Return the fields that are checked here."""
    return [name for name in model.fields if FIELDS[name].level == "orbital_pair"]


def orbital_rotation_of(model: AtomisticModel, atoms: Atoms, matrix: np.ndarray) -> np.ndarray:
    """Return D ``(orbitals, orbitals)``: a molecule turned by an orthogonal matrix has ``D H Dᵀ``."""
    return rotation_of_shells([l for symbol in atoms.symbols for l in model.shells[symbol]], matrix)


def rotation_error(model: AtomisticModel, field: str, atoms: Atoms) -> float:
    """Turn and reflect a molecule: the largest difference to ``D H Dᵀ`` in the unit of the field."""
    plain, errors = evaluate(model, atoms, [field])[field], []
    for seed in range(4):
        matrix = random_orthogonal(seed, proper=model.symmetry == "SO3" or seed % 2 == 0)
        turn = orbital_rotation_of(model, atoms, matrix)
        found = evaluate(model, transformed(atoms, matrix), [field])[field]
        errors.append(largest(found - turn @ plain @ turn.T))
    return worst(*errors)


def matrix_rows(model: AtomisticModel, name: str, atoms: Atoms) -> Iterator[Measurement]:
    """Yield the symmetries of one molecule; ``model`` in float64."""
    group = "rotation" if model.symmetry == "SO3" else "rotation and reflection"
    for field in matrix_fields(model):
        plain = evaluate(model, atoms, [field])[field]
        scale = _scale(plain)
        meaning = "turning the molecule changes its orbital energies"
        yield Measurement(
            f"{group}: {field} ({name})", rotation_error(model, field, atoms) / scale, EXACT, UNIT, meaning
        )
        meaning = "it has complex eigenvalues"
        yield Measurement(f"symmetric: {field} ({name})", largest(plain - plain.T), 0.0, "unit of the field", meaning)
        moved = atoms.copy()
        moved.positions += [7.3, -11.9, 23.1]
        meaning = "the same molecule, written down differently, has another matrix"
        error = largest(evaluate(model, moved, [field])[field] - plain) / scale
        yield Measurement(f"translation: {field} ({name})", error, EXACT, UNIT, meaning)
        order = np.arange(len(atoms))[::-1]
        rows = _rows(model, atoms, order)
        error = largest(evaluate(model, atoms[order], [field])[field] - plain[np.ix_(rows, rows)]) / scale
        yield Measurement(f"permutation: {field} ({name})", error, EXACT, UNIT, meaning)
        meaning = "distant molecules feel each other"
        yield Measurement(
            f"far copies: {field} ({name})", _far_error(model, field, atoms) / scale, EXACT, UNIT, meaning
        )
    meaning = "a second evaluation of the same graph gives another result"
    yield Measurement(f"input unchanged ({name})", float(changed_inputs(model, atoms)), 0.0, "fields", meaning)


def matrix_case_rows(model: AtomisticModel, structures: Mapping[str, Atoms]) -> Iterator[Measurement]:
    """Yield single atoms, mixed batches, precision and what changes with the structure; ``model`` in float64."""
    for field in matrix_fields(model):
        meaning = "an isolated atom is no sphere, or its matrix is not finite"
        errors = []
        for symbol in model.elements:
            atom = isolated_atom(symbol)
            found = evaluate(model, atom, [field])[field]
            turn = orbital_rotation_of(model, atom, random_orthogonal(0, proper=False))
            errors.append(largest(turn @ found @ turn.T - found) / _scale(found))
        yield Measurement(f"one atom, no edges: {field}", worst(*errors), EXACT, UNIT, meaning)
        batch = [*structures.values(), isolated_atom(model.elements[0])]
        together = evaluate_many(model, batch, [field])
        alone = [evaluate(model, atoms, [field]) for atoms in batch]
        errors = [largest(a[field] - b[field]) / _scale(b[field]) for a, b in zip(together, alone, strict=True)]
        meaning = "molecules in a batch see each other"
        yield Measurement(f"batch = single: {field}", worst(*errors), EXACT, UNIT, meaning)
        atoms = within_reach(molecule(model.elements), model.cutoff)
        exact = evaluate(model, atoms, [field])[field]
        rounded = evaluate(deepcopy(model).to(torch.float32), atoms, [field])[field]
        meaning = "float32 loses digits: use float64"
        yield Measurement(f"float32: {field}", largest(rounded - exact) / _scale(exact), 1e-5, UNIT, meaning)
        for name, atoms in structures.items():
            plain = evaluate(model, atoms, [field])[field]
            change = evaluate(model, distorted(atoms), [field])[field] - plain
            atom = np.repeat(np.arange(len(atoms)), _sizes(model, atoms))
            for where, mask in (("of atoms", atom == atom[:, None]), ("of pairs", atom != atom[:, None])):
                value = float(not largest(change[mask]) / _scale(plain) > SIGNAL)
                meaning = "moving the atoms changes nothing here: the other rows of this structure prove nothing"
                yield Measurement(f"signal: {field} {where} ({name})", value, 0.0, "structures", meaning)


def matrix_cutoff_rows(model: AtomisticModel) -> Iterator[Measurement]:
    """Yield the steps of every matrix and of its slope where an atom crosses the cutoff, or the end of an envelope
    within it; ``model`` in float64.

    A model that jumps by design (``continuous``) is measured and may have any steps.
    """
    fields = matrix_fields(model)
    scenes = (*leaving_pairs(model), leaving_atom(model))
    free = "" if model.continuous else ", which jumps by design"
    bars = (1e-6, 1e-5) if model.continuous else (np.inf, np.inf)
    for place, distances in crossings(model).items():
        steps = [steps_at(model, at, distance, fields) for at, distance in product(scenes, distances)]
        for field in fields:
            value, slope = np.max([step[field] for step in steps], axis=0)
            meaning = f"the matrix jumps when an atom crosses {place}"
            yield Measurement(f"{field} at {place}{free}", float(value), bars[0], UNIT, meaning)
            meaning = f"the matrix has a kink where an atom crosses {place}"
            yield Measurement(f"slope of {field} at {place}{free}", float(slope), bars[1], f"{UNIT} / Å", meaning)


def _far_error(model: AtomisticModel, field: str, atoms: Atoms) -> float:
    """Put a turned copy far away: both keep their matrices, and there is nothing between them."""
    # A copy without a turn would hide a model that mixes up which atom belongs to which copy.
    other = transformed(atoms, random_orthogonal(3, proper=True))
    first, second = (evaluate(model, one, [field])[field] for one in (atoms, other))
    extent = np.ptp(atoms.positions, axis=0).max() + np.ptp(other.positions, axis=0).max()
    other.positions += [extent + 2 * model.cutoff, 0.0, 0.0]
    both = atoms.copy()
    both.extend(other)
    found = evaluate(model, both, [field])[field]
    n = len(first)
    parts = (found[:n, :n] - first, found[n:, n:] - second, found[:n, n:], found[n:, :n])
    return worst(*(largest(part) for part in parts))


def _rows(model: AtomisticModel, atoms: Atoms, order: np.ndarray) -> np.ndarray:
    """Return the orbitals of the atoms in another order, as indices into the present one."""
    sizes = _sizes(model, atoms)
    starts = np.cumsum([0, *sizes])
    return np.concatenate([np.arange(starts[k], starts[k] + sizes[k]) for k in order])


def _sizes(model: AtomisticModel, atoms: Atoms) -> list[int]:
    return [sum(2 * l + 1 for l in model.shells[symbol]) for symbol in atoms.symbols]


def _scale(matrix: np.ndarray) -> float:
    return max(largest(matrix), SMALLEST)
