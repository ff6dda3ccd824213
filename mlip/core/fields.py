"""The one table of fields: what a graph, a prediction or a label can hold.

Batching, labels, losses, metrics and the contracts read this table. A new physical quantity is one more
row here.
"""

from dataclasses import dataclass
from typing import Literal

Level = Literal["graph", "atom", "edge", "orbital_pair"]
Kind = Literal["float", "int", "bool"]


@dataclass(frozen=True)
class Field:
    """One named quantity.

    Attributes:
        name: key in graphs, predictions and labels.
        level: what the first dimension counts; of an ``orbital_pair`` field the first two count orbitals.
        shape: shape of one item, e.g. ``(3,)`` for a vector per atom; None is a dimension that the data decide.
        unit: unit inside the package.
        rank: Cartesian rank, which says how it turns with the structure (0 scalar, 1 vector, 2 tensor).
        extensive: whether the value of two separated copies is twice the value of one.
        pseudo: whether inversion brings a further factor of -1: a handedness, not a scalar.
        unsigned: whether only the size is predicted and compared: the sign is that of an arbitrary direction, such as
            "up" of collinear magnetic moments, all of which may be reversed without a change of the energy.
        kind: of number.
    """

    name: str
    level: Level
    shape: tuple[int | None, ...]
    unit: str
    rank: int = 0
    extensive: bool = False
    pseudo: bool = False
    unsigned: bool = False
    kind: Kind = "float"

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether one item may have this shape."""
        return len(shape) == len(self.shape) and all(
            size == wanted or (wanted is None and size > 0) for size, wanted in zip(shape, self.shape)
        )


_TABLE = (
    Field("energy", "graph", (), "eV", extensive=True),
    Field("energies", "atom", (), "eV"),
    Field("forces", "atom", (3,), "eV/Å", rank=1),
    Field("stress", "graph", (3, 3), "eV/Å³", rank=2),
    Field("energy_members", "graph", (None,), "eV", extensive=True),
    Field("energies_members", "atom", (None,), "eV"),
    Field("forces_members", "atom", (None, 3), "eV/Å", rank=1),
    Field("stress_members", "graph", (None, 3, 3), "eV/Å³", rank=2),
    Field("energy_std", "graph", (), "eV"),
    Field("energies_std", "atom", (), "eV"),
    Field("forces_std", "atom", (), "eV/Å"),
    Field("stress_std", "graph", (), "eV/Å³"),
    Field("class_scores", "graph", (None,), "1"),
    Field("chirality", "graph", (), "1", pseudo=True),
    Field("magmoms", "atom", (), "μB", unsigned=True),
    Field("hamiltonian", "orbital_pair", (), "Hartree"),
    Field("initial_hamiltonian", "orbital_pair", (), "Hartree"),
    Field("overlap", "orbital_pair", (), "1"),
    Field("relaxed_positions", "atom", (3,), "Å", rank=1),
    Field("charge", "graph", (), "e", extensive=True, kind="int"),
    Field("spin", "graph", (), "1", kind="int"),
    Field("tags", "atom", (), "1", kind="int"),
    Field("fixed", "atom", (), "1", kind="bool"),
    Field("fragments", "atom", (), "1", kind="int"),
    Field("positions", "atom", (3,), "Å", rank=1),
    Field("atomic_numbers", "atom", (), "1"),
    Field("cell", "graph", (3, 3), "Å", rank=1),
    Field("pbc", "graph", (3,), "1"),
    Field("cell_shifts", "edge", (3,), "1"),
)

FIELDS: dict[str, Field] = {field.name: field for field in _TABLE}
"""Every known field by name."""

LABELS: tuple[str, ...] = ("energy", "forces", "stress", "class_scores", "chirality", "magmoms")
"""Fields a data set may label and a loss may ask for."""

TARGETS: tuple[str, ...] = (*LABELS, "hamiltonian")
"""What a model may be trained on and judged by: the labels, and the matrix over orbitals."""

MATRICES: tuple[str, ...] = ("hamiltonian", "initial_hamiltonian", "overlap")
"""Matrices over orbitals that a data set may hold, in the order of `mlip.data.orbitals`."""

INPUTS: tuple[str, ...] = ("charge", "spin", "tags", "fixed", "fragments")
"""What a structure is besides its atoms: total charge, multiplicity 2S + 1, OC20's tags (0 below the surface,
1 surface, 2 adsorbate), atoms held fixed, which fragment an atom is of. Inputs of a model, never targets."""

DATA_FIELDS: tuple[str, ...] = (*LABELS, *MATRICES, "relaxed_positions", *INPUTS)
"""Everything that a data set may state about a structure."""

DERIVED: dict[str, str] = {
    "forces": "energy",
    "stress": "energy",
    "forces_members": "energy_members",
    "stress_members": "energy_members",
    "energy_std": "energy_members",
    "energies_std": "energies_members",
    "forces_std": "energy_members",
    "stress_std": "energy_members",
}
"""Fields that are derivatives or spreads, and of what: no model returns them, every model with the field on the right
has them."""

TOTALS: dict[str, str] = {"energies": "energy", "energies_members": "energy_members"}
"""Fields of atoms, and what their sums over the atoms of a structure are called."""

MEMBERS: dict[str, str] = {name: f"{name}_members" for name in ("energy", "energies", "forces", "stress")}
"""Fields of which a committee has one value a member, and what those are called; the field itself is their mean."""

SPREADS: dict[str, str] = {name: f"{name}_std" for name in MEMBERS}
"""The same fields, and what the standard deviation over the members is called."""
