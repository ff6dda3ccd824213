"""Read LMDB files without the library of that name, which a damaged file can crash.

liblmdb maps the file and follows the offsets in it unchecked: a file that was cut off ends the process with SIGBUS, a
changed byte with SIGSEGV. Reading is little work (a B+ tree of pages), so it is done here with every offset checked,
by plain reads, without a lock file and in read-only folders. The format is that of LMDB 0.9, data version 1.
"""

from __future__ import annotations

import os
import struct
import weakref
from collections.abc import Iterator
from itertools import pairwise
from os import PathLike
from pathlib import Path

from mlip.core.errors import DataError

_MAGIC = 0xBEEFC0DE
_META = struct.Struct("<IIQQ")  # magic, version, address, map size
_DB = struct.Struct("<IHHQQQQQ")  # page size (of the first), flags, depth, three counts of pages, entries, root
_TAIL = struct.Struct("<QQ")  # last page, transaction
_HEADER = struct.Struct("<QHHHH")  # page number, pad, flags, end of the offsets, start of the nodes
_NODE = struct.Struct("<HHHH")  # size or child (low, high), flags, size of the key
_META_SIZE = 16 + _META.size + 2 * _DB.size + _TAIL.size

_BRANCH, _LEAF, _OVERFLOW, _DIRTY = 0x01, 0x02, 0x04, 0x10
_IN_OVERFLOW = 0x01
_NO_ROOT = 2**64 - 1
MAX_DEPTH = 32
"""Levels of the tree; that of LMDB itself."""
KEPT_PAGES = 4096
"""Branch pages that stay in memory, 16 MB."""


