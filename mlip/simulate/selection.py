"""Which structures of a simulation to label: those that a committee disagrees about most, no two of one event."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.constraints import FixAtoms

from mlip.core.errors import SimulationError
from mlip.core.fields import SPREADS
from mlip.data.neighbours import neighbour_list
from mlip.data.sample import Sample
from mlip.data.writers.extxyz import ExtxyzWriter
from mlip.simulate.contacts import closest_contact
from mlip.simulate.ensembles import require_positive

SELECTED = "selected.extxyz"
"""Name of the file in the folder of a run."""

SURROUNDINGS = 5.0
"""Å around the most uncertain atom that tell one event from another."""

NEAREST = 8
"""Atoms of every element that are looked at within it."""

RESERVE = 5
"""Structures that a run remembers, for each that is wanted."""

FORCES_STD = SPREADS["forces"]
"""Name of the spreads of forces among the results of a calculator."""


@dataclass(frozen=True)
class SelectOptions:
    """What is worth labelling.

    The uncertainty of a structure is the largest spread of the force among its atoms,
    ``max_i sqrt((1/k) Σ_m |F_im − F̄_i|²)`` in eV/Å with members m: one atom in an unknown place is enough, however many
    others are known, and forces are what is fitted.

    Attributes:
        number: structures to keep, at most.
        spacing: fs that two structures of one run are apart at least.
        distance: Å; two structures are of one event if the most uncertain atoms are of one element and none of their
            distances to the nearest atoms differs by more, see `surroundings`. 0 takes them all.
        lowest, highest: eV/Å; structures of a smaller or larger uncertainty are not taken.
        closest: nor those with atoms closer than this part of the sum of their covalent radii: what explodes is no use.

    Raises:
        SimulationError: one of them is out of its range.
    """

    number: int = 20
    spacing: float = 50.0
    distance: float = 0.1
    lowest: float = 0.0
    highest: float = 10.0
    closest: float = 0.65

    def __post_init__(self) -> None:
        require_positive(number=self.number, highest=self.highest, closest=self.closest)
        for name, value in (("spacing", self.spacing), ("distance", self.distance), ("lowest", self.lowest)):
            if not (math.isfinite(value) and value >= 0):
                raise SimulationError(f"The {name} of a selection must be zero or positive, got {value:g}.")
        if self.lowest >= self.highest:
            raise SimulationError(
                f"A selection needs a lowest uncertainty below the highest, got {self.lowest:g} and {self.highest:g} "
                "eV/Å."
            )


@dataclass(frozen=True)
class Candidate:
    """A structure that may be chosen.

    Attributes:
        atoms: numbers, positions, cell, constraints, charge and spin; no velocities, no results.
        uncertainty: eV/Å.
        atom: the most uncertain one.
        step: of the run, or the place in the file.
        time: fs, NaN if it is not known.
        replica: number of the run among several, None if there is one.
        run: name of what the structure comes from, where there are several.
    """

    atoms: Atoms
    uncertainty: float
    atom: int
    step: int
    time: float
    replica: int | None
    run: str = ""

    @cached_property
    def surroundings(self) -> np.ndarray:
        """Of the most uncertain atom, see :func:`surroundings`."""
        return surroundings(self.atoms, self.atom)

    def excludes(self, other: Candidate, options: SelectOptions) -> bool:
        """Whether the two are too close in time, or of one event."""
        if (self.run, self.replica) == (other.run, other.replica) and abs(self.time - other.time) < options.spacing:
            return True
        if options.distance == 0 or self.atoms.numbers[self.atom] != other.atoms.numbers[other.atom]:
            return False
        if set(self.atoms.numbers) != set(other.atoms.numbers):
            return False
        return float(np.abs(self.surroundings - other.surroundings).max()) <= options.distance

    def sample(self) -> Sample:
        """Return what is written: the structure, and why it was taken; nothing that looks like a label."""
        info: dict[str, Any] = {"uncertainty": self.uncertainty, "uncertain_atom": self.atom, "step": self.step}
        info |= {} if math.isnan(self.time) else {"time_fs": self.time}
        info |= {} if self.replica is None else {"replica": self.replica}
        given = {name: np.array(int(self.atoms.info[name])) for name in ("charge", "spin") if name in self.atoms.info}
        fixed = np.zeros(len(self.atoms), dtype=bool)
        for constraint in self.atoms.constraints:
            if isinstance(constraint, FixAtoms):
                fixed[constraint.index] = True
        return Sample(self.atoms, given | ({"fixed": fixed} if fixed.any() else {}), info)


class Selection:
    """The most uncertain structures of a stream, no two of them close in time or of one event.

    Out of every half of ``spacing`` the most uncertain structure is remembered, `RESERVE` times as many as are wanted
    at most: then the least uncertain one is forgotten. Chosen are, from the most uncertain one downwards, those that
    none chosen before excludes. So the most uncertain of all that came is among them always, and a slow rise of the
    uncertainty gives many, not its end alone.

    Args:
        options: what to keep.
        path: to write to; None for nowhere.
        replica: number of the run among several.
        bounded: whether some are forgotten; if not, every structure that came may be chosen.

    Attributes:
        pool: those that are remembered.
    """

    def __init__(
        self,
        options: SelectOptions,
        path: str | os.PathLike[str] | None = None,
        replica: int | None = None,
        bounded: bool = True,
    ) -> None:
        self.options, self.path, self.replica = options, path, replica
        self.room = RESERVE * options.number if bounded else math.inf
        self.pool: list[Candidate] = []

    def look(self, atoms: Atoms, step: int, time: float) -> None:
        """Consider a structure of MD with the calculator of a committee, after the guards of the run."""
        spread = np.asarray(atoms.calc.get_property(FORCES_STD, atoms))
        atom = int(np.argmax(spread))
        self.consider(atoms, float(spread[atom]), atom, step, time, self.replica)

    def consider(
        self,
        atoms: Atoms,
        uncertainty: float,
        atom: int,
        step: int,
        time: float,
        replica: int | None = None,
        run: str = "",
    ) -> None:
        """Remember a structure or not.

        Args:
            atoms: the structure; copied if it is remembered.
            uncertainty: eV/Å.
            atom: the most uncertain one.
            step: or place in a file.
            time: fs; NaN if it is not known.
            replica, run: see `Candidate`.
        """
        # NaN is not within the bounds.
        if not self.options.lowest <= uncertainty <= self.options.highest:
            return
        rival = self._rival(time, replica, run)
        if rival is None and len(self.pool) >= self.room:
            rival = min(self.pool, key=lambda one: one.uncertainty)
        if rival is not None and uncertainty <= rival.uncertainty:
            return
        if closest_contact(atoms, self.options.closest) is not None:
            return
        if rival is not None:
            self.pool = [one for one in self.pool if one is not rival]
        self.pool.append(Candidate(_bare(atoms), uncertainty, atom, step, time, replica, run))

    def _rival(self, time: float, replica: int | None, run: str) -> Candidate | None:
        """Return what is remembered of the same half of the spacing."""
        window = self.options.spacing / 2
        if window == 0 or math.isnan(time):
            return None
        same = (one for one in self.pool if (one.replica, one.run) == (replica, run))
        return next((one for one in same if one.time // window == time // window), None)

    def ranked(self) -> list[Candidate]:
        """Return what is chosen, the most uncertain one first."""
        chosen: list[Candidate] = []
        for one in sorted(self.pool, key=lambda one: -one.uncertainty):
            if len(chosen) == self.options.number:
                break
            if not any(one.excludes(other, self.options) for other in chosen):
                chosen.append(one)
        return chosen

    def write(self) -> None:
        """Write what is chosen, see `write_selected`."""
        if self.path is not None:
            write_selected(self.path, self.ranked())

    def state(self) -> dict[str, np.ndarray]:
        """Return what `restore` needs to go on as if nothing had happened; all structures of a run have its atoms."""
        return {
            "positions": np.array([one.atoms.positions for one in self.pool]),
            "cells": np.array([one.atoms.cell.array for one in self.pool]),
            "uncertainties": np.array([one.uncertainty for one in self.pool]),
            "atoms": np.array([one.atom for one in self.pool], dtype=np.int64),
            "steps": np.array([one.step for one in self.pool], dtype=np.int64),
            "times": np.array([one.time for one in self.pool]),
        }

    def restore(self, state: Mapping[str, np.ndarray], like: Atoms) -> None:
        """Take up what `state` returned.

        Args:
            state: empty for a run that had no selection.
            like: of the run: numbers, periodic axes, constraints, charge and spin.
        """
        self.pool = []
        for k in range(len(state.get("steps", ()))):
            atoms, atom = _bare(like), int(state["atoms"][k])
            atoms.positions[:], atoms.cell[:] = state["positions"][k], state["cells"][k]
            uncertainty, step, time = float(state["uncertainties"][k]), int(state["steps"][k]), float(state["times"][k])
            self.pool.append(Candidate(atoms, uncertainty, atom, step, time, self.replica))


def begin_selection(
    options: SelectOptions | None,
    calculator: Calculator,
    path: str | os.PathLike[str] | None,
    replica: int | None,
) -> Selection | None:
    """Return an empty selection for a run; None if none is wanted.

    Raises:
        SimulationError: the calculator is not that of a committee.
    """
    if options is None:
        return None
    require_committee(calculator)
    return Selection(options, path, replica)


def write_selected(path: str | os.PathLike[str], chosen: Sequence[Candidate]) -> None:
    """Write structures as extended XYZ, whole or not at all; without any there is no file.

    Raises:
        MlipError: the file cannot be written.
    """
    if chosen:
        ExtxyzWriter().write((one.sample() for one in chosen), Path(path))
    else:
        Path(path).unlink(missing_ok=True)


def surroundings(atoms: Atoms, atom: int) -> np.ndarray:
    """Return the distances of an atom to the nearest ones of every element, in ascending order.

    They do not change when the structure is moved, turned or mirrored, or like atoms are exchanged, and they are
    continuous: atoms that leave are at the edge.

    Returns:
        (elements, `NEAREST`) Å, elements by atomic number; `SURROUNDINGS` where there are fewer atoms within it.
    """
    senders, receivers, shifts = neighbour_list(atoms.positions, atoms.cell.array, atoms.pbc, SURROUNDINGS)
    mine = receivers == atom
    vectors = atoms.positions[senders[mine]] - atoms.positions[atom] + shifts[mine] @ atoms.cell.array
    distances, numbers = np.linalg.norm(vectors, axis=1), atoms.numbers[senders[mine]]
    elements = np.unique(atoms.numbers)
    found = np.full((len(elements), NEAREST), SURROUNDINGS)
    for row, element in zip(found, elements, strict=True):
        nearest = np.sort(distances[numbers == element])[:NEAREST]
        row[: len(nearest)] = nearest
    return found


def require_committee(calculator: Calculator) -> None:
    """Refuse a calculator that gives no spreads of forces.

    Raises:
        SimulationError: what to give instead.
    """
    if FORCES_STD not in getattr(calculator, "implemented_properties", ()):
        raise SimulationError(
            "A selection by uncertainty needs a committee: give several models (trained with different seeds), or a "
            "model with several readouts."
        )


def _bare(atoms: Atoms) -> Atoms:
    """Copy a structure without velocities, results and what else came with it."""
    bare = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    bare.set_constraint([constraint.copy() for constraint in atoms.constraints])
    bare.info = {name: atoms.info[name] for name in ("charge", "spin") if name in atoms.info}
    return bare
