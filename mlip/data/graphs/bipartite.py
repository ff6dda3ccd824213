"""Pairs between two sets of atoms: adsorbate and surface, or one molecule and the others."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from ase import Atoms
from ase.data import covalent_radii

from mlip.core.errors import ConfigError, StructureError, did_you_mean
from mlip.data.graphs.base import GraphBuilder, check_cutoff, distances, take
from mlip.data.neighbours import Pairs, neighbour_list

CHOICES = ("tags", "fragments", "molecules")
ADSORBATE = 2
"""OC20's tag of the atoms of an adsorbate."""
BONDED = 1.25
"""Times the sum of the covalent radii: atoms that are closer belong to one molecule."""


class Bipartite(GraphBuilder):
    """Edges are the pairs within the cutoff whose atoms belong to different parts.

    What is a part, by

    - ``tags``: the adsorbate (tag 2) is one, all other atoms are the other;
    - ``fragments``: atoms with the same number in the label ``fragments`` are one;
    - ``molecules``: atoms that bonds connect, shorter than 1.25 times the sum of their covalent radii, are one. A
      periodic image of a molecule is another molecule; a network that goes on through the cell's walls is one part.

    With ``molecules`` a bond that breaks makes edges of full weight appear: not smooth.

    Args:
        cutoff: Å.
        by: ``tags``, ``fragments`` or ``molecules``.
    """

    def __init__(self, cutoff: float, by: str = "tags") -> None:
        self.cutoff = check_cutoff("Bipartite", cutoff)
        if by not in CHOICES:
            raise ConfigError(
                f"Bipartite needs by as one of {', '.join(CHOICES)}, got {by!r}.{did_you_mean(str(by), CHOICES)}"
            )
        self.by = by
        self.smooth = by != "molecules"
        self.needs = () if by == "molecules" else (by,)

    @property
    def description(self) -> str:
        """See :class:`GraphBuilder`."""
        return f"pairs within {self.cutoff!r} Å between different parts (by {self.by})"

    def select(self, pairs: Pairs, atoms: Atoms, labels: Mapping[str, np.ndarray] | None = None) -> Pairs:
        """See :class:`GraphBuilder`."""
        if self.by == "molecules":
            return take(pairs, ~_same_molecule(pairs, atoms))
        part = self._parts(atoms, labels or {})
        senders, receivers, _ = pairs
        return take(pairs, part[senders] != part[receivers])

    def _parts(self, atoms: Atoms, labels: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return (atoms,) the part of each atom."""
        if self.by not in labels:
            hint = "with atoms.set_tags, or as the data set's label" if self.by == "tags" else "as a label"
            raise StructureError(
                f"The bipartite graph needs the {self.by} of the atoms, this structure has none. Give them {hint}, or "
                "choose model/graph=radius."
            )
        part = np.asarray(labels[self.by])
        if part.shape != (len(atoms),) or part.dtype.kind not in "iu":
            raise StructureError(
                f"The {self.by} of {len(atoms)} atoms must be {len(atoms)} integers, got {part.dtype} of shape "
                f"{part.shape}."
            )
        return part == ADSORBATE if self.by == "tags" else part


def _same_molecule(pairs: Pairs, atoms: Atoms) -> np.ndarray:
    """Return (edges,) whether bonds lead from the receiver to that very image of the sender."""
    molecule, offsets, endless = find_molecules(atoms)
    senders, receivers, shifts = pairs
    same_image = (shifts == offsets[senders] - offsets[receivers]).all(axis=1)
    return (molecule[senders] == molecule[receivers]) & (same_image | endless[receivers])


def find_molecules(atoms: Atoms) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Follow the bonds from atom to atom.

    Returns:
        (atoms,) number of each atom's molecule; (atoms, 3) int64 lattice vectors to add to its position so that the
        molecule is in one piece; (atoms,) whether its molecule goes on through the walls of the cell.
    """
    num_atoms = len(atoms)
    molecule, offsets = np.full(num_atoms, -1), np.zeros((num_atoms, 3), dtype=np.int64)
    if not num_atoms:
        return molecule, offsets, np.zeros(0, dtype=bool)
    radii = BONDED * covalent_radii[atoms.numbers]
    pairs = neighbour_list(atoms.positions, atoms.cell.array, atoms.pbc, 2 * radii.max())
    senders, receivers, shifts = take(pairs, distances(pairs, atoms) < radii[pairs[0]] + radii[pairs[1]])
    starts = np.searchsorted(receivers, np.arange(num_atoms + 1))
    for root in range(num_atoms):
        if molecule[root] >= 0:
            continue
        molecule[root] = root
        waiting = [root]
        while waiting:
            atom = waiting.pop()
            for bond in range(starts[atom], starts[atom + 1]):
                other = senders[bond]
                if molecule[other] < 0:
                    molecule[other] = root
                    offsets[other] = offsets[atom] + shifts[bond]
                    waiting.append(other)
    # A bond that leads to another image than the tree did closes a ring through the walls.
    through = (shifts != offsets[senders] - offsets[receivers]).any(axis=1)
    return molecule, offsets, np.isin(molecule, molecule[receivers[through]])
