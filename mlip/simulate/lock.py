"""One writer at a time: a second process that would write the same files is refused."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedWriter
from pathlib import Path

from mlip.core.errors import SimulationError


@contextmanager
def only_writer(path: Path | None) -> Iterator[None]:
    """Hold a lock, which ends with the process, however that ends.

    The file and the folders that were made for it are gone afterwards, unless something else is in them. Where files
    cannot be locked (or written: that is told by whoever writes more than a lock) nothing is locked.

    Args:
        path: file that stands for the lock, in a folder of its own or beside what is written; None locks nothing.

    Raises:
        SimulationError: another process holds it.
    """
    if path is None:
        yield
        return
    made = [folder for folder in path.parents if not folder.exists()]
    handle = _lock(path)
    try:
        yield
    finally:
        if handle is not None:
            # While it is still locked: nobody else's file is taken away.
            path.unlink(missing_ok=True)
            handle.close()
        with suppress(OSError):
            for folder in made:
                folder.rmdir()


def _lock(path: Path) -> BufferedWriter | None:
    while True:
        handle = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = path.open("ab")
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found = os.stat(path)
        except BlockingIOError as error:
            handle.close()
            raise SimulationError(
                f"Another process runs MD in '{path.parent}': wait for it, or choose another folder."
            ) from error
        except FileNotFoundError:
            found = None  # The one that had it has just ended, and taken it away.
        except OSError:
            if handle is not None:
                handle.close()
            return None
        if handle is not None:
            if found is not None and os.path.samestat(found, os.fstat(handle.fileno())):
                return handle
            handle.close()
