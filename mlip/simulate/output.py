"""The folder a run writes to: nothing of an earlier run is lost unasked."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlip.core.errors import SimulationError
from mlip.core.files import write_text_atomically
from mlip.simulate.result_files import command_of, present, threatened


def claim_folder(
    folder: str | os.PathLike[str], marker: str, overwrite: bool, advice: str, command: str | None = None
) -> Path:
    """Make sure that a run may write its results into a folder.

    Args:
        folder: need not exist.
        marker: file name that marks an earlier run.
        overwrite: whether an earlier run of the same command may be replaced.
        advice: what else the user can do, for the message.
        command: whose results they are, see :data:`mlip.simulate.result_files.RESULTS`; None for that which alone
            writes the marker.

    Returns:
        The path of the folder; it is made when the first file is written, so a run that fails early leaves
        none.

    Raises:
        SimulationError: a file that would be written is there, another command's whatever ``overwrite`` says; or the
            folder is a file.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise SimulationError(f"The output folder '{folder}' is a file. Choose another one with --output.")
    command = command_of(marker) if command is None else command
    other = threatened(folder, command)
    if other is not None:
        raise SimulationError(
            f"'{folder}' holds results of mlip {other[0]}, whose {other[1]} would be replaced: choose another folder "
            "with --output."
        )
    there = [name for name in (marker, *present(folder, command)) if (folder / name).exists()]
    if there and not overwrite:
        raise SimulationError(f"'{folder / there[0]}' is there already: {advice}")
    return folder


def write_summary(path: str | os.PathLike[str], values: Mapping[str, Any]) -> None:
    """Write a summary as JSON, whole or not at all.

    Raises:
        MlipError: the file cannot be written.
        ValueError: a value is NaN or infinite, which JSON does not have.
    """
    write_text_atomically(path, json.dumps(dict(values), indent=2, ensure_ascii=False, allow_nan=False) + "\n")
