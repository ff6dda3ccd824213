"""Structures to label out of those that are there already: a trajectory, or the selections of several runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from mlip.core.errors import SimulationError, StructureError
from mlip.simulate.contacts import closest_contact
from mlip.simulate.selection import (
    FORCES_STD,
    SELECTED,
    Candidate,
    Selection,
    SelectOptions,
    require_committee,
    write_selected,
)
from mlip.simulate.structures import read_structures


def select_frames(
    frames: Iterable[Atoms],
    options: SelectOptions,
    calculator: Calculator | None = None,
    names: Sequence[str] | None = None,
    refused: Callable[[str], None] | None = None,
    runs: Sequence[str] | None = None,
) -> list[Candidate]:
    """Select from structures that are there already, such as those of a trajectory.

    All that are within the bounds are remembered, so that none is missed that could be chosen.

    Args:
        frames: ``info`` may have ``step``, ``time_fs`` and ``replica``; frames without a time are only told apart by
            their structure. Those of an MD run with a committee have spreads (``forces_std``), those of an earlier
            selection ``uncertainty`` and ``uncertain_atom``.
        options: what to keep.
        calculator: of a committee, which computes the spreads anew; None takes those of the frames.
        names: of the frames, for messages; None numbers them.
        refused: is told what is wrong with a frame that cannot be used, which is left out; None raises an error.
        runs: what each frame comes from: those of different runs are never close in time. None: of one run, or as
            many as there are replicas.

    Returns:
        The most uncertain one first.

    Raises:
        SimulationError: no committee, or a frame without spreads and no calculator.
        StructureError: the calculator refuses a frame, and nobody is to be told.
    """
    if calculator is not None:
        require_committee(calculator)
    selection = Selection(options, bounded=False)
    for place, frame in enumerate(frames):
        # Before the calculator is asked, which may refuse it.
        if not np.isfinite(frame.positions).all() or closest_contact(frame, options.closest) is not None:
            continue
        name = f"Frame {place}" if names is None else f"'{names[place]}'"
        try:
            uncertainty, atom = _uncertainty(frame, calculator, name)
        except StructureError as error:
            message = f"{name}: {error}"
            if refused is None:
                raise StructureError(message) from error
            refused(message)
            continue
        if 0 <= atom < len(frame):
            info = frame.info
            time = float(info.get("time_fs", math.nan))
            replica = int(info["replica"]) if "replica" in info else None
            run = "" if runs is None else runs[place]
            selection.consider(frame, uncertainty, atom, int(info.get("step", place)), time, replica, run)
    return selection.ranked()


def take_up_selection(selection: Selection, last: int) -> None:
    """Remember what an earlier part of a run has selected and written, where no checkpoint knows it.

    Args:
        selection: of the run that goes on, with the file.
        last: step of the run it goes on from; what was selected after it is left out.

    Raises:
        MlipError: the file cannot be read.
    """
    if selection.path is None or not Path(selection.path).is_file():
        return
    for frame in read_structures(Path(selection.path)):
        info = frame.info
        step = int(info.get("step", 0))
        if step <= last:
            uncertainty, atom = _uncertainty(frame, None, f"A structure in '{selection.path}'")
            time = float(info.get("time_fs", math.nan))
            selection.consider(frame, uncertainty, atom, step, time, selection.replica)


def merge_selections(folder: Path, sources: Sequence[Path], options: SelectOptions) -> int:
    """Select from what several runs have selected, into the folder above them; returns the number of structures.

    Raises:
        MlipError: a file cannot be read or written.
    """
    found = [frame for path in sources if path.is_file() for frame in read_structures(path)]
    chosen = select_frames(found, options)
    write_selected(folder / SELECTED, chosen)
    return len(chosen)


def _uncertainty(frame: Atoms, calculator: Calculator | None, name: str) -> tuple[float, int]:
    """Return the uncertainty of a frame and its most uncertain atom."""
    info = frame.info
    if calculator is not None:
        frame = frame.copy()
        frame.calc = calculator
        spread = np.asarray(calculator.get_property(FORCES_STD, frame))
    elif "uncertainty" in info and "uncertain_atom" in info:
        return float(info["uncertainty"]), int(info["uncertain_atom"])
    else:
        spread = np.asarray(info.get(FORCES_STD, frame.arrays.get(FORCES_STD, ())))
        if len(spread) != len(frame):
            raise SimulationError(
                f"{name} has no spreads of a committee ({FORCES_STD}): name the models that compute them."
            )
    atom = int(np.argmax(spread))
    return float(spread[atom]), atom
