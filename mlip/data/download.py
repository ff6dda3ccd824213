"""Fetch published data sets: resumable, verified, and never over a file that is there."""

from __future__ import annotations

import hashlib
import http.client
import json
import shutil
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from mlip.core.errors import DataError, MlipError
from mlip.core.files import write_text_atomically
from mlip.data.download_sources import RemoteFile

BLOCK = 1 << 20
TIMEOUT = 60
"""Seconds without a byte after which a connection counts as broken."""

Progress = Callable[[int, int | None], None]
"""Called with the bytes that are there and their final number, if known."""

_BROKEN = (URLError, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError)


class UnreachableError(MlipError):
    """The server does not answer, or does not give the file: it must be fetched in another way."""


@dataclass(frozen=True)
class Fetched:
    """A file that is on disk.

    Attributes:
        path: where.
        sha256: as computed.
        verified: whether a published checksum agrees.
        was_there: nothing was transferred.
    """

    path: Path
    sha256: str
    verified: bool
    was_there: bool = False


def fetch(file: RemoteFile, folder: Path, progress: Progress = lambda done, total: None) -> Fetched:
    """Fetch a file into a folder, going on where an earlier attempt stopped.

    What has arrived is kept in ``NAME.part``; ``NAME.part.json`` names the version it belongs to, so that two
    versions are never joined. The file gets its name when its size and checksum are right.

    Raises:
        UnreachableError: the server cannot be reached or does not give the file.
        MlipError: the connection broke, or the disk is full; nothing is lost.
        DataError: the file is not what was published, or another one is there already.
    """
    target = folder / file.name
    if target.exists():
        return _check_existing(file, target)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part = _Part(folder / f"{file.name}.part", file.url)
        _transfer(file, part, progress)
        found = _verify(file, part)
        part.path.replace(target)
        part.note.unlink(missing_ok=True)
    except _BROKEN as error:
        raise _unreachable(file, folder, error) from error
    except OSError as error:
        raise MlipError(
            f"Cannot write '{target}': {error.strerror or error}. What has arrived is kept; free some space or choose "
            "another folder, and run the same command again."
        ) from error
    return Fetched(target, found.sha256, found.verified)


@dataclass
class _Part:
    """What has arrived of a file, and which version of it that is."""

    path: Path
    url: str
    validator: str = ""
    total: int | None = None
    hashes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.note = self.path.with_name(f"{self.path.name}.json")
        try:
            known = json.loads(self.note.read_text(encoding="utf-8"))
            if known["url"] == self.url and self.path.is_file():
                self.validator, self.total = str(known["validator"]), known["total"]
        except (OSError, ValueError, KeyError, TypeError):
            self.validator = ""

    @property
    def size(self) -> int:
        """Bytes that are there and can be continued."""
        return self.path.stat().st_size if self.validator and self.path.is_file() else 0

    def begin(self, headers: Mapping[str, str], total: int | None) -> None:
        """Note the version that a fresh transfer is of."""
        etag = headers.get("ETag", "")
        # A weak tag says that two versions are alike, not that they are the same bytes.
        self.validator = etag if etag and not etag.startswith("W/") else headers.get("Last-Modified", "")
        self.total = total
        note = {"url": self.url, "validator": self.validator, "total": total}
        write_text_atomically(self.note, json.dumps(note))

    def drop(self) -> None:
        """Remove everything."""
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)
        self.validator, self.total = "", None


