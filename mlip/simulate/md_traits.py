"""What a restart of an MD run must find as it was, so that nothing else is computed under its name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from mlip.calculators.ase import MLIPCalculator
from mlip.core.errors import SimulationError
from mlip.simulate.atoms_json import plain

OPTIONAL = ("model", "replicas")
"""Traits that need not be known; then they are not compared."""

INHERITED = ("charge", "spin")
"""Traits that need not be stated again; then they are those of the run that is continued."""

SAME_ENERGY = 1e-3
"""eV/atom by which the energy of a structure may change between precisions, kernels and machines."""


def traits_of(
    atoms: Atoms, calculator: Calculator | None = None, model: str | None = None, replicas: int | None = None
) -> dict[str, Any]:
    """Return what a run is known by, ready for JSON.

    Args:
        atoms: with masses, constraints, charge and spin.
        calculator: may have a charge and a spin of its own; None has not.
        model: what tells it from others, such as a hash of its file.
        replicas: of how many runs this is one.
    """
    given = calculator.given if isinstance(calculator, MLIPCalculator) else {}
    held = json.dumps([[type(one).__name__, one.todict()] for one in atoms.constraints], default=plain, sort_keys=True)
    # Directions are normalised when they are read, which may change their last digits.
    held = json.dumps(json.loads(held, parse_float=lambda text: round(float(text), 9) + 0.0))
    return {
        "model": model,
        "replicas": replicas,
        **{name: _number(atoms.info.get(name, given.get(name))) for name in INHERITED},
        "masses": hashlib.sha256(np.ascontiguousarray(atoms.get_masses(), dtype="<f8").tobytes()).hexdigest(),
        "constraints": hashlib.sha256(held.encode()).hexdigest(),
    }


def precision_of(calculator: Calculator) -> str | None:
    """Return ``float32`` or ``float64``; None if it cannot be told."""
    return str(calculator.model.dtype).removeprefix("torch.") if isinstance(calculator, MLIPCalculator) else None


def refuse_others(path: object, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to continue a run as what it was not.

    Args:
        path: of what is to be continued.
        before: its traits.
        now: what they would be.

    Raises:
        SimulationError: says which of them differ.
    """
    words = {"model": "another model", "masses": "other masses", "constraints": "other constraints"}
    other = []
    for name, value in now.items():
        old = before.get(name)
        if old == value or (name in OPTIONAL and (old is None or value is None)):
            continue
        if name in INHERITED and value is None:
            continue
        other.append(words.get(name, f"the {name} {old if old is not None else 'not stated'} instead of {value}"))
    if other:
        raise SimulationError(
            f"'{path}' belongs to a run with {' and '.join(other)}: repeat the command as it was, or start anew with "
            "--overwrite."
        )


def inherited(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Return the charge and spin of the run that is continued where they are not stated again."""
    return {name: before[name] for name in INHERITED if now.get(name) is None and before.get(name) is not None}


def refuse_other_energy(path: object, before: float | None, atoms: Atoms) -> None:
    """Refuse to continue with a calculator that gives the same structure another energy.

    Args:
        path: of what is to be continued.
        before: energy in eV of the structure to go on from; None if it is not known.
        atoms: that structure, with the calculator.

    Raises:
        SimulationError: it is another potential.
    """
    now = atoms.get_potential_energy(apply_constraint=False)
    if before is not None and abs(now - before) > SAME_ENERGY * len(atoms):
        raise SimulationError(
            f"'{path}' belongs to a run with another model: the structure to go on from had {before:.4f} eV and has "
            f"{now:.4f} eV now. Give the model it was begun with, or start anew with --overwrite."
        )


def _number(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
