"""Published data sets: what they are, where their files are, and how to check these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlip.core.errors import ConfigError, did_you_mean


@dataclass(frozen=True)
class RemoteFile:
    """One file of a source.

    Attributes:
        name: of the file on disk.
        url: where it is.
        size: bytes, None where nobody has published them.
        about: the size in words.
        sha256, md5: checksums as published, None where there is none.
        default: whether it is fetched when no file is named.
        note: what is in it.
    """

    name: str
    url: str
    size: int | None = None
    about: str = "size unknown"
    sha256: str | None = None
    md5: str | None = None
    default: bool = True
    note: str = ""


@dataclass(frozen=True)
class Source:
    """A published data set.

    Attributes:
        name: on the command line.
        title: what it is, in a line.
        licence: of the data.
        citation: of the data.
        page: for people.
        files: that can be fetched; none where an account or a browser is needed.
        manual: steps by hand.
        afterwards: what to do with the files.
    """

    name: str
    title: str
    licence: str
    citation: str
    page: str
    files: tuple[RemoteFile, ...] = ()
    manual: str = ""
    afterwards: str = ""

    def select(self, names: list[str]) -> list[RemoteFile]:
        """Return the named files, or those that are fetched by default.

        Raises:
            ConfigError: there is no such file.
        """
        known = {file.name: file for file in self.files}
        for name in names:
            if name not in known:
                there = ", ".join(known) or "none that can be fetched"
                raise ConfigError(f"{self.name} has no file '{name}'.{did_you_mean(name, known)} There: {there}.")
        return [known[name] for name in names] if names else [file for file in self.files if file.default]


def parse_source(name: str, entries: Mapping[str, Any]) -> Source:
    """Return the source that an entry of the table describes.

    Raises:
        ConfigError: an entry that is missing or unknown.
    """
    options = dict(entries)
    try:
        files = tuple(RemoteFile(**file) for file in options.pop("files", None) or ())
        source = Source(name, files=files, **options)
    except TypeError as error:
        raise ConfigError(f"The entry of {name} in the table of downloads is wrong: {error}.") from error
    if not source.files and not source.manual:
        raise ConfigError(f"The entry of {name} in the table of downloads has neither files nor manual steps.")
    return source
