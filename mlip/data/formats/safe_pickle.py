"""Read pickles and ``torch.save`` files of strangers: plain values come out, and no code of theirs runs."""

from __future__ import annotations

import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

import torch

from mlip.core.errors import DataError
from mlip.data.formats.pickle_machine import Machine
from mlip.data.formats.pickle_names import NAMES, STORAGES, Storage
from mlip.data.formats.pickle_values import Global, Plain

_MAGIC = 0x1950A86A20F9469CFC6C
"""First number of a ``torch.save`` file of the older kind."""

_PROTOCOL = 1001
_USUAL_START = b"".join(
    pickle.dumps(part, protocol=2)
    for part in (
        _MAGIC,
        _PROTOCOL,
        {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}},
    )
)
"""How such a file begins on all usual machines: a pickled graph has it before every tensor, so it is not parsed."""

_DAMAGE = (
    IndexError,
    KeyError,
    ValueError,
    TypeError,
    AttributeError,
    OverflowError,
    EOFError,
    RuntimeError,  # of torch; RecursionError and NotImplementedError are some, too.
    struct.error,
    zipfile.BadZipFile,
)
_ROOM = 2**20


def loads(data: bytes, where: str) -> Any:
    """Read a pickle of data.

    Allowed are numbers, text, lists, dictionaries, numpy arrays, torch tensors and PyTorch Geometric's ``Data``; none
    of these libraries' classes is called with what the file says. ``Data`` of any version become dictionaries of the
    fields that are not None.

    Args:
        data: the pickle, any protocol.
        where: names it in messages.

    Raises:
        DataError: the pickle is damaged, or names anything else (it is refused before anything of it is run).
    """
    return _guarded(lambda: Plain(8 * len(data) + _ROOM)(Machine(data, 0, _find).run()), where)


def torch_load(path: str | PathLike[str]) -> Any:
    """Read a file of ``torch.save``, of the zip format or the older one; see `loads`. Tensors come on the CPU.

    Raises:
        DataError: no such file, a damaged one, or one that names what is not data.
    """
    path = Path(path)
    try:
        with path.open("rb") as handle:
            if handle.read(2) == b"PK":
                return _guarded(lambda: _read_zip(handle), f"'{path}'")
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"Cannot read '{path}': {error.strerror or error}.") from error
    return _guarded(lambda: Plain(8 * len(data) + _ROOM)(_read_stream(data)), f"'{path}'")


def _guarded(read: Callable[[], Any], where: str) -> Any:
    """Call a reader, with what is wrong said in one sentence."""
    try:
        return read()
    except _Forbidden as error:
        raise DataError(
            f"{where} is a pickle that names '{error}'. Files of data need tensors, arrays and plain containers "
            "only; this one is not trusted, and nothing of it was run."
        ) from error
    except DataError as error:
        raise DataError(f"{where} is not a pickle of data: {error}.") from error
    except _DAMAGE as error:
        raise DataError(
            f"{where} is a damaged pickle ({type(error).__name__}: {error}). Copy or download it again."
        ) from error


class _Forbidden(DataError):
    """A name that is not on the list."""


def _find_in(names: Mapping[str, Any], module: str, name: str) -> Any:
    # The attribute name must be one, or "a.b" + "c" would be the same as "a" + "b.c".
    found = None if "." in name else names.get(f"{module}.{name}")
    if found is None:
        raise _Forbidden(f"{module}.{name}")
    return found


def _find_torch(module: str, name: str) -> Any:
    return _find_in(NAMES, module, name)


def _find(module: str, name: str) -> Any:
    return _find_in(_PLAIN_NAMES, module, name)


def _storage_from_bytes(arguments: tuple[Any, ...]) -> Storage:
    """What stands for ``torch.storage._load_from_bytes``, which is ``torch.load``."""
    (data,) = arguments
    found = _read_stream(data) if isinstance(data, bytes) else None
    if not isinstance(found, Storage):
        raise DataError("a tensor storage that is none")
    return found


_PLAIN_NAMES = {
    **NAMES,
    "torch.storage._load_from_bytes": Global("torch.storage._load_from_bytes", _storage_from_bytes),
}


def _read_stream(data: bytes) -> Any:
    """Read the older format of ``torch.save``: pickles in a row, then the elements of the storages."""
    storages: dict[Any, Storage] = {}

    def persistent(identity: Any) -> Storage:
        kind, storage_type, key, _, size, *view = identity
        if kind != "storage" or any(part is not None for part in view):
            raise DataError("a view of a storage, as very old versions of torch wrote it")
        return storages.setdefault(key, _storage(storage_type, size))

    position = 0

    def next_value(load_persistent: Callable[[Any], Any] | None = None) -> Any:
        nonlocal position
        machine = Machine(data, position, _find_torch, load_persistent)
        value = machine.run()
        position = machine.position
        return value

    if data.startswith(_USUAL_START):
        position = len(_USUAL_START)
    else:
        if next_value() != _MAGIC:
            raise DataError("it does not begin as torch.save begins a file")
        if next_value() != _PROTOCOL or not next_value().get("little_endian"):
            raise DataError("it was written by another version of torch.save, or on a machine of other byte order")
    value = next_value(persistent)
    for key in next_value():
        storage = storages[key]
        (size,) = struct.unpack_from("<q", data, position)
        if size != storage.size:
            raise DataError(f"a tensor storage of {storage.size} elements with {size}")
        position += 8
        end = position + size * storage.dtype.itemsize
        storage.fill(data[position:end])
        position = end
    return value


def _read_zip(handle: BinaryIO) -> Any:
    """Read the zip format of ``torch.save``: a pickle, and one member a storage."""
    with zipfile.ZipFile(handle) as archive:
        members = {info.filename: info for info in archive.infolist()}
        if sum(info.file_size for info in members.values()) > os.fstat(handle.fileno()).st_size:
            raise DataError("its members are larger than the file")
        pickled = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
        folder = pickled[0][: -len("/data.pkl")] if len(pickled) == 1 else ""
        if not folder or f"{folder}/constants.pkl" in members:
            raise DataError("the archive is not one of torch.save")

        def member(name: str) -> bytes:
            # torch.save does not compress, so a member that is compressed could be a bomb.
            if members[f"{folder}/{name}"].compress_type != zipfile.ZIP_STORED:
                raise DataError(f"the member '{name}' is compressed, which torch.save never does")
            return archive.read(members[f"{folder}/{name}"])

        if f"{folder}/byteorder" in members and member("byteorder") != b"little":
            raise DataError("it was written on a machine of other byte order")
        storages: dict[Any, Storage] = {}

        def persistent(identity: Any) -> Storage:
            kind, storage_type, key, _, size = identity
            if kind != "storage" or not isinstance(key, str):
                raise DataError("a reference to something other than a tensor storage")
            if key not in storages:
                storages[key] = _storage(storage_type, size)
                storages[key].fill(member(f"data/{key}"))
            return storages[key]

        data = member("data.pkl")
        return Plain(8 * len(data) + _ROOM)(Machine(data, 0, _find_torch, persistent).run())


def _storage(storage_type: Any, size: Any) -> Storage:
    """Return a storage of the type that a ``torch.FloatStorage`` and the like names."""
    name = storage_type.name.rpartition(".")[2] if isinstance(storage_type, Global) else ""
    dtype = STORAGES.get(name.removesuffix("Storage"))
    if not name.endswith("Storage") or not isinstance(dtype, torch.dtype):
        raise DataError("a tensor storage of unknown type")
    return Storage(dtype, size)
