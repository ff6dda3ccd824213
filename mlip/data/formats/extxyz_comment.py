"""The second line of an extxyz frame: ``key=value`` pairs and what they mean."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
from ase.io.extxyz import key_val_str_to_dict

MATRIX_KEYS = frozenset({"Lattice", "virial", "stress"})
"""Keys whose nine numbers are a matrix, column by column."""

_TEXT_KEYS = frozenset({"uid"})
_BOOLS = {"T": True, "true": True, "True": True, "TRUE": True, "F": False, "false": False, "False": False}
_BOOLS["FALSE"] = False
_NUMBER_STARTS = frozenset("0123456789+-.nNiI")
_JSON = "_JSON "

# A key alone, key=value or key="value", each up to white space; the last group catches whatever is none of these.
_ITEM = re.compile(r"""([^\s="'{}\[\]\\]+)(?:=(?:"([^"\\]+)"|([^\s="'{}\[\]\\]+)))?(?=\s|$)|(\S)""")
_WORD = re.compile(r"[^\s,]+")


def parse_comment(line: str) -> dict[str, Any]:
    """Return the entries of a comment line as ASE's reader understands them.

    The plain forms are read here; a line with brackets, escapes or single quotes goes to ASE's own parser, which
    walks through it character by character.

    Returns:
        Numbers (int, float), bools, texts, (n,) arrays, 3×3 arrays of `MATRIX_KEYS`, lists of bools, JSON values.

    Raises:
        ValueError: a matrix without nine numbers, broken JSON, or a key that is there twice with different values.
    """
    items = _ITEM.findall(line)
    entries: dict[str, Any] = {}
    texts: dict[str, str] = {}
    for key, quoted, plain, other in items:
        text = quoted or plain
        if other or (not text and (key in MATRIX_KEYS or key.lower() in _TEXT_KEYS)):
            return key_val_str_to_dict(line)
        if key in texts and texts[key] != text:
            raise ValueError(f"the key {key} is there twice, as {texts[key] or 'T'} and {text or 'T'}")
        texts[key] = text
        value = _value(key, text) if text else True
        if value is None:
            return key_val_str_to_dict(line)
        entries[key] = value
    return entries


def _value(key: str, text: str) -> Any:
    """Return the value that a text stands for, None if it is an odd one."""
    if key.lower() in _TEXT_KEYS:
        return text
    if text[0] not in _NUMBER_STARTS and text.isalnum() and text.isascii() and key not in MATRIX_KEYS:
        # A single word, the most common value, is no number, list or JSON.
        return _BOOLS.get(text, text)
    words = _WORD.findall(text) if "," in text else text.split()
    if not words:
        return None
    value: Any = _numbers(words) if words[0][0] in _NUMBER_STARTS or not words[0].isascii() else None
    if key in MATRIX_KEYS:
        if not isinstance(value, np.ndarray) or value.shape != (9,):
            raise ValueError(f"{key} must be nine numbers, got '{text}'")
        return value.reshape(3, 3).T
    if value is not None:
        return value
    if words[0] in _BOOLS and all(word in _BOOLS for word in words):
        return _BOOLS[words[0]] if len(words) == 1 else [_BOOLS[word] for word in words]
    if text.startswith(_JSON):
        document = json.loads(text.replace(_JSON, "", 1))
        array = np.array(document)
        return array if array.dtype.kind in "ifb" else document
    return text


def _numbers(words: list[str]) -> int | float | np.ndarray | None:
    """Return integers if all words are, else floats if all are, else None."""
    try:
        if len(words) == 1:
            return _number(words[0])
        # A point in the first word spares the attempt with integers, which costs more than the numbers.
        if "." not in words[0]:
            try:
                return np.array(list(map(int, words)), dtype=np.int64)
            except (ValueError, OverflowError):
                pass
        return np.array(list(map(float, words)))
    except ValueError:
        return None


def _number(word: str) -> int | float:
    if "." not in word:
        try:
            number = int(word)
        except ValueError:
            pass
        else:
            return number if -(2**63) <= number < 2**63 else float(word)
    return float(word)
