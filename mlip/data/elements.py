"""The elements that a model knows, against those of a structure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from mlip.core.errors import StructureError
from mlip.data.sample import Sample

LISTED = 12
"""Elements that a message names one by one."""


def check_elements(numbers: Iterable[int], elements: Sequence[str]) -> None:
    """Refuse atoms of elements that a model was not trained on.

    Args:
        numbers: atomic numbers of a structure.
        elements: symbols that the model knows.

    Raises:
        StructureError: names the unknown elements, then the known ones.
    """
    known = np.zeros(len(chemical_symbols), dtype=bool)
    known[[atomic_numbers[symbol] for symbol in elements]] = True
    array = np.asarray(numbers, dtype=np.int64)
    inside = (array > 0) & (array < len(known))
    unknown = array[~(inside & known[np.where(inside, array, 0)])]
    if unknown.size:
        names = ", ".join(
            chemical_symbols[z] if 0 < z < len(chemical_symbols) else f"Z={z}" for z in np.unique(unknown).tolist()
        )
        raise StructureError(
            f"The structure contains {names}, which the model does not know; it knows {list_elements(elements)}. "
            "Use a model trained on these elements."
        )


def list_elements(elements: Sequence[str]) -> str:
    """Return symbols for a message, a few of them one by one, many by number and range.

    >>> list_elements(["H", "C", "O"])
    'H, C, O'
    >>> list_elements(chemical_symbols[1:95])
    '94 elements (H … Pu)'
    """
    if len(elements) <= LISTED:
        return ", ".join(elements)
    return f"{len(elements)} elements ({elements[0]} … {elements[-1]})"


def new_elements(
    samples: Sequence[Sample], elements: Sequence[str], progress: Callable[[int, int], None] | None = None
) -> dict[str, list[int]]:
    """Return elements that a model does not know, by atomic number, and the numbers of the samples that have them.

    Args:
        samples: structures; read once.
        elements: symbols that the model knows.
        progress: called with (done, total).
    """
    known = {atomic_numbers[symbol] for symbol in elements}
    found: dict[int, list[int]] = {}
    for number, sample in enumerate(samples):
        for z in set(sample.atoms.numbers.tolist()) - known:
            found.setdefault(z, []).append(number)
        if progress is not None:
            progress(number + 1, len(samples))
    return {chemical_symbols[z]: found[z] for z in sorted(found)}
