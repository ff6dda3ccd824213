"""A record of bytes made of five streams, each compressed by what suits it, under one checksum.

============  =========================================  ================================================
stream        holds                                      compressed by
============  =========================================  ================================================
``small``     headers, small integers, text              zlib
``words4``    magnitudes below 2^32                      LZMA2, aligned to words of 4 bytes, or zlib
``words8``    larger magnitudes                          LZMA2, aligned to words of 8 bytes, or zlib
``bits``      signs and flags                            zlib, where that helps
``floats``    float64 without structure, bytes shuffled  zlib at level 1, where that helps
============  =========================================  ================================================

Symmetric crystals repeat whole numbers, which LZMA finds as matches of a word. Where it finds little, as in molecules,
the bytes of words are shuffled for zlib, which is read ten times as fast.
"""

from __future__ import annotations

import hashlib
import lzma
import struct
import zlib
from functools import lru_cache

import numpy as np

from mlip.core.errors import DataError

CHECKSUM_BYTES = 8
LARGEST_STREAM = 2**32
"""Bytes of a stream before compression; a record that claims more is damaged or made to fill the memory."""

_WORDS = (
    b'"rest":"group":"config_type":"basis":spinchargetagsfixedrelaxed_positionsoverlapinitial_hamiltonianhamiltonian'
    b'magmomschiralityclass_scoresstressforcesenergy{"table":{"source":{"file":"/","first":0}},"order":["source"]}'
)
"""What the small stream of most records holds; part of the format."""

_GAIN = 0.92
"""LZMA is used where it takes at most this share of the bytes that zlib takes."""

_ZLIB, _LZMA = b"\0", b"\1"

_NAMES = ("small", "words4", "words8", "bits", "floats")
_INTEGERS = ("<i1", "<i2", "<i4", "<i8")


def checksum(content: bytes | memoryview) -> bytes:
    """Return 8 bytes that change when the content does."""
    return hashlib.blake2b(content, digest_size=CHECKSUM_BYTES).digest()


class Writer:
    """Collects arrays and gives the record; `Reader` hands them out in the same order."""

    def __init__(self) -> None:
        self._parts: dict[str, list[bytes]] = {name: [] for name in _NAMES[:3]}
        self._flags: list[np.ndarray] = []
        self._floats: list[bytes] = []

    def byte(self, value: int) -> None:
        """Append a number of 0 to 255."""
        self._parts["small"].append(bytes((value,)))

    def number(self, value: float) -> None:
        """Append one float64."""
        self._parts["small"].append(struct.pack("<d", value))

    def text(self, content: bytes) -> None:
        """Append bytes of any length."""
        self._parts["small"].append(_varint(len(content)) + content)

    def integers(self, values: np.ndarray) -> None:
        """Append signed integers that are mostly small, in the smallest type that holds them."""
        code = next(code for code in range(4) if _holds(_INTEGERS[code], values))
        self.byte(code)
        self._parts["small"].append(values.astype(_INTEGERS[code]).tobytes())

    def words(self, values: np.ndarray) -> None:
        """Append integers of 0 to 2^63 - 1."""
        large = int(values.max(initial=0)) >= 2**32
        self.byte(large)
        self._parts["words8" if large else "words4"].append(values.astype("<u8" if large else "<u4").tobytes())

    def flags(self, values: np.ndarray) -> None:
        """Append booleans."""
        self._flags.append(np.asarray(values, dtype=bool).ravel())

    def floats(self, values: np.ndarray) -> None:
        """Append float64 as they are."""
        self._floats.append(_shuffled(np.ascontiguousarray(values, dtype="<f8").tobytes(), 8))

    def finish(self) -> bytes:
        """Return the record.

        Raises:
            DataError: a stream is larger than `LARGEST_STREAM`.
        """
        content = {name: b"".join(parts) for name, parts in self._parts.items()}
        content["bits"] = np.packbits(np.concatenate(self._flags)).tobytes() if self._flags else b""
        content["floats"] = b"".join(self._floats)
        head, body = b"", b""
        for name in _NAMES:
            if len(content[name]) > LARGEST_STREAM:
                raise DataError(f"A structure of {len(content[name]) / 1e9:.1f} GB is too large for a store.")
            packed = _compress(name, content[name])
            head += _varint(len(content[name])) + _varint(len(packed))
            body += packed
        return checksum(head + body) + head + body


