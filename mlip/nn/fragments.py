"""Fragments of molecules: every heavy atom with the hydrogens that are nearest to it."""

from __future__ import annotations

import torch
from torch import Tensor


def fragments(is_hydrogen: Tensor, senders: Tensor, receivers: Tensor, distances: Tensor) -> tuple[Tensor, int]:
    """Return the fragment ``(atoms,)`` of every atom, numbered from 0, and how many there are.

    Neither the order nor the orientation of the atoms matters. (SPHNet groups by k-means, whose result depends on
    random starts.) Hydrogens without a heavy neighbour among the links are fragments of their own. Of two that are
    equally near, one is taken by the order of the atoms.

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
        last = torch.ones(len(chosen), dtype=torch.bool, device=chosen.device)
        last[:-1] = receivers[chosen[1:]] != receivers[chosen[:-1]]
        owner[receivers[chosen[last]]] = senders[chosen[last]]
    roots, numbered = owner.unique(return_inverse=True)
    return numbered, len(roots)
