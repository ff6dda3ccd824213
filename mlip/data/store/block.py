"""A block: some consecutive samples as one record of bytes that needs nothing else to be read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from math import prod
from typing import Any

import numpy as np

from mlip.core.errors import DataError
from mlip.core.fields import FIELDS
from mlip.data.sample import Sample
from mlip.data.store.columns import Column, Columns, Unstacked, stack
from mlip.data.store.decimals import put_floats, take_floats
from mlip.data.store.positions import put_positions, take_positions
from mlip.data.store.streams import Reader, Writer, damaged

BLOCK_ATOMS = 512
BLOCK_SAMPLES = 20
BLOCK_NUMBERS = 1 << 16
"""What a block holds at most, numbers in labels such as matrices: more compress better, but all are decoded to read
one."""

_UPPER = np.triu_indices(3)
_SYMMETRIC = np.array([[0, 1, 2], [1, 3, 4], [2, 4, 5]])


def runs(samples: Iterable[Sample]) -> Iterator[list[Sample]]:
    """Cut samples into blocks as they come: at most what the constants say, at least one sample."""
    block: list[Sample] = []
    atoms = numbers = 0
    for sample in samples:
        size = sum(np.size(value) for value in sample.labels.values())
        full = atoms + len(sample.atoms) > BLOCK_ATOMS or numbers + size > BLOCK_NUMBERS
        if block and (full or len(block) == BLOCK_SAMPLES):
            yield block
            block, atoms, numbers = [], 0, 0
        block.append(sample)
        atoms += len(sample.atoms)
        numbers += size
    if block:
        yield block


def pack(samples: Sequence[Sample]) -> bytes:
    """Return samples as one record, exactly. They must have passed `check_sample`."""
    return pack_columns(stack(samples))


def unpack(record: bytes, where: str = "a block") -> Unstacked:
    """Return the samples of a record, in order.

    Raises:
        DataError: the record is not what was written.
    """
    return Unstacked(unpack_columns(record, where))


def pack_columns(columns: Columns) -> bytes:
    """Return stacked samples as one record."""
    writer = Writer()
    writer.text(b"%d" % len(columns))
    writer.integers(columns.num_atoms)
    _put_infos(writer, columns.infos)
    writer.integers(columns.numbers)
    writer.integers(columns.pbc @ np.array([1, 2, 4]))
    put_floats(writer, columns.cells)
    put_positions(writer, columns.positions, columns.cells, columns.num_atoms)
    writer.byte(len(columns.labels))
    for name, column in columns.labels.items():
        writer.text(name.encode())
        _put_column(writer, name, column, columns)
    return writer.finish()


def unpack_columns(record: bytes, where: str = "a block") -> Columns:
    """Return stacked samples.

    Raises:
        DataError: the record is not what was written.
    """
    reader = Reader(record, where)
    try:
        num_atoms, infos = _take_head(reader)
        total = int(num_atoms.sum())
        numbers = reader.integers(total)
        pbc = (reader.integers(len(num_atoms))[:, None] & np.array([1, 2, 4])) > 0
        cells = take_floats(reader, 9 * len(num_atoms)).reshape(-1, 3, 3)
        positions = take_positions(reader, cells, num_atoms)
        columns = Columns(num_atoms, numbers, positions, cells, pbc, infos)
        for _ in range(reader.byte()):
            name = reader.text().decode()
            columns.labels[name] = _take_column(reader, name, columns)
    except (ValueError, KeyError, IndexError, TypeError, MemoryError) as error:
        # The checksum fits, so this was written by something else.
        raise damaged(where) from error
    return columns


def unpack_infos(record: bytes, where: str = "a block") -> list[dict[str, Any]]:
    """Return the provenance of the samples of a record, without their numbers."""
    return _take_head(Reader(record, where))[1]


def _take_head(reader: Reader) -> tuple[np.ndarray, list[dict[str, Any]]]:
    num_atoms = reader.integers(int(reader.text()))
    return num_atoms, _take_infos(reader, len(num_atoms))


def _put_infos(writer: Writer, infos: list[dict[str, Any]]) -> None:
    """Append provenance as columns, so that like stands by like; frames that follow each other as a range."""
    keys = list(dict.fromkeys(key for info in infos for key in info))
    table = {key: [info[key] for info in infos] for key in keys if all(key in info for info in infos)}
    rest = [{key: value for key, value in info.items() if key not in table} for info in infos]
    content: dict[str, Any] = {"table": table, "order": [list(info) for info in infos]}
    if all(list(info) == content["order"][0] for info in infos):
        content["order"] = content["order"][0] if infos else []
    if any(rest):
        content["rest"] = rest
    span = _span(table.get("source"))
    if span is not None:
        table["source"] = span
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    # File names may hold bytes that are no characters; Python has surrogates for these, and json reads them back.
    writer.text(text.encode("utf-8", "surrogatepass"))


def _span(sources: list[Any] | None) -> dict[str, Any] | None:
    """Return ``{"file": …, "first": …}`` for sources that count the frames of one file."""
    if not sources or not isinstance(sources[0], str):
        return None
    file, _, first = sources[0].rpartition(":")
    if not (first.isascii() and first.isdigit() and len(first) < 19):
        return None
    span = {"file": file, "first": int(first)}
    return span if _sources(span, len(sources)) == sources else None


def _sources(span: dict[str, Any], count: int) -> list[str]:
    return [f"{span['file']}:{span['first'] + k}" for k in range(count)]


def _take_infos(reader: Reader, count: int) -> list[dict[str, Any]]:
    content = json.loads(reader.text())
    table, order = content["table"], content["order"]
    span = table.get("source")
    if isinstance(span, dict):
        table["source"] = _sources(span, count)
    rest = content.get("rest")
    orders = order if order and isinstance(order[0], list) else [order] * count
    return [
        {key: table[key][index] if key in table else rest[index][key] for key in keys}
        for index, keys in enumerate(orders)
    ]


def _put_column(writer: Writer, name: str, column: Column, columns: Columns) -> None:
    everywhere = bool(column.present.all())
    writer.byte(everywhere)
    if not everywhere:
        writer.flags(column.present)
    if _is_ragged(name):
        writer.integers(np.array([size for shape in column.shapes for size in shape], dtype=np.int64))
    if FIELDS[name].kind != "float":
        writer.integers(column.values.astype(np.int64))
    elif name == "relaxed_positions":
        chosen = column.present
        put_positions(writer, column.values.reshape(-1, 3), columns.cells[chosen], columns.num_atoms[chosen])
    elif FIELDS[name].level == "orbital_pair":
        _put_matrices(writer, column)
    elif name == "stress":
        tensors = column.values.reshape(-1, 3, 3)
        symmetric = _same_bits(tensors, tensors.transpose(0, 2, 1))
        writer.byte(symmetric)
        put_floats(writer, tensors[:, *_UPPER] if symmetric else tensors)
    else:
        put_floats(writer, column.values)


def _take_column(reader: Reader, name: str, columns: Columns) -> Column:
    present = np.ones(len(columns), dtype=bool) if reader.byte() else reader.flags(len(columns)).copy()
    count, num_atoms = int(np.count_nonzero(present)), columns.num_atoms[present]
    if name not in FIELDS:
        raise DataError(f"The store has a field '{name}' that this version of mlip does not know. Update mlip.")
    shapes = _take_shapes(reader, name, count, num_atoms)
    total = sum(prod(shape) for shape in shapes)
    if FIELDS[name].kind != "float":
        values = reader.integers(total)
        return Column(present, shapes, values.astype(bool) if FIELDS[name].kind == "bool" else values)
    if name == "relaxed_positions":
        values = take_positions(reader, columns.cells[present], num_atoms).ravel()
    elif FIELDS[name].level == "orbital_pair":
        values = _take_matrices(reader, shapes)
    elif name == "stress" and reader.byte():
        values = take_floats(reader, 6 * count).reshape(-1, 6)[:, _SYMMETRIC].ravel()
    else:
        values = take_floats(reader, total)
    return Column(present, shapes, values)


def _is_ragged(name: str) -> bool:
    """Whether field and number of atoms do not fix the shape of a value."""
    return FIELDS[name].level == "orbital_pair" or None in FIELDS[name].shape


def _take_shapes(reader: Reader, name: str, count: int, num_atoms: np.ndarray) -> list[tuple[int, ...]]:
    known = FIELDS[name]
    if _is_ragged(name):
        rank = 2 if known.level == "orbital_pair" else len(known.shape) + (known.level == "atom")
        return [tuple(shape) for shape in reader.integers(count * rank).reshape(count, rank).tolist()]
    tail = tuple(int(size) for size in known.shape if size is not None)
    return [(int(atoms), *tail) for atoms in num_atoms] if known.level == "atom" else [tail] * count


def _put_matrices(writer: Writer, column: Column) -> None:
    """Append square matrices; of a symmetric one the upper triangle."""
    start = 0
    for rows, _ in column.shapes:
        matrix = column.values[start : start + rows * rows].reshape(rows, rows)
        start += rows * rows
        symmetric = _same_bits(matrix, matrix.T)
        writer.byte(symmetric)
        put_floats(writer, matrix[np.triu_indices(rows)] if symmetric else matrix)


def _take_matrices(reader: Reader, shapes: list[tuple[int, ...]]) -> np.ndarray:
    found = []
    for rows, _ in shapes:
        if not reader.byte():
            found.append(take_floats(reader, rows * rows))
            continue
        matrix = np.empty((rows, rows))
        upper = np.triu_indices(rows)
        matrix[upper] = matrix.T[upper] = take_floats(reader, rows * (rows + 1) // 2)
        found.append(matrix.ravel())
    return np.concatenate(found) if found else np.zeros(0)


def _same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether numbers agree to the last bit, the sign of zero too."""
    return bool((np.ascontiguousarray(a).view(np.int64) == np.ascontiguousarray(b).view(np.int64)).all())
