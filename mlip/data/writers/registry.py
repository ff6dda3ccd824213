"""Which writer belongs to a file name."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from mlip.core.errors import ConfigError, did_you_mean
from mlip.data.writers.aselmdb import AseLmdbWriter
from mlip.data.writers.base import Writer
from mlip.data.writers.extxyz import ExtxyzWriter

WRITERS: tuple[type[Writer], ...] = (ExtxyzWriter, AseLmdbWriter)
"""All writers; a new format is one more module and one more name here."""


def writer_for(path: str | PathLike[str]) -> Writer:
    """Return the writer for a file.

    Raises:
        ConfigError: no writer has such a suffix.
    """
    suffix = Path(path).suffix
    known = {name: writer for writer in WRITERS for name in writer.suffixes}
    if suffix not in known:
        raise ConfigError(
            f"'{path}' must end with {', '.join(known)}, which says the format.{did_you_mean(suffix, known)}"
        )
    return known[suffix]()
