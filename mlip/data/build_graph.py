"""From an ASE structure or a sample to an `AtomGraph`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from ase import Atoms

from mlip.core.errors import StructureError
from mlip.core.fields import FIELDS, Field
from mlip.data.graph import AtomGraph
from mlip.data.graphs.base import GraphBuilder
from mlip.data.graphs.radius import Radius
from mlip.data.neighbours import Pairs, neighbour_list
from mlip.data.sample import Sample

Labels = Mapping[str, np.ndarray]

_DTYPES = {"float": np.float64, "int": np.int64, "bool": np.bool_}


def as_builder(graph: GraphBuilder | float) -> GraphBuilder:
    """Return a graph builder; a number is the cutoff (Å) of a radius graph.

    Raises:
        ConfigError: the cutoff is not a positive length.
    """
    return graph if isinstance(graph, GraphBuilder) else Radius(graph)


def build_graph(atoms: Atoms, cutoff: float, labels: Labels | None = None) -> AtomGraph:
    """Build the radius graph of a structure.

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


def graph_of(
    structure: Atoms | Sample, builder: GraphBuilder, labels: Labels | None = None, pairs: Pairs | None = None
) -> AtomGraph:
    """Build the graph of a structure or a sample as a builder draws its edges: in training, evaluation and MD alike.

    Args:
        structure: a sample brings its labels; of an `Atoms` object the builder gets what it needs from its arrays
            (``atoms.set_tags``).
        builder: such as a model's ``graph_builder``.
        labels: more labels, or others.
        pairs: all pairs within the builder's cutoff, in the order of `neighbour_list`, if they are known already. The
            cutoff must be finite.

    Raises:
        StructureError: as `build_graph`; a structure that the builder cannot connect, or lacks a label it needs.
    """
    if isinstance(structure, Sample):
        atoms, known = structure.atoms, dict(structure.labels)
    else:
        atoms, known = structure, {name: structure.arrays[name] for name in builder.needs if name in structure.arrays}
    known.update(labels or {})
    edges = builder(atoms, known) if pairs is None else builder.select(pairs, atoms, known)
    # What only the builder reads need not be a field.
    fields = {name: value for name, value in known.items() if name in FIELDS or name not in builder.needs}
    return graph_from_pairs(atoms, edges, fields)


def graph_from_pairs(atoms: Atoms, pairs: Pairs, labels: Labels | None = None) -> AtomGraph:
    """Build the graph of a structure from edges that are already known.

    A label of integers or booleans stays one. Square matrices over orbitals are stored row by row, so that a batch
    can hold matrices of several sizes: ``hamiltonian`` (orbitals²,), and the field ``num_orbitals`` (graphs,) int64
    tells where each begins and how to shape it.

    Args:
        atoms: as for `build_graph`.
        pairs: (senders, receivers, cell_shifts) as `neighbour_list` returns them.
        labels: as for `build_graph`.

    Raises:
        StructureError: as `build_graph`.
    """
    numbers = atoms.numbers
    if len(numbers) == 0:
        raise StructureError("A structure needs at least one atom, this one has none.")
    if numbers.min() < 1 or numbers.max() > 118:
        raise StructureError(
            f"Atomic numbers must be 1 to 118, got {sorted(set(numbers.tolist()))}: an element symbol "
            "in the file is probably missing or 'X'."
        )
    senders, receivers, shifts = pairs
    edges = np.empty((2, len(senders)), dtype=np.int64)
    edges[0], edges[1] = senders, receivers
    # Arrays are copied, so that the graph is independent of the atoms.
    fields = {
        "positions": torch.from_numpy(np.array(atoms.positions, dtype=np.float64)),
        "atomic_numbers": torch.from_numpy(np.array(numbers, dtype=np.int64)),
        "cell": torch.from_numpy(np.array(atoms.cell.array, dtype=np.float64).reshape(1, 3, 3)),
        "pbc": torch.from_numpy(np.array(atoms.pbc, dtype=np.bool_).reshape(1, 3)),
        "edge_index": torch.from_numpy(edges),
        "cell_shifts": torch.from_numpy(shifts),
    }
    orbitals: dict[str, int] = {}
    for name, value in (labels or {}).items():
        if name not in FIELDS:
            raise StructureError(f"'{name}' is no field of a graph; the fields are {', '.join(FIELDS)}.")
        field = FIELDS[name]
        if field.level == "orbital_pair":
            fields[name] = _matrix(field, value)
            orbitals[name] = len(value)
        else:
            fields[name] = _label(field, value, len(numbers))
    if orbitals:
        if len(set(orbitals.values())) > 1:
            raise StructureError(f"All matrices of a structure need the same number of orbitals, got {orbitals}.")
        fields["num_orbitals"] = torch.tensor([*set(orbitals.values())])
    return AtomGraph(**fields)


def _label(field: Field, value: np.ndarray, num_atoms: int) -> torch.Tensor:
    """Return a label with its leading dimension (1 or atoms), in the kind of number of its field."""
    rows = num_atoms if field.level == "atom" else 1
    array = _numbers(field, value)
    if field.level == "graph" and field.fits(array.shape):
        array = array[None]
    if array.shape[:1] != (rows,) or not field.fits(array.shape[1:]):
        shape = tuple("any" if size is None else size for size in (rows, *field.shape))
        raise StructureError(
            f"The label '{field.name}' of {num_atoms} atoms must have shape ({', '.join(map(str, shape))}), "
            f"got {array.shape}."
        )
    return torch.from_numpy(array)


def _matrix(field: Field, value: np.ndarray) -> torch.Tensor:
    """Return a square matrix row by row, (orbitals²,)."""
    array = _numbers(field, value)
    if array.ndim != 2 or array.shape[0] != array.shape[1] or not len(array):
        raise StructureError(f"'{field.name}' must be a square matrix over orbitals, got shape {array.shape}.")
    return torch.from_numpy(array.reshape(-1))


def _numbers(field: Field, value: np.ndarray) -> np.ndarray:
    """Return a copy in the field's kind of number, or refuse what is another."""
    wanted = _DTYPES[field.kind]
    try:
        array = np.asarray(value)
        # Through float64, so that NaN, 0.5 and None show before they become some integer.
        converted = np.array(array, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise StructureError(f"The label '{field.name}' must be numbers, got {value!r}.") from error
    if wanted is np.float64:
        return converted
    whole = np.isfinite(converted).all() and np.array_equal(converted, np.rint(converted))
    if array.dtype.kind not in "iub" and not whole:
        raise StructureError(f"The label '{field.name}' must be whole numbers, got {array.tolist()}.")
    if wanted is np.bool_ and not np.isin(converted, (0, 1)).all():
        raise StructureError(f"The label '{field.name}' must be true or false (1 or 0), got {array.tolist()}.")
    return array.astype(wanted)
