"""Structures with their results as JSON, all digits of every number kept."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import dict2constraint

RESULTS = ("energy", "forces", "stress", "magmoms")
"""What is kept of the results of a calculator."""


def atoms_to_json(atoms: Atoms) -> dict[str, Any]:
    """Return what `atoms_from_json` reads: a structure with charge, spin, constraints and results.

    A structure whose constraints do not come back from the form in which ASE writes them is kept without any.
    """
    content = _content(atoms)
    try:
        atoms_from_json(json.loads(json.dumps(content, default=plain)))
    except (KeyError, TypeError, ValueError, AttributeError):
        content["constraints"] = []
    return content


def _content(atoms: Atoms) -> dict[str, Any]:
    results = getattr(atoms.calc, "results", {})
    return {
        "numbers": atoms.numbers,
        "positions": atoms.positions,
        "cell": atoms.cell.array,
        "pbc": atoms.pbc,
        "info": {name: atoms.info[name] for name in ("charge", "spin") if name in atoms.info},
        "constraints": [constraint.todict() for constraint in atoms.constraints],
        "results": {name: results[name] for name in RESULTS if name in results},
    }


def atoms_from_json(content: Any) -> Atoms:
    """Return the structure, its results in a calculator of their own.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: damaged.
    """
    atoms = Atoms(content["numbers"], positions=content["positions"], cell=content["cell"], pbc=content["pbc"])
    atoms.info.update(content["info"])
    atoms.set_constraint([dict2constraint(constraint) for constraint in content["constraints"]])
    results = {
        name: np.array(value) if isinstance(value, list) else value for name, value in content["results"].items()
    }
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def plain(value: Any) -> Any:
    """Return what JSON knows for numpy's numbers and arrays, for ``json.dumps``; all digits of a float stay."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Atoms):
        return [value.numbers.tolist(), value.positions.tolist(), value.cell.array.tolist(), value.pbc.tolist()]
    return str(value)
