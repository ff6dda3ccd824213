"""Models by name: where those that were imported are kept, and how a name becomes a file."""

from __future__ import annotations

import os
import re
from pathlib import Path

from mlip.core.errors import ModelFileError, did_you_mean
from mlip.core.files import cache_folder
from mlip.models.foreign.catalogue import PUBLISHED, SEVERAL_LEVELS

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]*(\.[A-Za-z0-9_+-]+)*")
SUFFIX = ".safetensors"


def models_folder() -> Path:
    """Folder of the models that have a name: ``MLIP_MODELS``, else ``models`` in the cache folder.

    Raises:
        ModelFileError: ``MLIP_MODELS`` names the home of a user who does not exist.
    """
    named = os.environ.get("MLIP_MODELS")
    if not named:
        return cache_folder() / "models"
    try:
        return Path(named).expanduser()
    except RuntimeError as error:
        raise ModelFileError(f"MLIP_MODELS is '{named}', and there is no such user. Name a folder.") from error


def model_path(name: str) -> Path:
    """Return the file of a name, there or not.

    Raises:
        ModelFileError: not a name: letters, digits, ``-``, ``_``, ``+`` and single dots between them.
    """
    if not _NAME.fullmatch(name) or name.endswith(SUFFIX):
        raise ModelFileError(f"'{name}' is no name of a model: take letters, digits and dashes, as in 'my-sevennet'.")
    return models_folder() / f"{name}{SUFFIX}"


def find_model(model: str | os.PathLike[str]) -> Path:
    """Return the file of a model that is given by its path or by its name.

    A file that is there comes first; then the models that have been imported.

    Raises:
        ModelFileError: neither; the message says how to import one that is published, or names the nearest.
    """
    path = Path(model)
    text = str(model)
    if path.is_file() or len(path.parts) != 1 or text.endswith(SUFFIX) or not _NAME.fullmatch(text):
        return path
    stored = model_path(text)
    if stored.is_file():
        return stored
    if text in SEVERAL_LEVELS:
        raise ModelFileError(
            f"'{text}' holds several levels of theory: choose one of {', '.join(SEVERAL_LEVELS[text])}."
        )
    if text in PUBLISHED:
        entry = PUBLISHED[text]
        raise ModelFileError(
            f"'{text}' has not been imported yet: pip install '{entry.package}' (or 'mlip-kit[{entry.extra}]'), then "
            f"mlip import {text}."
        )
    here = [file.stem for file in models_folder().glob(f"*{SUFFIX}")]
    raise ModelFileError(
        f"There is no model file '{text}', and no model of that name.{did_you_mean(text, [*PUBLISHED, *here])} "
        "Training writes RUN/model.safetensors; mlip import lists the names."
    )


def existing_model(model: str | os.PathLike[str]) -> Path:
    """Return the file of a model, as `find_model`, that is there.

    Raises:
        ModelFileError: there is no such file.
    """
    path = find_model(model)
    if not path.is_file():
        raise ModelFileError(f"There is no model file '{path}'. Training writes one to RUN/model.safetensors.")
    return path
