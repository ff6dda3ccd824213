"""Fragments of molecules: every heavy atom with the hydrogens that are nearest to it."""

from __future__ import annotations

import torch
from torch import Tensor

TIED = 1e-4
"""Å. Heavy atoms whose distances to a hydrogen differ by less are equally near: those that symmetry exchanges."""


def fragments(is_hydrogen: Tensor, senders: Tensor, receivers: Tensor, distances: Tensor) -> tuple[Tensor, int]:
    """Return the fragment ``(atoms,)`` of every atom, numbered from 0, and how many there are.

    Neither the order nor the orientation of the atoms matters. (SPHNet groups by k-means, whose result depends on
    random starts.) Hydrogens without a heavy neighbour among the links are fragments of their own, and so are those
    with two that are equally near, as in diborane: either choice would break the symmetry.

    Args:
        is_hydrogen: ``(atoms,)``.
        senders, receivers: ``(links,)`` pairs of atoms of one molecule, receivers ascending.
        distances: ``(links,)`` Å.
    """
    num_atoms = len(is_hydrogen)
    owner = torch.arange(num_atoms, device=is_hydrogen.device)
    chosen = (is_hydrogen[receivers] & ~is_hydrogen[senders]).nonzero()[:, 0]
    # Sorted so that the nearest comes last, and is the one that stays.
    chosen = chosen[distances[chosen].argsort(descending=True, stable=True)]
    chosen = chosen[receivers[chosen].argsort(stable=True)]
    if len(chosen):
        same = receivers[chosen[1:]] == receivers[chosen[:-1]]
        near = distances[chosen[:-1]] - distances[chosen[1:]] < TIED
        no, none = same.new_zeros(1), same & near
        taken = chosen[~torch.cat([same, no]) & ~torch.cat([no, none])]
        owner[receivers[taken]] = senders[taken]
    roots, numbered = owner.unique(return_inverse=True)
    return numbered, len(roots)
