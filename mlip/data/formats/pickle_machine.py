"""A pickle interpreter that runs no code: it knows a short list of names and makes plain values of them.

The standard ``pickle.Unpickler``, even with a ``find_class`` of one's own, can be crashed by a file: ten bytes make it
ask for gigabytes (the index of a memo), and a tuple nested a million times as a dictionary key overflows the C stack.
Here nothing is allocated that the file does not itself hold, and keys are flat.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any

from mlip.core.errors import DataError
from mlip.data.formats.pickle_values import Global, Instance, checked_key

MAX_STEPS = 50_000_000
"""Instructions of one pickle; each makes at most one small object, so memory stays below some gigabytes."""

MAX_INTEGER_BYTES = 64
"""Bytes of one integer: conversion of longer ones to text takes quadratic time."""

_MARK = object()


class Machine:
    """Interprets one pickle.

    Args:
        data: bytes that begin with the pickle.
        start: where it begins.
        find: maps (module, name) to a `Global` or a value; raises `DataError` for what is not allowed.
        load_persistent: makes a value of a persistent id (torch storages); None where there may be none.

    Attributes:
        position: behind the pickle, after `run`.
    """

    def __init__(
        self,
        data: bytes,
        start: int,
        find: Callable[[str, str], Any],
        load_persistent: Callable[[Any], Any] | None = None,
    ) -> None:
        self.data = data
        self.position = start
        self._find = find
        self._load_persistent = load_persistent
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        """Return the value of the pickle.

        Raises:
            DataError: a name or an instruction that is not allowed; an impossible one.
            IndexError, KeyError, ValueError, TypeError, struct.error: damaged data.
        """
        steps = 0
        while True:
            code = self.data[self.position]
            self.position += 1
            if code == _STOP:
                if len(self._stack) != 1 or self._stack[0] is _MARK:
                    raise ValueError("values are left over at the end")
                return self._stack[0]
            step = _STEPS.get(code)
            if step is None:
                raise DataError(f"the instruction {bytes([code])!r} is not used by data files")
            step(self)
            steps += 1
            if steps > MAX_STEPS:
                raise DataError(f"more than {MAX_STEPS} instructions")

    # Reading.

    def _take(self, size: int) -> bytes:
        end = self.position + size
        if size < 0 or end > len(self.data):
            raise IndexError("truncated")
        piece = self.data[self.position : end]
        self.position = end
        return piece

    def _byte(self) -> int:
        byte = self.data[self.position]
        self.position += 1
        return byte

    def _number(self, form: struct.Struct) -> int:
        if self.position + form.size > len(self.data):
            raise IndexError("truncated")
        (number,) = form.unpack_from(self.data, self.position)
        self.position += form.size
        return int(number)

    def _line(self) -> bytes:
        end = self.data.index(b"\n", self.position)
        line = self.data[self.position : end]
        self.position = end + 1
        return line

    # The stack.

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _pop(self) -> Any:
        value = self._stack.pop()
        if value is _MARK:
            raise ValueError("a mark where a value should be")
        return value

    def _top(self, kind: type) -> Any:
        if not isinstance(self._stack[-1], kind):
            raise TypeError(f"a {kind.__name__} was expected")
        return self._stack[-1]

    def _since_mark(self) -> list[Any]:
        stack = self._stack
        index = len(stack) - 1
        while stack[index] is not _MARK:
            index -= 1
            if index < 0:
                raise ValueError("no mark")
        items = stack[index + 1 :]
        del stack[index:]
        return items

    # Instructions with names in them.

    def _global(self) -> None:
        self._push(self._found_by_lines())

    def _found_by_lines(self) -> Any:
        module, name = self._line(), self._line()
        return self._find(module.decode("utf-8"), name.decode("utf-8"))

    def _stack_global(self) -> None:
        name, module = self._pop(), self._pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise TypeError("names must be text")
        self._push(self._find(module, name))

    def _inst(self) -> None:
        found = self._found_by_lines()
        self._push(_call(found, tuple(self._since_mark())))

    def _obj(self) -> None:
        found, *arguments = self._since_mark()
        self._push(_call(found, tuple(arguments)))

    def _reduce(self) -> None:
        arguments, found = self._pop(), self._pop()
        self._push(_call(found, arguments))

    def _newobj_ex(self) -> None:
        named, arguments, found = self._pop(), self._pop(), self._pop()
        if named:
            raise DataError("an object is made with named arguments")
        self._push(_call(found, arguments))

    def _persistent(self) -> None:
        identity = self._pop()
        if self._load_persistent is None:
            raise DataError("it refers to data outside itself")
        self._push(self._load_persistent(identity))

    def _build(self) -> None:
        state = self._pop()
        target = self._stack[-1]
        if isinstance(target, Instance):
            target.set_state(state)
        elif not isinstance(target, dict):  # An OrderedDict may carry attributes, which say nothing about data.
            raise TypeError("only objects have a state")

    # Containers.

    def _append(self) -> None:
        value = self._pop()
        self._top(list).append(value)

    def _appends(self) -> None:
        items = self._since_mark()
        self._top(list).extend(items)

    def _setitem(self) -> None:
        value, key = self._pop(), self._pop()
        self._top(dict)[checked_key(key)] = value

    def _setitems(self) -> None:
        items = self._since_mark()
        target = self._top(dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[checked_key(key)] = value

    def _dict(self) -> None:
        items = self._since_mark()
        self._push({checked_key(key): value for key, value in zip(items[::2], items[1::2], strict=True)})

    def _additems(self) -> None:
        items = self._since_mark()
        self._top(set).update(map(checked_key, items))

    def _tuple(self, size: int) -> None:
        items = [self._pop() for _ in range(size)]
        self._push(tuple(reversed(items)))

    # Scalars and memo.

    def _integer_line(self) -> None:
        text = self._line()
        if len(text) > 3 * MAX_INTEGER_BYTES:
            raise DataError("an integer of absurd length")
        self._push(text == b"01" if text in (b"00", b"01") else int(text.rstrip(b"L")))

    def _long(self, size: int) -> None:
        if not 0 <= size <= MAX_INTEGER_BYTES:
            raise DataError("an integer of absurd length")
        self._push(int.from_bytes(self._take(size), "little", signed=True))

    def _text(self, size: int) -> None:
        self._push(self._take(size).decode("utf-8", "surrogatepass"))

    def _put(self, index: int) -> None:
        if self._stack[-1] is _MARK:
            raise ValueError("a mark cannot be kept")
        self._memo[index] = self._stack[-1]


def _call(found: Any, arguments: Any) -> Any:
    if not isinstance(found, Global) or found.make is None or not isinstance(arguments, tuple):
        raise DataError(f"it calls '{getattr(found, 'name', type(found).__name__)}', which may not be called")
    return found.make(arguments)


_STOP = ord(".")
_U2, _U4, _U8 = (struct.Struct(form) for form in ("<H", "<I", "<Q"))
_I4, _F8 = struct.Struct("<i"), struct.Struct(">d")

_NAMED: Mapping[bytes, Callable[[Machine], Any]] = {
    b"\x80": lambda m: m._take(1),
    b"\x95": lambda m: m._take(8),
    b"(": lambda m: m._push(_MARK),
    b"0": lambda m: m._stack.pop(),
    b"1": lambda m: m._since_mark(),
    b"2": lambda m: m._push(m._stack[-1]),
    b"N": lambda m: m._push(None),
    b"\x88": lambda m: m._push(True),
    b"\x89": lambda m: m._push(False),
    b"I": Machine._integer_line,
    b"L": Machine._integer_line,
    b"J": lambda m: m._push(m._number(_I4)),
    b"K": lambda m: m._push(m._byte()),
    b"M": lambda m: m._push(m._number(_U2)),
    b"\x8a": lambda m: m._long(m._byte()),
    b"\x8b": lambda m: m._long(m._number(_I4)),
    b"F": lambda m: m._push(float(m._line())),
    b"G": lambda m: m._push(_F8.unpack(m._take(8))[0]),
    b"V": lambda m: m._push(m._line().decode("raw-unicode-escape")),
    b"X": lambda m: m._text(m._number(_U4)),
    b"\x8c": lambda m: m._text(m._byte()),
    b"\x8d": lambda m: m._text(m._number(_U8)),
    b"T": lambda m: m._push(m._take(m._number(_I4)).decode("latin-1")),
    b"U": lambda m: m._push(m._take(m._byte()).decode("latin-1")),
    b"B": lambda m: m._push(m._take(m._number(_U4))),
    b"C": lambda m: m._push(m._take(m._byte())),
    b"\x8e": lambda m: m._push(m._take(m._number(_U8))),
    b"\x96": lambda m: m._push(m._take(m._number(_U8))),
    b")": lambda m: m._push(()),
    b"\x85": lambda m: m._tuple(1),
    b"\x86": lambda m: m._tuple(2),
    b"\x87": lambda m: m._tuple(3),
    b"t": lambda m: m._push(tuple(m._since_mark())),
    b"]": lambda m: m._push([]),
    b"l": lambda m: m._push(m._since_mark()),
    b"a": Machine._append,
    b"e": Machine._appends,
    b"}": lambda m: m._push({}),
    b"d": Machine._dict,
    b"s": Machine._setitem,
    b"u": Machine._setitems,
    b"\x8f": lambda m: m._push(set()),
    b"\x90": Machine._additems,
    b"\x91": lambda m: m._push(frozenset(map(checked_key, m._since_mark()))),
    b"p": lambda m: m._put(int(m._line()[:20])),
    b"q": lambda m: m._put(m._byte()),
    b"r": lambda m: m._put(m._number(_U4)),
    b"\x94": lambda m: m._put(len(m._memo)),
    b"g": lambda m: m._push(m._memo[int(m._line()[:20])]),
    b"h": lambda m: m._push(m._memo[m._byte()]),
    b"j": lambda m: m._push(m._memo[m._number(_U4)]),
    b"c": Machine._global,
    b"\x93": Machine._stack_global,
    b"i": Machine._inst,
    b"o": Machine._obj,
    b"R": Machine._reduce,
    b"\x81": Machine._reduce,
    b"\x92": Machine._newobj_ex,
    b"Q": Machine._persistent,
    b"b": Machine._build,
}
_STEPS = {code[0]: step for code, step in _NAMED.items()}
