"""The folder a run writes to: nothing of an earlier run is lost unasked."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlip.core.errors import SimulationError
from mlip.core.files import write_text_atomically


def claim_folder(folder: str | os.PathLike[str], trajectory: str, overwrite: bool, advice: str) -> Path:
    """Make sure that a run may write its trajectory into a folder.

    Args:
        folder: need not exist.
        trajectory: file name that marks an earlier run.
        overwrite: whether an earlier run may be replaced.
        advice: what else the user can do, for the message.

    Returns:
        The path of the folder; it is made when the first file is written, so a run that fails early leaves
        none.

    Raises:
        SimulationError: an earlier trajectory is there, or the folder is a file.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise SimulationError(f"The output folder '{folder}' is a file. Choose another one with --output.")
    if (folder / trajectory).exists() and not overwrite:
        raise SimulationError(f"'{folder / trajectory}' is there already: {advice}")
    return folder


def write_summary(path: str | os.PathLike[str], values: Mapping[str, Any]) -> None:
    """Write a summary as JSON, whole or not at all.

    Raises:
        MlipError: the file cannot be written.
        ValueError: a value is NaN or infinite, which JSON does not have.
    """
    write_text_atomically(path, json.dumps(dict(values), indent=2, ensure_ascii=False, allow_nan=False) + "\n")
