"""The files that MD runs leave in their folders, and how they are taken away for a new run."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from mlip.core.errors import SimulationError
from mlip.simulate.export import SUFFIXES
from mlip.simulate.md_checkpoint import previous_checkpoint
from mlip.simulate.selection import SELECTED

CHECKPOINT = "checkpoint.npz"
TRAJECTORY = "trajectory.traj"
THERMO = "thermo.csv"
EXPORTS = tuple(f"trajectory.{suffix}" for suffix in SUFFIXES.values())
SUMMARY = "summary.json"
RESULTS = (SUMMARY, "final.xyz", "final.cif", "final.vasp", "md.png", SELECTED, *EXPORTS)
"""What is written when a run has ended; selected structures before, too."""

ANALYSIS = "analysis"
_ANALYSIS_SUFFIXES = (".json", ".csv", ".png")


def remove_files(paths: Iterable[str | os.PathLike[str] | None]) -> None:
    """Take files away, as far as they are there.

    Raises:
        SimulationError: one cannot be removed.
    """
    for path in paths:
        if path is not None and os.path.lexists(path):
            try:
                os.unlink(path)
            except OSError as error:
                raise SimulationError(f"Cannot replace '{path}': {error.strerror or error}.") from error


def clear_results(folder: Path) -> None:
    """Take away what says something of an earlier run, its analysis included; files of others stay."""
    remove_files(folder / name for name in RESULTS)
    analysis = folder / ANALYSIS
    if analysis.is_dir():
        remove_files(p for p in list(analysis.iterdir()) if p.suffix in _ANALYSIS_SUFFIXES or p.name in EXPORTS)
        _remove_empty(analysis)


def clear_runs(folders: Iterable[Path]) -> None:
    """Take away all of several runs, and their folders if nothing else is in them.

    The checkpoints of all go first: killed in between, a restart finds trajectories without checkpoints, which it
    refuses, and never some of the old runs beside some of the new ones.
    """
    folders = list(folders)
    remove_files(path for folder in folders for path in checkpoints_in(folder))
    remove_files(folder / name for folder in folders for name in (TRAJECTORY, THERMO))
    for folder in folders:
        clear_results(folder)
        _remove_empty(folder)


def checkpoints_in(folder: Path) -> Iterator[Path]:
    """Yield where the checkpoint before the last one and the last one are kept."""
    yield previous_checkpoint(folder / CHECKPOINT)
    yield folder / CHECKPOINT


def has_run(folder: Path) -> bool:
    """Whether a run was begun in a folder."""
    return (folder / TRAJECTORY).is_file() or any(path.is_file() for path in checkpoints_in(folder))


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()
