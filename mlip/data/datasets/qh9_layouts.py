"""Which of QH9's layouts a path has."""

from __future__ import annotations

from pathlib import Path

from mlip.core.errors import DataError
from mlip.data.datasets.qh9_lmdb import LmdbRows
from mlip.data.datasets.qh9_rows import Rows
from mlip.data.datasets.qh9_sqlite import SqliteRows
from mlip.data.formats.sqlite_file import MAGIC


def open_rows(path: Path) -> Rows:
    """Open a file or folder of QH9.

    Raises:
        DataError: nothing is there, or something else.
    """
    if path.is_dir():
        if (path / "data.mdb").is_file():
            return LmdbRows(path)
        there = sorted(entry.name for entry in path.iterdir() if entry.suffix in (".db", ".lmdb", ".mdb"))
        raise DataError(
            f"The folder '{path}' has no data.mdb. Set data.path to one file of QH9"
            f"{', such as ' + ' or '.join(there[:3]) if there else ' (.db, or a folder .lmdb)'}."
        )
    try:
        with path.open("rb") as handle:
            head = handle.read(len(MAGIC))
    except OSError as error:
        raise DataError(
            f"Cannot read '{path}': {error.strerror or error}. Set data.path to a file of QH9 (.db, .mdb)."
        ) from error
    return SqliteRows(path) if head == MAGIC or path.suffix == ".db" else LmdbRows(path)


def recognise_rows(path: Path) -> Rows | None:
    """Return the rows of a path that is QH9 by its content, else None; raises nothing."""
    try:
        return open_rows(path)
    except (DataError, OSError):
        return None
