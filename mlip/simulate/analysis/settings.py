"""Where in an MD run its settings changed last: averages across that mean nothing."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from ase import Atoms

from mlip.core.errors import SimulationError
from mlip.simulate.md_checkpoint import read_checkpoint
from mlip.simulate.md_folder import CHECKPOINT, TRAJECTORY


def last_change(path: Path, frames: list[Atoms], notes: list[str]) -> int:
    """Return the step after which all was computed with the settings that the run ended with.

    The checkpoint of the folder knows it; frames know changes of the ensemble and the time step.

    Args:
        path: folder of a run, or its trajectory.
        frames: of the trajectory.
        notes: gets one if the checkpoint cannot be read.

    Returns:
        The step, or -1 if the settings never changed.
    """
    since = -1
    for before, now in pairwise(frames):
        if any(before.info.get(name) != now.info.get(name) for name in ("ensemble", "timestep_fs")):
            since = int(before.info.get("step", -1))
    folder = path if path.is_dir() else path.parent if path.name == TRAJECTORY else None
    if folder is not None and (folder / CHECKPOINT).is_file():
        try:
            since = max(since, read_checkpoint(folder / CHECKPOINT).since)
        except SimulationError as error:
            notes.append(f"Whether the settings of the run were changed is not known: {error}")
    return since


def frames_since(since: int, frames: list[Atoms], skip: float, notes: list[str]) -> list[Atoms]:
    """Return the frames after a change of the settings.

    Args:
        since: step of the change, -1 for none.
        frames: of the run.
        skip: fs at the start that are left out anyhow.
        notes: gets one if more than that is left out.

    Raises:
        SimulationError: fewer than two frames are left.
    """
    kept = [frame for frame in frames if frame.info.get("step", since + 1) > since]
    left_out = len(frames) - len(kept)
    if not left_out:
        return frames
    if len(kept) < 2:
        raise SimulationError(
            f"The settings of the run changed at step {since} and there are {len(kept)} frame(s) since, while an "
            "analysis needs two or more: continue the run."
        )
    time = frames[left_out - 1].info.get("time_fs", 0.0)
    if time >= frames[0].info.get("time_fs", 0.0) + skip:
        notes.append(
            f"The settings of the run changed at step {since}: its first {time:g} fs are left out, here and in the "
            "averages."
        )
    return kept
