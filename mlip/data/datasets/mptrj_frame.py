"""One MPtrj frame out of any of its layouts, and what becomes of it: the choice of energies, guards, groups."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase import Atoms

from mlip.core.errors import DataError
from mlip.data.formats.json_values import array, number
from mlip.data.labels import stress_tensor
from mlip.data.sample import Sample

ENERGIES = ("corrected", "uncorrected")
SAME_ENERGY_PER_ATOM = 1e-3
"""eV/atom; a stated energy per atom that differs by more from the corrected energy belongs to other data."""


@dataclass(slots=True)
class MPtrjFrame:
    """A frame in the package's units, before anything is chosen.

    Attributes:
        where: file and frame, for messages and ``info["source"]``.
        atoms: the structure.
        mp_id: of the material.
        corrected, uncorrected: eV of the cell; None where the file does not know.
        energy_per_atom: eV/atom as the file repeats it, None if it does not.
        forces: (atoms, 3) eV/Å.
        stress: (3, 3) or xx yy zz yz xz xy, eV/Å³, tension positive.
        magmoms: (atoms,) μB.
        info: further plain values.
    """

    where: str
    atoms: Atoms
    mp_id: str
    corrected: Any
    uncorrected: Any
    energy_per_atom: Any = None
    forces: Any = None
    stress: Any = None
    magmoms: Any = None
    info: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Choice:
    """What the user wants of a frame.

    Args:
        energy: ``corrected`` or ``uncorrected``.
        absolute_magmoms: keep the size of magnetic moments only.
    """

    energy: str
    absolute_magmoms: bool = False

    def sample(self, frame: MPtrjFrame) -> Sample:
        """Return the sample of a frame.

        Raises:
            DataError: the frame lacks the chosen energy, contradicts itself, or has labels of a wrong shape.
        """
        energies = {
            "corrected": number(frame.corrected, "corrected energy", frame.where),
            "uncorrected": number(frame.uncorrected, "uncorrected energy", frame.where),
        }
        energy = energies[self.energy]
        if energy is None:
            other = next(name for name in ENERGIES if name != self.energy)
            has = f"only the {other} one: set data.dataset.energy={other}" if energies[other] is not None else "neither"
            raise DataError(f"{frame.where} has no {self.energy} energy, it has {has}.")
        size = len(frame.atoms)
        _check_per_atom(energies["corrected"], frame, size)
        labels = {"energy": np.array(energy)}
        for name, value, shape in (
            ("forces", frame.forces, (size, 3)),
            ("magmoms", frame.magmoms, (size,)),
        ):
            if value is not None:
                labels[name] = array(value, name, shape, frame.where)
        if frame.stress is not None:
            components = array(frame.stress, "stress", np.shape(frame.stress), frame.where)
            labels["stress"] = stress_tensor(components, "stress", frame.where)
        if self.absolute_magmoms and "magmoms" in labels:
            labels["magmoms"] = np.abs(labels["magmoms"])
        return Sample(frame.atoms, labels, {"source": frame.where, "group": frame.mp_id, **frame.info})


def frame_ids(frame_id: str) -> dict[str, Any]:
    """Return ``task_id``, ``calc_id`` and ``ionic_step`` of ``<task_id>-<calc_id>-<ionic_step>``; {} of other names.

    The task id has a dash of its own, so the name is split from the right.
    """
    task_id, *numbers = frame_id.rsplit("-", 2)
    if len(numbers) != 2 or not all(text.isascii() and text.isdigit() and len(text) < 10 for text in numbers):
        return {}
    return {"task_id": task_id, "calc_id": int(numbers[0]), "ionic_step": int(numbers[1])}


def _check_per_atom(corrected: float | None, frame: MPtrjFrame, size: int) -> None:
    """Refuse a frame whose energy per atom is not that of its corrected energy: it was mixed from two files."""
    stated = number(frame.energy_per_atom, "energy_per_atom", frame.where)
    if stated is None or corrected is None:
        return
    if abs(corrected / size - stated) > SAME_ENERGY_PER_ATOM:
        raise DataError(
            f"{frame.where} contradicts itself: energy_per_atom is {stated:.6f} eV, the corrected energy of "
            f"{size} atoms gives {corrected / size:.6f} eV. The file mixes energies; use the published one."
        )
