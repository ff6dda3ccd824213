"""Find and check the labels of one frame: which key is the energy, which sign has the stress.

Values are taken as the file has them. In particular forces come from ``calc.results``, never from
``atoms.get_forces()``, which sets those of fixed atoms to zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase import Atoms

from mlip.core.errors import ConfigError, DataError, did_you_mean
from mlip.core.fields import FIELDS, LABELS
from mlip.data.label_units import LabelUnits

_WORDS = {
    "energy": ("energy",),
    "forces": ("forces", "force"),
    "stress": ("stress", "virial", "virials"),
}
CANDIDATES: dict[str, tuple[str, ...]] = {
    label: tuple(
        pattern.format(word)
        for word in words
        for pattern in ("{}", "ref_{}", "dft_{}", "qm_{}", "total_{}", "{}_ref", "{}_dft", "{}_qm")
    )
    for label, words in _WORDS.items()
} | {label: (label,) for label in LABELS if label not in _WORDS}
"""Keys that are recognised as a label without being named in the configuration; case does not matter."""

_NOT_LABELS = frozenset({"numbers", "positions"})
ASYMMETRY = 0.01
"""Largest difference of off-diagonal stress components, relative to the largest component."""


class MissingLabel(DataError):
    """A frame lacks a label that the data set promises."""

    def __init__(self, label: str, hint: str) -> None:
        super().__init__(f"no {label}; {hint}")
        self.label = label
        self.hint = hint


@dataclass(frozen=True)
class LabelReader:
    """Reads the labels of frames into the package's units.

    Args:
        required: labels that every frame must have.
        optional: labels that are read where a frame has them.
        keys: key by label where it is not to be guessed, e.g. ``{"energy": "REF_energy"}``.
        units: of the file.
        max_force: eV/Å; a larger force is taken for a mistake.

    Raises:
        ConfigError: an unknown label.
    """

    required: tuple[str, ...] = ("energy", "forces")
    optional: tuple[str, ...] = ()
    keys: Mapping[str, str | None] = field(default_factory=dict)
    units: LabelUnits = field(default_factory=LabelUnits)
    max_force: float = 1000.0

    def __post_init__(self) -> None:
        for label in (*self.required, *self.optional, *self.keys):
            if label not in LABELS:
                raise ConfigError(
                    f"A label must be one of {', '.join(LABELS)}, got {label!r}.{did_you_mean(label, LABELS)}"
                )
        if not self.required:
            raise ConfigError(f"labels must name at least one of {', '.join(LABELS)}.")

    def read(self, atoms: Atoms, where: str, required: tuple[str, ...] | None = None) -> dict[str, Any]:
        """Read the labels of one frame.

        Args:
            atoms: as ASE read it.
            where: "file:frame", for messages.
            required: other labels than usual, for an isolated atom.

        Returns:
            ``{"values": {label: array}, "keys": {label: key}}``.

        Raises:
            MissingLabel: a required label is not there.
            DataError: ambiguous keys, a wrong shape, values that are not finite or absurd.
        """
        required = self.required if required is None else required
        present = raw_values(atoms)
        values: dict[str, np.ndarray] = {}
        keys: dict[str, str] = {}
        for label in dict.fromkeys((*required, *self.optional)):
            key = self._find(label, present, atoms, where)
            if key is not None:
                keys[label] = key
                values[label] = self._convert(label, key, present[key], atoms, where)
            elif label in required:
                raise MissingLabel(label, self._missing_hint(label, present))
        return {"values": values, "keys": keys}

    def _find(self, label: str, present: Mapping[str, Any], atoms: Atoms, where: str) -> str | None:
        """Return the key of a label in a frame, None if there is none."""
        named = self.keys.get(label)
        if named is not None:
            return named if named in present else None
        found = [key for candidate in CANDIDATES[label] for key in present if key.lower() == candidate]
        if len(found) > 1:
            first, *others = [self._convert(label, key, present[key], atoms, where) for key in found]
            if not all(np.allclose(first, other, rtol=1e-6, atol=1e-6) for other in others):
                raise DataError(
                    f"{where} has several keys that could be its {label}, with different values: "
                    f"{', '.join(found)}. Say which one: {label}_key: {found[0]}."
                )
        return found[0] if found else None

    def _missing_hint(self, label: str, present: Mapping[str, Any]) -> str:
        """Say which keys there are and which one was probably meant."""
        named = self.keys.get(label)
        wanted = named if named is not None else label
        guess = did_you_mean(wanted, [key for key in present if key != wanted])
        looked = f"{label}_key is '{named}'" if named is not None else "no usual key was found"
        listing = ", ".join(sorted(present)) or "none"
        advice = f"Set {label}_key to the right one." if label in _WORDS else f"Give the frames the key '{label}'."
        return f"{looked}, the keys there are: {listing}.{guess} {advice}"

    def _convert(self, label: str, key: str, value: Any, atoms: Atoms, where: str) -> np.ndarray:
        """Return a label in the package's units and shape, checked."""
        try:
            array = np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise DataError(f"{where}: the {label} '{key}' must be numbers, got {value!r}.") from error
        if not np.isfinite(array).all():
            raise DataError(f"{where}: the {label} '{key}' is not finite (NaN or inf). Remove or repair the frame.")
        if label == "energy":
            if array.size != 1:
                raise DataError(f"{where}: the energy '{key}' must be one number, got shape {array.shape}.")
            return np.array(array.item() * self.units.to_ev)
        if label == "forces":
            return self._forces(key, array, len(atoms), where)
        if label == "stress":
            return self._stress(key, array, atoms, where)
        return _as_field(label, key, array, len(atoms), where)

    def _forces(self, key: str, array: np.ndarray, num_atoms: int, where: str) -> np.ndarray:
        if array.shape != (num_atoms, 3):
            raise DataError(f"{where}: the forces '{key}' must have shape ({num_atoms}, 3), got {array.shape}.")
        forces = array * (self.units.to_ev / self.units.to_angstrom)
        norms = np.linalg.norm(forces, axis=1)
        if norms.max() > self.max_force:
            raise DataError(
                f"{where}: the force on atom {norms.argmax()} is {norms.max():.4g} eV/Å, above max_force = "
                f"{self.max_force:g}. Check the units, remove the frame, or raise max_force."
            )
        return forces

    def _stress(self, key: str, array: np.ndarray, atoms: Atoms, where: str) -> np.ndarray:
        """Return (3, 3) eV/Å³ from 3×3, nine or six (Voigt) numbers; a virial is −V·stress, in eV."""
        if array.size == 6:
            xx, yy, zz, yz, xz, xy = array.ravel()
            array = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
        elif array.size != 9:
            raise DataError(
                f"{where}: the stress '{key}' must be 3x3 or six Voigt numbers (xx yy zz yz xz xy), "
                f"got shape {array.shape}."
            )
        tensor = array.reshape(3, 3)
        if np.abs(tensor - tensor.T).max() > ASYMMETRY * np.abs(tensor).max() + 1e-6:
            raise DataError(f"{where}: the stress '{key}' must be a symmetric tensor, got {tensor.tolist()}.")
        tensor = (tensor + tensor.T) / 2
        if "virial" not in key.lower():
            return tensor * self.units.to_stress
        volume = abs(np.linalg.det(atoms.cell.array))
        if volume < 1e-6:
            raise DataError(f"{where}: the virial '{key}' needs a cell with a volume, this frame has none.")
        return -tensor * self.units.to_ev / (volume * self.units.to_angstrom**3)


def _as_field(label: str, key: str, array: np.ndarray, num_atoms: int, where: str) -> np.ndarray:
    """Return a label that has no unit as the field table wants it."""
    field = FIELDS[label]
    rows = (num_atoms,) if field.level == "atom" else ()
    if array.shape[: len(rows)] != rows or not field.fits(array.shape[len(rows) :]):
        shape = tuple("any" if size is None else size for size in (*rows, *field.shape))
        raise DataError(
            f"{where}: the {label} '{key}' must have shape ({', '.join(map(str, shape))}), got {array.shape}."
        )
    return array


def raw_values(atoms: Atoms) -> dict[str, Any]:
    """Return everything a frame carries, by key: ``info``, per-atom arrays and the attached results."""
    results = atoms.calc.results if atoms.calc is not None else {}
    arrays = {key: value for key, value in atoms.arrays.items() if key not in _NOT_LABELS}
    return {**atoms.info, **arrays, **results}