class Reader:
    """Hands out what a `Writer` collected; streams are decompressed when they are first needed.

    Args:
        record: as `Writer.finish` returned it.
        where: names the record in messages.

    Raises:
        DataError: the record is not what was written.
    """

    def __init__(self, record: bytes, where: str) -> None:
        self._where = where
        view = memoryview(record)
        if checksum(view[CHECKSUM_BYTES:]) != record[:CHECKSUM_BYTES]:
            raise damaged(where)
        self._packed: dict[str, tuple[int, memoryview]] = {}
        sizes, at = [], CHECKSUM_BYTES
        try:
            for _ in range(2 * len(_NAMES)):
                size, at = _read_varint(record, at)
                sizes.append(size)
        except IndexError as error:
            raise damaged(where) from error
        for name, plain, size in zip(_NAMES, sizes[::2], sizes[1::2], strict=True):
            self._packed[name] = (plain, view[at : at + size])
            at += size
        if at != len(record) or max(sizes[::2]) > LARGEST_STREAM:
            raise damaged(where)
        self._plain: dict[str, bytes] = {}
        self._at = dict.fromkeys(_NAMES, 0)
        self._bits: np.ndarray | None = None

    def byte(self) -> int:
        """Return a number of 0 to 255."""
        return self._take("small", 1)[0]

    def number(self) -> float:
        """Return one float64."""
        return struct.unpack("<d", self._take("small", 8))[0]

    def text(self) -> bytes:
        """Return bytes of any length."""
        try:
            length, self._at["small"] = _read_varint(self._stream("small"), self._at["small"])
        except IndexError as error:
            raise damaged(self._where) from error
        return self._take("small", length)

    def integers(self, count: int) -> np.ndarray:
        """Return (count,) int64."""
        kind = np.dtype(_INTEGERS[self.byte() & 3])
        return np.frombuffer(self._take("small", count * kind.itemsize), kind).astype(np.int64)

    def words(self, count: int) -> np.ndarray:
        """Return (count,) int64."""
        size = 8 if self.byte() else 4
        return np.frombuffer(self._take(f"words{size}", count * size), f"<u{size}").astype(np.int64)

    def flags(self, count: int) -> np.ndarray:
        """Return (count,) bool."""
        if self._bits is None:
            self._bits = np.unpackbits(np.frombuffer(self._stream("bits"), np.uint8)).view(bool)
        start = self._at["bits"]
        self._at["bits"] += count
        if self._at["bits"] > len(self._bits):
            raise damaged(self._where)
        return self._bits[start : start + count]

    def floats(self, count: int) -> np.ndarray:
        """Return (count,) float64."""
        return np.frombuffer(_unshuffled(self._take("floats", 8 * count), 8), "<f8").astype(np.float64)

    def _take(self, name: str, size: int) -> bytes:
        start = self._at[name]
        self._at[name] = start + size
        piece = self._stream(name)[start : start + size]
        if len(piece) != size:
            raise damaged(self._where)
        return piece

    def _stream(self, name: str) -> bytes:
        if name not in self._plain:
            size, packed = self._packed[name]
            try:
                content = _decompress(name, packed, size)
            except (zlib.error, lzma.LZMAError, EOFError, ValueError) as error:
                raise damaged(self._where) from error
            if len(content) != size:
                raise damaged(self._where)
            self._plain[name] = content
        return self._plain[name]


def damaged(where: str) -> DataError:
    """Return the error for bytes that are not what was written."""
    return DataError(
        f"The store is damaged: {where} is not what was written. Delete that file and run the mlip data prepare "
        "command that made the store again; only what is missing is made."
    )


@lru_cache
def _filters(width: int) -> tuple[dict[str, int], ...]:
    """Settings of LZMA; the decoder needs lc, lp, pb and dict_size, the rest is the speed of the encoder."""
    align = {4: 2, 8: 3}[width]
    return (
        {
            **{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 1 << 16, "lc": 0, "lp": align, "pb": align},
            **{"mf": lzma.MF_HC4, "nice_len": 32, "depth": 0},
        },
    )


def _compress(name: str, content: bytes) -> bytes:
    """Return the compressed stream, or the stream itself where that is not longer."""
    if not content:
        return b""
    if name.startswith("words"):
        width = int(name[5:])
        packed = _ZLIB + zlib.compress(_shuffled(content, width), 6)
        other = _LZMA + lzma.compress(content, format=lzma.FORMAT_RAW, filters=_filters(width))
        packed = other if len(other) <= _GAIN * len(packed) else packed
    else:
        encoder = zlib.compressobj(1 if name == "floats" else 9, zlib.DEFLATED, -15, zdict=_WORDS)
        packed = encoder.compress(content) + encoder.flush()
    return packed if len(packed) < len(content) else content


def _decompress(name: str, packed: memoryview, size: int) -> bytes:
    if len(packed) == size:
        return bytes(packed)
    if name.startswith("words"):
        width, kind = int(name[5:]), bytes(packed[:1])
        if kind == _ZLIB:
            return _unshuffled(zlib.decompressobj().decompress(packed[1:], size), width)
        decoder = lzma.LZMADecompressor(format=lzma.FORMAT_RAW, filters=_filters(width))
        return decoder.decompress(packed[1:], max_length=size)
    return zlib.decompressobj(-15, zdict=_WORDS).decompress(packed, size)


def _shuffled(content: bytes, width: int) -> bytes:
    """Return words with all their first bytes first, then all second ones, …"""
    return np.frombuffer(content, np.uint8).reshape(-1, width).T.tobytes()


def _unshuffled(content: bytes, width: int) -> bytes:
    return np.frombuffer(content, np.uint8).reshape(width, -1).T.tobytes()


def _holds(kind: str, values: np.ndarray) -> bool:
    limits = np.iinfo(kind)
    return values.size == 0 or bool(values.min() >= limits.min and values.max() <= limits.max)


def _varint(value: int) -> bytes:
    """Return a number in groups of seven bits, least significant first."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(content: bytes, at: int) -> tuple[int, int]:
    """Return the number and where it ends."""
    value = shift = 0
    while True:
        value |= (content[at] & 127) << shift
        at += 1
        if content[at - 1] < 128:
            return value, at
        shift += 7
