"""The names that a pickle of data may use, and what stands for them: torch, numpy, PyTorch Geometric, collections."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from mlip.core.errors import DataError
from mlip.data.formats.pickle_values import Global, Instance, checked_key

_DTYPE = re.compile(r"b1|[iu][1248]|f[248]|c8|c16|[SU]\d{1,6}|O8?")
MAX_SPREAD = 2**20
"""Elements of a tensor that repeats the elements of a smaller storage (strides of zero)."""

STORAGES = {
    "Float": torch.float32,
    "Double": torch.float64,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "ComplexFloat": torch.complex64,
    "ComplexDouble": torch.complex128,
    "Untyped": torch.uint8,
}
"""Element types by the name of torch's storage class."""


class Dtype(Instance):
    """The type of a numpy array."""

    def __init__(self, arguments: tuple[Any, ...]) -> None:
        text = arguments[0]
        if not isinstance(text, str) or not _DTYPE.fullmatch(text):
            raise DataError(f"a numpy array of type {text!r}, which is not read")
        self._text = text
        self._order = "<"
        self.is_object = text.startswith("O")

    def set_state(self, state: Any) -> None:
        """Take the byte order."""
        if len(state) < 5 or any(part is not None for part in state[2:5]) or state[1] not in ("<", ">", "|", "="):
            raise DataError("a numpy array of a compound type, which is not read")
        self._order = state[1]

    def value(self) -> np.dtype[Any]:
        """The type."""
        return np.dtype(self._order + self._text)


class Array(Instance):
    """A numpy array."""

    def __init__(self, arguments: tuple[Any, ...]) -> None:
        if getattr(arguments[0], "name", None) != "numpy.ndarray":
            raise DataError("an array class other than numpy.ndarray")
        self._state: tuple[Any, ...] | None = None

    def set_state(self, state: Any) -> None:
        """Take (version, shape, type, whether in Fortran order, bytes)."""
        self._state = tuple(state)[-4:]

    def value(self) -> np.ndarray:
        """The array, a copy."""
        if self._state is None:
            raise DataError("an array without content")
        shape, dtype, fortran, raw = self._state
        if isinstance(dtype, Dtype) and dtype.is_object:
            return _objects(raw, shape)
        return _array(raw, dtype, shape, "F" if fortran else "C")


def _objects(items: Any, shape: Any) -> np.ndarray:
    """Return an array of text and numbers, as numpy keeps names of different length; they are always in C order."""
    if not isinstance(items, list) or math.prod(shape) != len(items):
        raise DataError(f"an array of shape {shape} without as many objects")
    plain = [item.value() if isinstance(item, Scalar) else item for item in items]
    for item in plain:
        if not isinstance(item, str | int | float | np.number):
            raise DataError(f"a numpy array of Python objects of type {type(item).__name__}, which is not read")
    array = np.empty(len(plain), dtype=object)
    array[:] = plain
    return array.reshape(shape)


class BufferArray(Instance):
    """A numpy array as protocol 5 writes it."""

    def __init__(self, arguments: tuple[Any, ...]) -> None:
        self._raw, self._dtype, self._shape, self._order = arguments

    def value(self) -> np.ndarray:
        """The array, a copy."""
        return _array(self._raw, self._dtype, self._shape, "F" if self._order == "F" else "C")


class Scalar(Instance):
    """A numpy scalar."""

    def __init__(self, arguments: tuple[Any, ...]) -> None:
        self._dtype, self._raw = arguments

    def value(self) -> Any:
        """The number."""
        return _array(self._raw, self._dtype, (), "C")[()]