def _transfer(file: RemoteFile, part: _Part, progress: Progress) -> None:
    """Bring everything into the part file."""
    there = part.size
    if there and there == part.total:
        return
    headers = {"User-Agent": "mlip", "Accept-Encoding": "identity"}
    if there:
        headers |= {"Range": f"bytes={there}-", "If-Range": part.validator}
    try:
        response = urlopen(Request(file.url, headers=headers), timeout=TIMEOUT)
    except HTTPError as error:
        # It is the answer, too, and holds the connection.
        error.close()
        if error.code == 416 and there:
            part.drop()
            _transfer(file, part, progress)
            return
        raise _refused(file, error) from error
    with response:
        resumed = response.status == 206
        if resumed and response.headers.get("Content-Range", "").strip() != f"bytes {there}-{_last(part)}":
            # Not what was asked for: another version, or a server that cannot count.
            part.drop()
            raise ConnectionError("the server went on in another place; what was there is dropped")
        if not resumed:
            length = response.headers.get("Content-Length", "")
            part.begin(response.headers, int(length) if length.isdigit() else None)
            there = 0
        _check_size(file, part)
        free = shutil.disk_usage(part.path.parent).free
        if part.total is not None and part.total - there > free:
            raise MlipError(
                f"{file.name} needs {part.total - there} bytes more, '{part.path.parent}' has {free} free. Free some "
                "space or choose another folder."
            )
        with part.path.open("ab" if resumed else "wb") as out:
            progress(there, part.total)
            while block := response.read(BLOCK):
                out.write(block)
                there += len(block)
                progress(there, part.total)
    if part.total is not None and there < part.total:
        raise ConnectionError("the connection ended early")


def _last(part: _Part) -> str:
    """Return how the range of a partial answer must end."""
    return f"{part.total - 1}/{part.total}" if part.total else ""


def _check_size(file: RemoteFile, part: _Part) -> None:
    if file.size is not None and part.total is not None and file.size != part.total:
        total = part.total
        part.drop()
        raise DataError(
            f"{file.url} has {total} bytes, {file.size} are published for {file.name}: it is another file. "
            "Nothing was written."
        )


def _verify(file: RemoteFile, part: _Part) -> Fetched:
    """Compare the whole part file with what is published; remove one that is wrong."""
    size = part.path.stat().st_size
    wanted = file.size if file.size is not None else part.total
    problem = f"it has {size} bytes, not {wanted}" if wanted is not None and size != wanted else ""
    digests = _digests(part.path)
    problem = problem or _mismatch(file, digests)
    if problem:
        part.drop()
        raise DataError(f"{file.name} from {file.url} is not the published file: {problem}. It was removed; try again.")
    return Fetched(part.path, digests["sha256"], bool(file.sha256 or file.md5))


def _check_existing(file: RemoteFile, target: Path) -> Fetched:
    """Accept a file that is there if it is the published one; it is never written over."""
    try:
        size = target.stat().st_size
        digests = _digests(target)
    except OSError as error:
        raise MlipError(f"Cannot read '{target}': {error.strerror or error}.") from error
    problem = f"it has {size} bytes, not {file.size}" if file.size not in (None, size) else _mismatch(file, digests)
    if problem:
        raise DataError(
            f"'{target}' is there already and is not the published file: {problem}. It was left as it is; move it away "
            "or choose another folder."
        )
    return Fetched(target, digests["sha256"], bool(file.sha256 or file.md5), was_there=True)


def _digests(path: Path) -> dict[str, str]:
    hashes = {"sha256": hashlib.sha256(), "md5": hashlib.md5(usedforsecurity=False)}
    with path.open("rb") as stream:
        while block := stream.read(BLOCK):
            for digest in hashes.values():
                digest.update(block)
    return {name: digest.hexdigest() for name, digest in hashes.items()}


def _mismatch(file: RemoteFile, digests: Mapping[str, str]) -> str:
    for name, published in (("sha256", file.sha256), ("md5", file.md5)):
        if published is not None and published.lower() != digests[name]:
            return f"its {name} is {digests[name]}, published is {published}"
    return ""


def _refused(file: RemoteFile, error: HTTPError) -> UnreachableError:
    reasons = {
        403: "refuses access",
        401: "asks for an account",
        404: "does not have the file",
        410: "dropped the file",
    }
    what = reasons.get(error.code, "answers with an error; try again later")
    return UnreachableError(f"The server of {file.url} {what} (HTTP {error.code}).")


def _unreachable(file: RemoteFile, folder: Path, error: Exception) -> MlipError:
    part = folder / f"{file.name}.part"
    if part.is_file() and part.stat().st_size:
        return MlipError(
            f"The connection broke ({_reason(error)}); {part.stat().st_size} bytes of {file.name} are kept. Run the "
            "same command again to go on."
        )
    return UnreachableError(f"Cannot reach {file.url} ({_reason(error)}).")


def _reason(error: Exception) -> str:
    cause = error.reason if isinstance(error, URLError) else error
    return str(getattr(cause, "strerror", None) or cause) or type(error).__name__
