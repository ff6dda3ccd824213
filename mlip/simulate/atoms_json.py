"""Structures with their results as JSON, all digits of every number kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import dict2constraint
from ase.spacegroup import Spacegroup

RESULTS = ("energy", "free_energy", "forces", "stress", "magmoms")
"""What is kept of the results of a calculator."""

_PLAIN_KINDS = "biufU"
"""Kinds of numpy's types that are kept: truth values, numbers and texts."""


def atoms_to_json(atoms: Atoms) -> dict[str, Any]:
    """Return what `atoms_from_json` reads: a structure with its arrays, constraints and results, and its plain `info`.

    Of `info` and of the arrays numbers, texts and truth values are kept, and of `info` lists, dicts and arrays of them.
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
        "info": _info_to_json(atoms.info),
        "arrays": {str(name): _array(values) for name, values in atoms.arrays.items() if _is_of_atoms(name, values)},
        "constraints": [constraint.todict() for constraint in atoms.constraints],
        "results": {name: results[name] for name in RESULTS if name in results},
    }


def atoms_from_json(content: Any) -> Atoms:
    """Return the structure, its results in a calculator of their own.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: damaged.
    """
    atoms = Atoms(content["numbers"], positions=content["positions"], cell=content["cell"], pbc=content["pbc"])
    atoms.info.update(info_from_json(content["info"]))
    # Earlier versions kept none.
    for name, values in content.get("arrays", {}).items():
        atoms.set_array(name, _from_array(values))
    atoms.set_constraint([dict2constraint(constraint) for constraint in content["constraints"]])
    results = {
        name: np.array(value) if isinstance(value, list) else value for name, value in content["results"].items()
    }
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def info_from_json(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ``info`` of a structure as `atoms_to_json` wrote it.

    Raises:
        TypeError, ValueError: damaged.
    """
    return {name: _from_array(value) if _is_array(value) else value for name, value in content.items()}


def _info_to_json(info: Mapping[Any, Any]) -> dict[str, Any]:
    found = {str(name): _plain_or_none(value) for name, value in info.items()}
    return {name: value for name, value in found.items() if value is not None or info.get(name, ...) is None}


def _plain_or_none(value: Any) -> Any:
    """Return a value as JSON has it; None for what is not plain."""
    if isinstance(value, np.ndarray):
        return _array(value) if value.dtype.kind in _PLAIN_KINDS else None
    if isinstance(value, Spacegroup):
        return value.symbol
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple | dict):
        try:
            return json.loads(json.dumps(value, default=_number))
        except (TypeError, ValueError):
            return None
    return None


def _number(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in _PLAIN_KINDS:
        return value.tolist()
    raise TypeError(type(value).__name__)


def _is_of_atoms(name: Any, values: np.ndarray) -> bool:
    return name not in ("numbers", "positions") and values.dtype.kind in _PLAIN_KINDS and values.ndim <= 2


def _array(values: np.ndarray) -> dict[str, Any]:
    # Unsigned numbers have no place in an extended XYZ.
    return {"array": values.tolist(), "dtype": "<i8" if values.dtype.kind == "u" else values.dtype.str}


def _is_array(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"array", "dtype"}


def _from_array(value: Mapping[str, Any]) -> np.ndarray:
    return np.array(value["array"], dtype=value["dtype"])


def plain(value: Any) -> Any:
    """Return what JSON knows for numpy's numbers and arrays, for ``json.dumps``; all digits of a float stay."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Atoms):
        return [value.numbers.tolist(), value.positions.tolist(), value.cell.array.tolist(), value.pbc.tolist()]
    return str(value)
