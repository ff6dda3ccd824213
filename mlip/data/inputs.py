"""What a model reads of a structure besides its atoms, such as the charge: where it stands, and what it may be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms

from mlip.core.errors import StructureError
from mlip.core.fields import FIELDS

_SAID = {"charge": "the total charge", "spin": "the multiplicity 2S + 1", "tags": "the tags of the atoms"}

Inputs = Mapping[str, Sequence[int]]
"""Names of inputs, and the whole numbers that each may be: those that a model was trained on."""


def check_inputs(given: Mapping[str, Any], inputs: Inputs) -> None:
    """Refuse inputs that are missing, or that a model was not trained on.

    Args:
        given: arrays of whole numbers by name; others than those of ``inputs`` are not looked at.
        inputs: what the model needs.

    Raises:
        StructureError: names the input, what it is and what it may be.
    """
    for name, values in inputs.items():
        if name not in given:
            raise StructureError(f"The model needs {_SAID.get(name, name)} ('{name}'), and this structure has none.")
        unknown = np.setdiff1d(given[name], np.array(values))
        if unknown.size:
            known, here = (", ".join(map(str, some)) for some in (values, unknown.tolist()))
            raise StructureError(
                f"The model was trained with {name} {known}; this structure has {here}, of which it knows nothing "
                f"({_SAID.get(name, name)}). Use a model trained on such structures."
            )


def stated_inputs(atoms: Atoms, inputs: Inputs, given: Mapping[str, int] | None = None) -> dict[str, np.ndarray]:
    """Return what a model needs to know of a structure, as labels for `mlip.data.build_graph.graph_of`.

    Args:
        atoms: states charge and spin in ``atoms.info``, inputs of atoms in ``atoms.arrays``.
        inputs: what the model needs.
        given: values by name for a structure that does not state them.

    Raises:
        StructureError: an input is missing, is no whole number, contradicts ``given``, or is none that the model knows.
    """
    found = {}
    for name in inputs:
        holder = atoms.arrays if FIELDS[name].level == "atom" else atoms.info
        stated = (given or {}).get(name, holder.get(name))
        if stated is None:
            raise StructureError(_missing(name))
        value = np.asarray(stated)
        if value.dtype.kind not in "iuf" or not np.array_equal(value, np.rint(value)):
            raise StructureError(f"{name} must be whole numbers, got {stated!r} ({_SAID.get(name, name)}).")
        found[name] = value.astype(np.int64)
        if name in holder and not np.array_equal(holder[name], value):
            raise StructureError(
                f"The structure says {name} {holder[name]}, the calculation was asked for with {name} {stated}: "
                "give one of them."
            )
    check_inputs(found, inputs)
    return found


def _missing(name: str) -> str:
    if FIELDS[name].level == "atom":
        return f"The model needs {_SAID.get(name, name)}, and this structure has none: give it atoms.arrays['{name}']."
    return (
        f"The model was trained with {_SAID.get(name, name)}, and this structure has none: set atoms.info['{name}'], "
        f"write {name}=… into the comment line of the extended-XYZ file, or give {name} to the calculator (--{name})."
    )
