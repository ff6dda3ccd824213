"""Units of labels: what a configuration may name, and the hints that files carry about theirs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from mlip.core.errors import ConfigError, DataError, did_you_mean
from mlip.core.units import BOHR, GPA, HARTREE, KBAR, KCAL_PER_MOL

ENERGY_UNITS = {
    "eV": 1.0,
    "meV": 1e-3,
    "Hartree": HARTREE,
    "Rydberg": HARTREE / 2,
    "kcal/mol": KCAL_PER_MOL,
    "kJ/mol": KCAL_PER_MOL / 4.184,
}
"""Energy units by name, in eV."""

LENGTH_UNITS = {"Angstrom": 1.0, "Bohr": BOHR, "nm": 10.0}
"""Length units by name, in Å."""

STRESS_UNITS = {"eV/A^3": 1.0, "GPa": GPA, "kbar": KBAR}
"""Stress units by name, in eV/Å³."""

_SYNONYMS = {
    **{name.lower(): name for name in (*ENERGY_UNITS, *LENGTH_UNITS, *STRESS_UNITS)},
    **{"ha": "Hartree", "eh": "Hartree", "hartrees": "Hartree", "ry": "Rydberg", "electronvolt": "eV"},
    **{"kcal": "kcal/mol", "kj": "kJ/mol", "kcalmol": "kcal/mol", "kjmol": "kJ/mol"},
    **{"å": "Angstrom", "ang": "Angstrom", "a": "Angstrom", "angstroms": "Angstrom", "a0": "Bohr"},
    **{"nanometer": "nm", "ev/å^3": "eV/A^3", "ev/ang^3": "eV/A^3", "ev/angstrom^3": "eV/A^3"},
    **{"ev/a3": "eV/A^3", "ev/å3": "eV/A^3", "kb": "kbar"},
}
_SYSTEMS = {
    "metal": ("eV", "Angstrom"),
    "real": ("kcal/mol", "Angstrom"),
    "atomic": ("Hartree", "Bohr"),
    "au": ("Hartree", "Bohr"),
}
_HINT_KEY = re.compile(r"^(?:(energy|force|length|position|stress|virial)s?_)?units?$", re.IGNORECASE)
_FORCE = re.compile(r"^(?P<energy>.+)/(?P<length>[^/]+)$")


@dataclass(frozen=True)
class LabelUnits:
    """Units of a file; labels are multiplied once, when they are read.

    Args:
        energy: ``eV``, ``meV``, ``Hartree``, ``Rydberg``, ``kcal/mol`` or ``kJ/mol``; virials are in it, too.
        length: ``Angstrom``, ``Bohr`` or ``nm``, of positions and cell; forces are energy / length.
        stress: ``eV/A^3``, ``GPa`` or ``kbar``.
        stress_sign: 1 for tension positive (ASE), −1 for pressure positive (VASP's raw output).

    Raises:
        ConfigError: an unknown unit or sign.
    """

    energy: str = "eV"
    length: str = "Angstrom"
    stress: str = "eV/A^3"
    stress_sign: int = 1

    def __post_init__(self) -> None:
        for quantity, known in (("energy", ENERGY_UNITS), ("length", LENGTH_UNITS), ("stress", STRESS_UNITS)):
            name = getattr(self, quantity)
            if name not in known:
                raise ConfigError(
                    f"{quantity}_unit must be one of {', '.join(known)}, got {name!r}.{did_you_mean(str(name), known)}"
                )
        if self.stress_sign not in (1, -1):
            raise ConfigError(
                "stress_sign must be 1 (tension positive, as in ASE) or -1 (pressure positive), "
                f"got {self.stress_sign!r}."
            )

    @property
    def to_ev(self) -> float:
        """Factor of energies and virials."""
        return ENERGY_UNITS[self.energy]

    @property
    def to_angstrom(self) -> float:
        """Factor of positions and cell vectors."""
        return LENGTH_UNITS[self.length]

    @property
    def to_stress(self) -> float:
        """Factor of stresses, with the sign."""
        return STRESS_UNITS[self.stress] * self.stress_sign

    def as_dict(self) -> dict[str, str]:
        """Units by field name."""
        return {
            "energy": self.energy,
            "forces": f"{self.energy}/{self.length}",
            "stress": self.stress,
            "positions": self.length,
        }

    def check_hints(self, info: Mapping[str, Any], where: str) -> dict[str, str]:
        """Compare what a frame says about its units (``energy_unit=…``, ``units=…``) with these.

        Returns:
            The recognised hints by quantity.

        Raises:
            DataError: a hint contradicts the configuration or is no known unit.
        """
        hints: dict[str, str] = {}
        for key, value in info.items():
            quantity = _hinted(key)
            if quantity is None or not isinstance(value, str):
                continue
            stated = _read_hint(quantity, value)
            if quantity and not stated:
                raise DataError(f"{where} says {key}={value!r}, which is no known unit. Correct or remove it.")
            for kind, unit in stated:
                hints[kind] = unit
                configured = getattr(self, kind)
                if unit != configured:
                    raise DataError(
                        f"{where} says {key}={value!r}, but the {kind} is read in {configured}. "
                        f"Set {kind}_unit: {unit} if the file is right, or correct the file."
                    )
        return hints


@lru_cache(maxsize=1024)
def _hinted(key: str) -> str | None:
    """Return the quantity whose unit a key names, "" for units of everything, None for another key."""
    match = _HINT_KEY.match(key)
    return None if match is None else (match[1] or "").lower()


@lru_cache(maxsize=1024)
def _read_hint(kind: str, text: str) -> list[tuple[str, str]]:
    """Return the (quantity, unit) pairs that a hint states; words that are no unit say nothing."""
    if kind == "force":
        match = _FORCE.match(text.strip())
        if match is None:
            return []
        return [*_read_hint("energy", match["energy"]), *_read_hint("length", match["length"])]
    found: list[tuple[str, str]] = []
    if kind == "" and text.strip().lower() in _SYSTEMS:
        return list(zip(("energy", "length"), _SYSTEMS[text.strip().lower()], strict=True))
    for word in re.split(r"[,;\s]+", text.strip()):
        unit = _SYNONYMS.get(word.lower())
        if kind == "" and unit is None and _FORCE.match(word):
            found.extend(_read_hint("force", word))
            continue
        for quantity, known in (("energy", ENERGY_UNITS), ("length", LENGTH_UNITS), ("stress", STRESS_UNITS)):
            expected = {"": quantity, "position": "length", "virial": "energy"}.get(kind, kind)
            if unit in known and quantity == expected:
                found.append((quantity, unit))
    return found
