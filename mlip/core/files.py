"""Files that are either whole or not there: write to a neighbour, then rename."""

import os
from collections.abc import Callable
from pathlib import Path
from tempfile import NamedTemporaryFile

from mlip.core.errors import MlipError


def write_atomically(path: str | os.PathLike[str], write: Callable[[Path], None]) -> None:
    """Call ``write`` with a temporary path in the same folder and rename the result to ``path``.

    A crash or a full disk leaves the old file, or none; never half a file.

    Raises:
        MlipError: the folder cannot be written to or the disk is full.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The suffix is kept because some writers choose their format by it.
        with NamedTemporaryFile(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix, delete=False) as handle:
            temporary = Path(handle.name)
    except OSError as error:
        raise MlipError(f"Cannot write '{path}': {error.strerror or error}. Choose another folder.") from error
    try:
        write(temporary)
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        raise MlipError(
            f"Cannot write '{path}': {error.strerror or error}. Nothing was written; free some space or "
            "choose another folder."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text_atomically(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file in UTF-8, whole or not at all."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8") and None)


def cache_folder() -> Path:
    """Folder of the cache: ``MLIP_CACHE``, else ``XDG_CACHE_HOME``/mlip, else ``~/.cache/mlip``."""
    named = os.environ.get("MLIP_CACHE")
    if named:
        try:
            return Path(named).expanduser()
        except RuntimeError as error:
            raise MlipError(f"MLIP_CACHE is '{named}', and there is no such user. Name a folder.") from error
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "mlip"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
