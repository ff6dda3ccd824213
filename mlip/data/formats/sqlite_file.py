"""Read an SQLite file without writing anything next to it, in any process, and notice when it is cut."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from mlip.core.errors import DataError

MAGIC = b"SQLite format 3\0"

LARGEST_VALUE = 256 * 2**20
"""Bytes of one value; sqlite refuses more."""


class SqliteFile:
    """A read-only SQLite file.

    Pickles; every process opens the file for itself. The file is opened as immutable, so that a read-only folder
    does and no lock is taken; do not write to it meanwhile.

    Args:
        path: of the file.

    Raises:
        DataError: no such file, no SQLite file, cut, or with changes that a writer has not finished.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path).expanduser()
        self._connection: tuple[int, sqlite3.Connection] | None = None
        self._check()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_connection": None}

    def close(self) -> None:
        """Close the file; it opens again when it is read."""
        if self._connection is not None and self._connection[0] == os.getpid():
            self._connection[1].close()
        self._connection = None

    def columns(self, table: str) -> dict[str, str]:
        """Return the declared type of every column of a table, {} if there is no such table (a view is none)."""
        if not self.all("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (table,)):
            return {}
        return {str(row[1]): str(row[2]).upper() for row in self.all("SELECT * FROM pragma_table_info(?)", (table,))}

    def tables(self) -> list[str]:
        """Return the names of the tables, sorted."""
        return [str(name) for (name,) in self.all("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]

    def all(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return all rows of a query.

        Raises:
            DataError: the file is damaged, or a value is absurdly large.
        """
        return list(self.rows(query, values))

    def rows(self, query: str, values: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a query as they are read.

        Raises:
            DataError: as `all`.
        """
        try:
            yield from self._connect().execute(query, tuple(values))
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise DataError(f"'{self.path}' cannot be read ({error}): it is damaged. Get it again.") from error

    def _connect(self) -> sqlite3.Connection:
        """Return this process's connection; one that was inherited by a fork is not used."""
        if self._connection is None or self._connection[0] != os.getpid():
            uri = f"{self.path.absolute().as_uri()}?mode=ro&immutable=1"
            connection = sqlite3.connect(uri, uri=True, check_same_thread=False)
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LARGEST_VALUE)
            # What stands in the file's schema must not run functions, and cells are checked before they are used.
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("PRAGMA cell_size_check = ON")
            self._connection = (os.getpid(), connection)
        return self._connection[1]

    def _check(self) -> None:
        """Refuse what is no whole SQLite file. SQLite itself reads a last page that is cut as if it held zeros."""
        try:
            with self.path.open("rb") as handle:
                head = handle.read(100)
            size = self.path.stat().st_size
        except OSError as error:
            raise DataError(f"Cannot read '{self.path}': {error.strerror or error}. Set data.path.") from error
        if head[:16] != MAGIC or len(head) < 100:
            raise DataError(f"'{self.path}' is not an SQLite file{' but empty' if not size else ''}.")
        page = int.from_bytes(head[16:18], "big")
        page = 65536 if page == 1 else page
        # The number of pages is only valid if these two counters agree: old programs did not write it.
        pages = int.from_bytes(head[28:32], "big") if head[24:28] == head[92:96] else 0
        if size < page * pages or (page and size % page):
            raise DataError(
                f"'{self.path}' is cut: it has {size} bytes, its header says {max(pages, -(-size // page))} pages of "
                f"{page}. Copy or download it again."
            )
        for suffix in ("-journal", "-wal"):
            journal = Path(f"{self.path}{suffix}")
            if journal.is_file() and journal.stat().st_size > 0:
                raise DataError(
                    f"'{self.path}' has unfinished changes in '{journal.name}'. Let the program that writes it finish, "
                    "or open and close it once with sqlite3 where it can be written."
                )
