"""From an ASE structure to an `AtomGraph`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from ase import Atoms

from mlip.core.errors import StructureError
from mlip.core.fields import FIELDS
from mlip.data.graph import AtomGraph
from mlip.data.neighbours import Pairs, neighbour_list


def build_graph(atoms: Atoms, cutoff: float, labels: Mapping[str, np.ndarray] | None = None) -> AtomGraph:
    """Build the graph of a structure.

    Args:
        atoms: positions in Å; constraints and calculators are not looked at.
        cutoff: edges are pairs with a distance strictly below it, Å.
        labels: values by field name (``energy``, ``forces``, ``stress``, …) in the package's units; NaN
            means not labelled.

    Raises:
        StructureError: no atoms, an atomic number outside 1–118, positions not finite, periodic axes without
            volume, or a label of the wrong shape.
    """
    return graph_from_pairs(atoms, neighbour_list(atoms.positions, atoms.cell.array, atoms.pbc, cutoff), labels)


def graph_from_pairs(atoms: Atoms, pairs: Pairs, labels: Mapping[str, np.ndarray] | None = None) -> AtomGraph:
    """Build the graph of a structure from a neighbour list that is already known.

    Args:
        atoms: as for `build_graph`.
        pairs: (senders, receivers, cell_shifts) as `neighbour_list` returns them.
        labels: as for `build_graph`.

    Raises:
        StructureError: as `build_graph`.
    """
    if len(atoms) == 0:
        raise StructureError("A structure needs at least one atom, this one has none.")
    if atoms.numbers.min() < 1 or atoms.numbers.max() > 118:
        raise StructureError(
            f"Atomic numbers must be 1 to 118, got {sorted(set(atoms.numbers.tolist()))}: an element symbol "
            "in the file is probably missing or 'X'."
        )
    senders, receivers, shifts = pairs
    fields = {
        "positions": torch.tensor(atoms.positions, dtype=torch.float64),
        "atomic_numbers": torch.tensor(atoms.numbers, dtype=torch.int64),
        "cell": torch.tensor(atoms.cell.array, dtype=torch.float64).reshape(1, 3, 3),
        "pbc": torch.tensor(atoms.pbc, dtype=torch.bool).reshape(1, 3),
        "edge_index": torch.from_numpy(np.stack([senders, receivers])),
        "cell_shifts": torch.from_numpy(shifts),
    }
    for name, value in (labels or {}).items():
        fields[name] = _label(name, value, len(atoms))
    return AtomGraph(**fields)


def _label(name: str, value: np.ndarray, num_atoms: int) -> torch.Tensor:
    """Return a label as a float64 tensor with its leading dimension (1 or atoms)."""
    field = FIELDS[name]
    rows = num_atoms if field.level == "atom" else 1
    array = np.asarray(value, dtype=np.float64)
    if field.level == "graph" and field.fits(array.shape):
        array = array[None]
    if array.shape[:1] != (rows,) or not field.fits(array.shape[1:]):
        shape = tuple("any" if size is None else size for size in (rows, *field.shape))
        raise StructureError(
            f"The label '{name}' of {num_atoms} atoms must have shape ({', '.join(map(str, shape))}), "
            f"got {array.shape}."
        )
    return torch.tensor(array)
