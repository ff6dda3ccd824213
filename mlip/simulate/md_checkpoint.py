"""The whole state of an MD run in one file, from which it goes on bit by bit as if it had not been stopped."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mlip.core.errors import SimulationError
from mlip.core.files import write_atomically
from mlip.simulate.trajectory import FileMark

VERSION = 2
_STATE = "state:"
_SELECTION = "selection:"


@dataclass(frozen=True)
class Checkpoint:
    """What a run needs to go on.

    Attributes:
        step: done so far.
        origin: step and time in fs from which times are counted, so that they round alike.
        recorded: whether the step is in log and trajectory.
        ensemble: its name.
        settings: of the ensemble and the run, to note what was changed.
        rng: state of the random generator of the noise.
        trajectory: how far the trajectory went; None without one.
        freedom: degrees of freedom that carry heat.
        since: step after which all was computed with these settings; -1 from the start.
        ramp: step and temperature in K at which the ramp of the thermostat began, if there is one.
        seed: of the random numbers.
        traits: what a restart must find as it was, see :mod:`mlip.simulate.md_traits`.
        potential: eV, so that another model is found out; None if it is not known.
        notes: that a restart repeats.
        numbers: (atoms,).
        pbc: (3,).
        positions: (atoms, 3) Å.
        momenta: (atoms, 3) in ASE's units.
        cell: (3, 3) Å.
        state: variables of thermostat and barostat.
        selection: structures that were selected for labelling so far, see :mod:`mlip.simulate.selection`.
    """

    step: int
    origin: tuple[int, float]
    recorded: bool
    ensemble: str
    settings: Mapping[str, Any]
    rng: Mapping[str, Any]
    trajectory: FileMark | None
    freedom: int
    since: int
    ramp: tuple[int, float]
    seed: int
    traits: Mapping[str, Any]
    potential: float | None
    notes: tuple[str, ...]
    numbers: np.ndarray
    pbc: np.ndarray
    positions: np.ndarray
    momenta: np.ndarray
    cell: np.ndarray
    state: Mapping[str, np.ndarray] = field(default_factory=dict)
    selection: Mapping[str, np.ndarray] = field(default_factory=dict)


_ARRAYS = ("numbers", "pbc", "positions", "momenta", "cell")
_TEXT = (
    "step", "origin", "recorded", "ensemble", "settings", "rng", "freedom", "since", "ramp", "seed", "traits",
    "potential", "notes",
)  # fmt: skip


def write_checkpoint(path: str | os.PathLike[str], checkpoint: Checkpoint, keep: bool = False) -> None:
    """Write a checkpoint as ``.npz``; a crash leaves the one before.

    Args:
        path: the file.
        checkpoint: what to write.
        keep: move the one that is there to ``previous_checkpoint(path)`` first.

    Raises:
        MlipError: the file cannot be written; the one before is kept.
    """
    path = Path(path)
    text = {name: getattr(checkpoint, name) for name in _TEXT} | {"version": VERSION}
    text["trajectory"] = None if checkpoint.trajectory is None else asdict(checkpoint.trajectory)
    arrays = {name: getattr(checkpoint, name) for name in _ARRAYS}
    arrays |= {_STATE + name: value for name, value in checkpoint.state.items()}
    arrays |= {_SELECTION + name: value for name, value in checkpoint.selection.items()}
    arrays["json"] = np.array(json.dumps(text))

    def write(part: Path) -> None:
        with part.open("wb") as handle:
            np.savez(handle, **arrays)
            handle.flush()
            os.fsync(handle.fileno())

    if keep and path.is_file():
        before = path.read_bytes()
        write_atomically(previous_checkpoint(path), lambda part: part.write_bytes(before) and None)
    write_atomically(path, write)


def previous_checkpoint(path: str | os.PathLike[str]) -> Path:
    """Return where the checkpoint before the last one is kept."""
    path = Path(path)
    return path.with_name(f"{path.stem}_before{path.suffix}")


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint; nothing in it is executed.

    Raises:
        SimulationError: the file is damaged, no checkpoint, or of another version.
    """
    try:
        with open(path, "rb") as handle, np.load(handle, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        text = json.loads(str(arrays.pop("json")))
        if text["version"] != VERSION:
            raise SimulationError(
                f"The checkpoint '{path}' has version {text['version']}, this program reads {VERSION}: continue "
                "with the version that wrote it."
            )
        mark = text["trajectory"]
        return Checkpoint(
            **{name: text[name] for name in _TEXT if name not in ("origin", "ramp", "notes")},
            origin=(int(text["origin"][0]), float(text["origin"][1])),
            ramp=(int(text["ramp"][0]), float(text["ramp"][1])),
            notes=tuple(text["notes"]),
            trajectory=None if mark is None else FileMark(**mark),
            **{name: arrays[name] for name in _ARRAYS},
            state=_part(arrays, _STATE),
            selection=_part(arrays, _SELECTION),
        )
    except (OSError, ValueError, LookupError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise SimulationError(
            f"'{path}' is damaged or no checkpoint of an MD run ({error}). Move it away to continue from the last "
            "frame of the trajectory instead."
        ) from error


def _part(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
