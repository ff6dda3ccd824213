"""Find and check the labels of one frame: which key is the energy, which sign has the stress.

Values are taken as the file has them. In particular forces are the stated results, never those of
``atoms.get_forces()``, which sets those of fixed atoms to zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from ase import Atoms

from mlip.core.errors import ConfigError, DataError, did_you_mean
from mlip.core.fields import FIELDS, INPUTS, LABELS
from mlip.data.formats.frame import Frame
from mlip.data.label_units import LabelUnits

READABLE: tuple[str, ...] = (*LABELS, *INPUTS)
"""Fields that can be read from a frame."""

_WORDS = {
    "energy": ("energy",),
    "forces": ("forces", "force"),
    "stress": ("stress", "virial", "virials"),
    "magmoms": ("magmoms",),
}
CANDIDATES: dict[str, tuple[str, ...]] = {
    label: tuple(
        pattern.format(word)
        for word in words
        for pattern in ("{}", "ref_{}", "dft_{}", "qm_{}", "total_{}", "{}_ref", "{}_dft", "{}_qm")
    )
    for label, words in _WORDS.items()
} | {label: (label,) for label in READABLE if label not in _WORDS}
"""Keys that are recognised as a label without being named in the configuration; case does not matter."""
CANDIDATES["charge"] = ("charge", "total_charge")
CANDIDATES["spin"] = ("spin", "multiplicity", "spin_multiplicity")

_KEYED = ("energy", "forces", "stress")
_NOT_LABELS = frozenset({"numbers", "positions"})
ASYMMETRY = 0.01
"""Largest difference of off-diagonal stress components, relative to the largest component."""


def merge_keys(known: dict[str, tuple[str, str]], found: Mapping[str, tuple[str, str]]) -> None:
    """Add the keys that labels were read from, ``{label: (key, where)}``, to those known before.

    Raises:
        DataError: a label has another key: the two may be different levels of theory.
    """
    for label, (key, where) in found.items():
        first, source = known.setdefault(label, (key, where))
        if first != key:
            advice = f"Say which one to use ({label}_key: …) or give the frames the same key."
            if label not in _KEYED:
                advice = "Give the frames the same key."
            raise DataError(f"The {label} is '{first}' in {source}, but '{key}' in {where}. {advice}")


def stress_tensor(array: np.ndarray, key: str, where: str) -> np.ndarray:
    """Return a symmetric (3, 3) tensor from 3x3, nine or six (Voigt: xx yy zz yz xz xy) numbers.

    Raises:
        DataError: another number of components, or a tensor that is not symmetric.
    """
    if array.size == 6:
        xx, yy, zz, yz, xz, xy = array.ravel()
        array = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    elif array.size != 9:
        raise DataError(
            f"{where}: the stress '{key}' must be 3x3 or six Voigt numbers (xx yy zz yz xz xy), got shape "
            f"{array.shape}."
        )
    tensor = array.reshape(3, 3)
    if np.abs(tensor - tensor.T).max() > ASYMMETRY * np.abs(tensor).max() + 1e-6:
        raise DataError(f"{where}: the stress '{key}' must be a symmetric tensor, got {tensor.tolist()}.")
    return (tensor + tensor.T) / 2


class MissingLabel(DataError):
    """A frame lacks a label that the data set promises.

    Attributes:
        label: that is missing.
        hint: which keys there are, and what to do.
        where: "file:frame".
    """

    def __init__(self, label: str, hint: str, where: str) -> None:
        super().__init__(f"{where}: no {label}; {hint}")
        self.label = label
        self.hint = hint
        self.where = where

    def __reduce__(self) -> tuple[type[MissingLabel], tuple[str, str, str]]:
        # Exceptions pickle by their one message, which is not what this one is made from.
        return type(self), (self.label, self.hint, self.where)


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
        ConfigError: an unknown label, or a key for one that is not read.
    """

    required: tuple[str, ...] = ("energy", "forces")
    optional: tuple[str, ...] = ()
    keys: Mapping[str, str | None] = field(default_factory=dict)
    units: LabelUnits = field(default_factory=LabelUnits)
    max_force: float = 1000.0

    def __post_init__(self) -> None:
        for label in (*self.required, *self.optional, *self.keys):
            if label not in READABLE:
                raise ConfigError(
                    f"A label must be one of {', '.join(READABLE)}, got {label!r}.{did_you_mean(str(label), READABLE)}"
                )
        if not self.required:
            raise ConfigError(f"labels must name at least one of {', '.join(READABLE)}.")
        for label, key in self.keys.items():
            if key is not None and label not in (*self.required, *self.optional):
                raise ConfigError(
                    f"{label}_key is '{key}', but the {label} is in neither labels nor optional_labels. Add it there."
                )

    def read(self, frame: Frame | Atoms, where: str, required: tuple[str, ...] | None = None) -> dict[str, Any]:
        """Read the labels of one frame.

        Args:
            frame: as the file has it, or as ASE read it.
            where: "file:frame", for messages.
            required: other labels than usual, for an isolated atom; the usual ones are then optional.

        Returns:
            ``{"values": {label: array}, "keys": {label: key}}``.

        Raises:
            MissingLabel: a required label is not there.
            DataError: ambiguous keys, a wrong shape, values that are not finite or absurd.
        """
        required = self.required if required is None else required
        present = raw_values(frame)
        values: dict[str, np.ndarray] = {}
        keys: dict[str, str] = {}
        for label in dict.fromkeys((*required, *self.required, *self.optional)):
            key = self._find(label, present, frame, where)
            if key is not None:
                keys[label] = key
                values[label] = self._convert(label, key, present[key], frame, where)
            elif label in required:
                raise MissingLabel(label, self._missing_hint(label, present), where)
        return {"values": values, "keys": keys}

    def check_found(self, found: set[str], unit: str) -> None:
        """Refuse a key that was named for an optional label and that nothing has, when all of the data has been read.

        Args:
            found: labels that something has.
            unit: what the data consist of, for the message: frame, row.

        Raises:
            DataError: names the key.
        """
        for label in self.optional:
            if self.keys.get(label) is not None and label not in found:
                raise DataError(
                    f"No {unit} has the {label} '{self.keys[label]}' that {label}_key names. Correct the key, or leave "
                    f"{label} out of optional_labels."
                )

    def _find(self, label: str, present: Mapping[str, Any], frame: Frame | Atoms, where: str) -> str | None:
        """Return the key of a label in a frame, None if there is none."""
        named = self.keys.get(label)
        if named is not None:
            return named if named in present else None
        found = _usual_keys(label, tuple(present))
        if len(found) > 1:
            first, *others = [self._convert(label, key, present[key], frame, where) for key in found]
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
        advice = f"Set {label}_key to the right one." if label in _KEYED else f"Give the frames the key '{label}'."
        return f"{looked}, the keys there are: {listing}.{guess} {advice}"

    def _convert(self, label: str, key: str, value: Any, frame: Frame | Atoms, where: str) -> np.ndarray:
        """Return a label in the package's units and shape, checked."""
        if FIELDS[label].kind != "float":
            return _as_input(label, key, value, len(frame), where)
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
            return self._forces(key, array, len(frame), where)
        if label == "stress":
            return self._stress(key, array, frame, where)
        return _as_field(label, key, array, len(frame), where)

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

    def _stress(self, key: str, array: np.ndarray, frame: Frame | Atoms, where: str) -> np.ndarray:
        """Return (3, 3) eV/Å³ from 3×3, nine or six (Voigt) numbers; a virial is −V·stress, in eV."""
        tensor = stress_tensor(array, key, where)
        if "virial" not in key.lower():
            return tensor * self.units.to_stress
        volume = abs(np.linalg.det(np.asarray(frame.cell)))
        if volume < 1e-6:
            raise DataError(f"{where}: the virial '{key}' needs a cell with a volume, this frame has none.")
        return -tensor * self.units.to_ev / (volume * self.units.to_angstrom**3)