def _array(raw: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    """Return a writable array of as many bytes as there are."""
    if isinstance(raw, str):  # Python 2 wrote bytes as text.
        raw = raw.encode("latin-1")
    if not isinstance(raw, bytes) or not isinstance(dtype, Dtype) or dtype.is_object:
        raise DataError("an array that is not made of plain bytes")
    kind = dtype.value()
    if any(type(size) is not int or size < 0 for size in shape) or math.prod(shape) * kind.itemsize != len(raw):
        raise DataError(f"an array of shape {shape} with {len(raw)} bytes")
    if kind == np.bool_ and raw.strip(b"\0\1"):
        raise DataError("truth values that are neither 0 nor 1")
    return np.frombuffer(raw, kind).reshape(shape, order=order).copy(order=order)


class Storage(Instance):
    """Elements of tensors in a row.

    Args:
        dtype: of the elements.
        size: number of elements.
    """

    def __init__(self, dtype: torch.dtype, size: Any) -> None:
        if type(size) is not int or size < 0:
            raise DataError(f"a tensor storage of size {size!r}")
        self.dtype = dtype
        self.size = size
        self.elements: torch.Tensor | None = None

    def fill(self, raw: bytes) -> None:
        """Set the elements, little-endian.

        Raises:
            DataError: not as many as stated.
        """
        if len(raw) != self.size * self.dtype.itemsize:
            raise DataError(f"a tensor storage of {self.size} elements with {len(raw)} bytes")
        if self.dtype == torch.bool and raw.strip(b"\0\1"):
            raise DataError("truth values that are neither 0 nor 1")
        self.elements = torch.frombuffer(bytearray(raw), dtype=self.dtype) if raw else torch.empty(0, dtype=self.dtype)

    def value(self) -> torch.Tensor:
        """The elements."""
        if self.elements is None:
            raise DataError("a tensor storage without content")
        return self.elements


class Tensor(Instance):
    """A view of a storage, as ``torch._utils._rebuild_tensor_v2`` is asked for it."""

    def __init__(self, arguments: tuple[Any, ...]) -> None:
        self._storage, self._offset, self._size, self._stride = arguments[:4]
        if not isinstance(self._storage, Storage):
            raise DataError("a tensor without a storage")

    def value(self) -> torch.Tensor:
        """The tensor, on the CPU, without gradient."""
        elements = self._storage.value()
        numbers = [self._offset, *self._size, *self._stride]
        if len(self._size) != len(self._stride) or any(type(n) is not int or not 0 <= n < 2**62 for n in numbers):
            raise DataError("a tensor of impossible shape")
        count = math.prod(self._size)
        last = self._offset + sum((size - 1) * stride for size, stride in zip(self._size, self._stride, strict=True))
        if count and (last >= len(elements) or count > max(len(elements), MAX_SPREAD)):
            raise DataError(f"a tensor of shape {tuple(self._size)} in a storage of {len(elements)} elements")
        if not count:
            return torch.empty(tuple(self._size), dtype=elements.dtype)
        return elements.as_strided(tuple(self._size), tuple(self._stride), self._offset)


class GraphStore(Instance):
    """The fields of a PyG ``Data`` of version 2; its reference back to the ``Data`` is dropped."""

    def __init__(self, arguments: tuple[Any, ...] = ()) -> None:
        self.fields: dict[Any, Any] = {}

    def set_state(self, state: Any) -> None:
        """Take the fields."""
        if not isinstance(state, dict) or not isinstance(state.get("_mapping"), dict):
            raise DataError("a PyG storage without fields")
        self.fields = state["_mapping"]

    def value(self) -> dict[Any, Any]:
        """Fields that are not None, by name."""
        return {name: field for name, field in self.fields.items() if field is not None}


class Graph(GraphStore):
    """A PyG ``Data``: of version 1 with its fields as attributes, of version 2 with a `GraphStore`."""

    def set_state(self, state: Any) -> None:
        """Take the fields."""
        if not isinstance(state, dict):
            raise DataError("a PyG object without fields")
        store = state.get("_store")
        self.fields = store.fields if isinstance(store, GraphStore) else state


def _encoded(arguments: tuple[Any, ...]) -> bytes:
    text, encoding = arguments
    if encoding not in ("latin1", "latin-1"):
        raise DataError(f"bytes written as {encoding!r}")
    return text.encode("latin-1")


def _bytes(arguments: tuple[Any, ...]) -> bytes:
    if not arguments:
        return b""
    return arguments[0] if type(arguments[0]) is bytes else _encoded(arguments)


def _items(arguments: tuple[Any, ...]) -> list[Any]:
    """Return the items that a container is made of."""
    if len(arguments) > 1 or not all(isinstance(items, list | tuple | set | frozenset) for items in arguments):
        raise DataError("a container that is not made of a list")
    return [item for items in arguments for item in items]


def _dict(arguments: tuple[Any, ...]) -> dict[Any, Any]:
    return {checked_key(key): value for key, value in _items(arguments)}


def _default_dict(arguments: tuple[Any, ...]) -> dict[Any, Any]:
    return _dict(arguments[1:])


def _set(arguments: tuple[Any, ...]) -> set[Any]:
    return set(map(checked_key, _items(arguments)))


def _complex(arguments: tuple[Any, ...]) -> complex:
    real, imaginary = arguments
    return complex(float(real), float(imaginary))


def _size(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(_items(arguments))


_CALLED = {
    "torch._utils._rebuild_tensor": Tensor,
    "torch._utils._rebuild_tensor_v2": Tensor,
    "torch._utils._rebuild_parameter": lambda arguments: arguments[0],
    "torch.Size": _size,
    "torch.device": lambda arguments: str(arguments[0]),
    "numpy.dtype": Dtype,
    "_codecs.encode": _encoded,
    "collections.OrderedDict": _dict,
    "collections.defaultdict": _default_dict,
    "torch_geometric.data.data.Data": Graph,
    "torch_geometric.data.storage.GlobalStorage": GraphStore,
    **{f"{module}.multiarray._reconstruct": Array for module in ("numpy.core", "numpy._core")},
    **{f"{module}.multiarray.scalar": Scalar for module in ("numpy.core", "numpy._core")},
    **{f"{module}.numeric._frombuffer": BufferArray for module in ("numpy.core", "numpy._core")},
    **{
        f"{module}.{name}": make
        for module in ("builtins", "__builtin__")
        for name, make in {"set": _set, "frozenset": _set, "bytearray": _bytes, "bytes": _bytes, "list": _items}.items()
    },
    **{f"{module}.complex": _complex for module in ("builtins", "__builtin__")},
}
_NAMED = (
    "numpy.ndarray",
    "torch_geometric.data.data.DataEdgeAttr",
    "torch_geometric.data.data.DataTensorAttr",
    *(f"{module}.{name}" for module in ("builtins", "__builtin__") for name in ("int", "float", "dict", "str", "bool")),
    *(f"{module}.{name}Storage" for module in ("torch", "torch.storage") for name in STORAGES),
)
NAMES: Mapping[str, Any] = {
    **{name: Global(name) for name in _NAMED},
    **{name: Global(name, make) for name, make in _CALLED.items()},
    **{f"torch.{str(dtype).partition('.')[2]}": dtype for dtype in STORAGES.values()},
}
"""What stands for ``module.name``: a `Global` or a value."""
