"""The header of a model file: JSON in safetensors, read without torch."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from safetensors import SafetensorError, safe_open

from mlip.core.errors import ModelFileError
from mlip.models.names import existing_model

FORMAT_VERSION = 2
"""Raised when the header or the names of the weights change; older versions get an upgrade function."""

KEY = "mlip"
"""Entry of the safetensors header that holds ours."""

_ENTRIES: dict[str, type | tuple[type, ...]] = {
    "config": dict,
    "elements": list,
    "cutoff": (int, float),
    "dtype": str,
    "metadata": dict,
}
"""What every header has, and of which kind."""


def read_header(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the JSON header of a model file without building the model.

    Raises:
        ModelFileError: no such file, truncated, not a model file, or an unknown format version.
    """
    with opened(path, "np") as (_, header):
        return header


@contextmanager
def opened(path: str | os.PathLike[str], framework: Literal["np", "pt"]) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Open a model file, or the name of an imported model, and check its header.

    Args:
        path: file or name.
        framework: of the tensors: numpy or torch.

    Yields:
        The open safetensors file and the header.

    Raises:
        ModelFileError: as `read_header`.
    """
    path = existing_model(path)
    try:
        with safe_open(path, framework=framework) as file:
            text = (file.metadata() or {}).get(KEY)
            yield file, _checked(text, path)
    except (SafetensorError, OSError, ValueError) as error:
        if path.suffix == ".ckpt":
            raise ModelFileError(
                f"'{path}' is a checkpoint to resume a training from; the model is model.safetensors beside it."
            ) from error
        raise ModelFileError(
            f"'{path}' cannot be read as a model file: it is truncated or not a safetensors file ({error})."
        ) from error


def _checked(text: str | None, path: object) -> dict[str, Any]:
    if text is None:
        raise ModelFileError(f"'{path}' is a safetensors file, but not one of mlip: its header has no '{KEY}' entry.")
    try:
        header = json.loads(text)
        version = header["format_version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelFileError(f"The header of '{path}' is damaged ({error}).") from error
    if version != FORMAT_VERSION:
        mend = (
            "It is older than the models of today: train it again."
            if version == 1
            else "Update mlip to read newer files."
        )
        raise ModelFileError(f"'{path}' has format version {version}; this mlip reads version {FORMAT_VERSION}. {mend}")
    absent = [key for key in _ENTRIES if key not in header]
    if absent:
        raise ModelFileError(f"The header of '{path}' lacks {', '.join(absent)}.")
    wrong = [key for key, kind in _ENTRIES.items() if not isinstance(header[key], kind)]
    if wrong or not all(isinstance(symbol, str) for symbol in header["elements"]):
        raise ModelFileError(f"The header of '{path}' is damaged: {', '.join(wrong or ['elements'])} cannot be that.")
    return header