def _as_field(label: str, key: str, array: np.ndarray, num_atoms: int, where: str) -> np.ndarray:
    """Return a label that has no unit in the shape that the field table wants."""
    field = FIELDS[label]
    rows = (num_atoms,) if field.level == "atom" else ()
    if array.shape[: len(rows)] != rows or not field.fits(array.shape[len(rows) :]):
        shape = tuple("any" if size is None else size for size in (*rows, *field.shape))
        raise DataError(
            f"{where}: the {label} '{key}' must have shape ({', '.join(map(str, shape))}), got {array.shape}."
        )
    return array


def _as_input(label: str, key: str, value: Any, num_atoms: int, where: str) -> np.ndarray:
    """Return whole numbers or bools in the kind and shape that the field table wants."""
    array = np.asarray(value)
    wanted, names = (np.bool_, "T and F") if FIELDS[label].kind == "bool" else (np.int64, "whole numbers")
    # A bool is no charge, and 2 no yes; 1.0 is a whole number.
    known = array.dtype.kind in ("bi" if wanted is np.bool_ else "if") and (np.abs(array) < 2**53).all()
    if not known or not (array == array.astype(wanted)).all():
        raise DataError(f"{where}: the {label} '{key}' must be {names}, got {_shortened(value)}.")
    found = _as_field(label, key, array.astype(wanted), num_atoms, where)
    if label == "spin" and found < 1:
        raise DataError(f"{where}: the spin '{key}' must be the multiplicity 2S + 1, at least 1, got {found}.")
    return found


def _shortened(value: Any) -> str:
    text = repr(value.tolist() if isinstance(value, np.ndarray) else value)
    return text if len(text) <= 60 else f"{text[:60]}…"


@lru_cache(maxsize=1024)
def _usual_keys(label: str, present: tuple[str, ...]) -> tuple[str, ...]:
    """Return the keys of a frame that are usual names of a label, the usual order first."""
    return tuple(key for candidate in CANDIDATES[label] for key in present if key.lower() == candidate)


def raw_values(frame: Frame | Atoms) -> dict[str, Any]:
    """Return everything a frame carries, by key: ``info``, per-atom arrays, the results, ``fixed``."""
    arrays = {key: value for key, value in frame.arrays.items() if key not in _NOT_LABELS}
    if isinstance(frame, Atoms):
        return {**frame.info, **arrays, **(frame.calc.results if frame.calc is not None else {})}
    fixed = {} if frame.fixed is None else {"fixed": frame.fixed}
    return {**frame.info, **arrays, **frame.results, **fixed}