class LmdbFile:
    """The main table of an LMDB file: keys and values.

    Opened when it is first read, in every process for itself; pickles as its path.

    Args:
        path: the file, or a folder with ``data.mdb``.

    Raises:
        DataError: no such file, no LMDB, one that is cut off or damaged. (Also by all methods.)
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        path = Path(path).expanduser()
        self.path = path / "data.mdb" if path.is_dir() else path
        self._handle: int | None = None
        self._open()

    def __getstate__(self) -> dict[str, Path]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Path]) -> None:
        self.path = state["path"]
        self._handle = None

    @property
    def num_entries(self) -> int:
        """Number of keys."""
        self._open()
        return self._entries

    def keys(self) -> list[bytes]:
        """Return all keys in order of their bytes."""
        self._open()
        found = [self._node(page, number, at)[3] for page, number in self._leaves() for at in self._nodes(page)]
        if any(first >= second for first, second in pairwise(found)):
            raise self._damaged("keys are not in order")
        if len(found) != self._entries:
            raise self._damaged(f"{len(found)} keys where {self._entries} should be")
        return found

    def close(self) -> None:
        """Close the file; it opens again when it is read."""
        if self._handle is not None:
            self._handle = None
            self._close()

    def get(self, key: bytes) -> bytes:
        """Return the value of a key.

        Raises:
            DataError: there is no such key.
        """
        value = self.find(key)
        if value is None:
            raise DataError(f"'{self.path}' has no entry {key.decode('utf-8', 'backslashreplace')!r}.")
        return value

    def find(self, key: bytes) -> bytes | None:
        """Return the value of a key, None if it is not there."""
        self._open()
        if self._root == _NO_ROOT:
            return None
        number = self._root
        for level in range(self._depth):
            page = self._page(number, _LEAF if level == self._depth - 1 else _BRANCH)
            index, exact = self._search(page, number, key, first=0 if level == self._depth - 1 else 1)
            if level == self._depth - 1:
                return self._value(page, number, index) if exact else None
            # A branch node leads to the keys from its own one on.
            number = self._child(page, number, index if exact else index - 1)
        raise self._damaged("no leaf")

    # Opening.

    def _open(self) -> None:
        if self._handle is not None:
            return
        try:
            handle = os.open(self.path, os.O_RDONLY)
        except OSError as error:
            raise DataError(f"Cannot read '{self.path}': {error.strerror or error}.") from error
        self._close = weakref.finalize(self, os.close, handle)
        self._handle = handle
        self._pages: dict[int, bytes] = {}
        try:
            self._read_meta()
        except DataError:
            self.close()
            raise

    def _read_meta(self) -> None:
        self._size = os.fstat(self._handle or 0).st_size
        if self._size == 0:
            raise DataError(f"'{self.path}' is empty, an LMDB file was expected.")
        first = self._meta(self._read(0, _META_SIZE))
        page_size = first[0]
        if page_size & (page_size - 1) or not 256 <= page_size <= 65536:
            raise self._damaged(f"pages of {page_size} bytes")
        second = self._meta(self._read(page_size, _META_SIZE))
        page_size_again, flags, depth, entries, root, last, _ = max(first, second, key=lambda meta: meta[-1])
        if page_size_again not in (page_size, 0) or depth > MAX_DEPTH or (depth == 0) != (root == _NO_ROOT):
            raise self._damaged("its two headers do not fit together")
        if flags & 0x7FFF:  # A table of another kind: several values a key, keys in another order.
            raise DataError(f"'{self.path}' is an LMDB with special keys (flags {flags:#x}), which is not read.")
        self._page_size, self._depth, self._entries, self._root = page_size, depth, entries, root
        if (last + 1) * page_size > self._size and not self._is_whole():
            raise DataError(
                f"'{self.path}' is truncated: it has {self._size} bytes, its header speaks of "
                f"{(last + 1) * page_size}. Copy or download it again."
            )

    def _is_whole(self) -> bool:
        """Whether all pages in use are there: free ones at the end are sometimes never written."""
        try:
            for page, number in self._leaves():
                for index in range(len(self._nodes(page))):
                    self._value(page, number, index)
        except DataError:
            return False
        return True

    def _meta(self, data: bytes) -> tuple[int, int, int, int, int, int, int]:
        """Return (page size, flags, depth, entries, root, last page, transaction) of a header page."""
        magic, version, _, _ = _META.unpack_from(data, 16)
        if magic != _MAGIC:
            raise DataError(f"'{self.path}' is not an LMDB file.")
        if version != 1:
            raise DataError(f"'{self.path}' is an LMDB of format {version}; format 1 (LMDB 0.9) is read.")
        page_size = _DB.unpack_from(data, 16 + _META.size)[0]
        _, flags, depth, _, _, _, entries, root = _DB.unpack_from(data, 16 + _META.size + _DB.size)
        last, transaction = _TAIL.unpack_from(data, 16 + _META.size + 2 * _DB.size)
        return page_size, flags, depth, entries, root, last, transaction

    # Pages and nodes.

    def _read(self, start: int, size: int) -> bytes:
        if start + size > self._size:
            raise self._damaged("it ends too early")
        try:
            data = os.pread(self._handle or 0, size, start)
        except OSError as error:
            raise DataError(f"Cannot read '{self.path}': {error.strerror or error}.") from error
        while len(data) < size:  # A read may return less: 2 GB are the most of one.
            more = os.pread(self._handle or 0, size - len(data), start + len(data))
            if not more:
                raise self._damaged("it became shorter while it was read")
            data += more
        return data

    def _page(self, number: int, kind: int) -> bytes:
        page = self._pages.get(number)
        if page is None:
            page = self._read(number * self._page_size, self._page_size)
            if kind == _BRANCH and len(self._pages) < KEPT_PAGES:
                self._pages[number] = page
        stated, _, flags, lower, _ = _HEADER.unpack_from(page)
        if stated != number or flags & ~_DIRTY != kind or not 16 <= lower <= self._page_size:
            raise self._damaged(f"page {number} is not what it should be")
        return page

    def _nodes(self, page: bytes) -> tuple[int, ...]:
        """Return the offsets of a page's nodes."""
        count = (_HEADER.unpack_from(page)[3] - 16) // 2
        return struct.unpack_from(f"<{count}H", page, 16)

    def _node(self, page: bytes, number: int, offset: int) -> tuple[int, int, int, bytes]:
        """Return (low, high, flags, key) of a node."""
        if offset + _NODE.size > len(page):
            raise self._damaged(f"a node of page {number} lies outside of it")
        low, high, flags, size = _NODE.unpack_from(page, offset)
        key = page[offset + _NODE.size : offset + _NODE.size + size]
        if len(key) < size:
            raise self._damaged(f"a key of page {number} lies outside of it")
        return low, high, flags, key

    def _search(self, page: bytes, number: int, key: bytes, first: int) -> tuple[int, bool]:
        """Return the index of the first node whose key is not below, and whether it is the key."""
        offsets = self._nodes(page)
        low, high = first, len(offsets)
        while low < high:
            middle = (low + high) // 2
            if self._node(page, number, offsets[middle])[3] < key:
                low = middle + 1
            else:
                high = middle
        return low, low < len(offsets) and self._node(page, number, offsets[low])[3] == key

    def _child(self, page: bytes, number: int, index: int) -> int:
        offsets = self._nodes(page)
        if not 0 <= index < len(offsets):
            raise self._damaged(f"page {number} has no node")
        low, high, flags, _ = self._node(page, number, offsets[index])
        return low | high << 16 | flags << 32

    def _value(self, page: bytes, number: int, index: int) -> bytes:
        offset = self._nodes(page)[index]
        low, high, flags, key = self._node(page, number, offset)
        size = low | high << 16
        start = offset + _NODE.size + len(key)
        if flags == 0:
            value = page[start : start + size]
            if len(value) < size:
                raise self._damaged(f"a value of page {number} lies outside of it")
            return value
        if flags != _IN_OVERFLOW or start + 8 > len(page):
            raise self._damaged(f"a value of page {number} is of an unknown kind ({flags})")
        (other,) = struct.unpack_from("<Q", page, start)
        stated, _, kind, low, high = _HEADER.unpack(self._read(other * self._page_size, _HEADER.size))
        pages = low | high << 16
        if stated != other or kind & ~_DIRTY != _OVERFLOW or 16 + size > pages * self._page_size:
            raise self._damaged(f"page {other} is not what it should be")
        return self._read(other * self._page_size + 16, size)

    def _leaves(self) -> Iterator[tuple[bytes, int]]:
        """Yield (leaf page, its number) in order."""
        if self._root == _NO_ROOT:
            return
        budget = self._size // self._page_size  # No page is visited twice, even where branches lead back.
        pending = [(self._root, 1)]
        while pending:
            number, level = pending.pop()
            budget -= 1
            if budget < 0:
                raise self._damaged("its pages lead in a circle")
            if level < self._depth:
                page = self._page(number, _BRANCH)
                children = [self._child(page, number, index) for index in range(len(self._nodes(page)))]
                pending.extend((child, level + 1) for child in reversed(children))
                continue
            yield self._page(number, _LEAF), number

    def _damaged(self, reason: str) -> DataError:
        return DataError(f"'{self.path}' is a damaged LMDB file: {reason}. Copy or download it again.")
