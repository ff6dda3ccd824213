"""The ``.npz`` files of MD17 and rMD17: one molecule, many frames; nothing in them is unpickled."""

from __future__ import annotations

import tokenize
from functools import cached_property
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from mlip.core.errors import DataError, did_you_mean
from mlip.data.formats.bounded import ZipArchive

LAYOUTS = {
    "rMD17": {"numbers": "nuclear_charges", "positions": "coords", "energies": "energies", "forces": "forces"},
    "MD17": {"numbers": "z", "positions": "R", "energies": "E", "forces": "F"},
}
"""Names of the arrays in the files of each data set. rMD17's ``old_energies`` and ``old_forces`` are MD17's."""

LARGEST = 4 * 10**9
"""Bytes of one array above which a file is refused; the largest published one has 0.3 GB."""

_HEAD = 2**14
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
# What numpy raises on a header that is none; it also tries to mend it with a tokenizer.
_DAMAGE = (ValueError, EOFError, MemoryError, RecursionError, TypeError, KeyError, SyntaxError, tokenize.TokenError)


class NpzFrames:
    """Frames of one molecule in an npz file; arrays are read when they are first needed.

    Args:
        path: of the file.

    Raises:
        DataError: no such file, no archive of arrays, or arrays that are missing or do not fit together.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._archive = ZipArchive(path)
        try:
            self._look()
        finally:
            self._archive.close()

    def _look(self) -> None:
        """Find the arrays and their shapes."""
        path = self.path
        self._sizes = {member.name: member.size for member in self._archive.members}
        keys = [name.removesuffix(".npy") for name in self._sizes]
        self.layout = "MD17" if "R" in keys else "rMD17"
        names = dict(LAYOUTS[self.layout])
        if "z" not in keys and "nuclear_charges" in keys:
            names["numbers"] = "nuclear_charges"
        for key in names.values():
            if key not in keys:
                raise DataError(
                    f"'{path}' has no array '{key}', so it is no file of MD17 or rMD17.{did_you_mean(key, keys)} "
                    f"There: {', '.join(sorted(keys)) or 'none'}."
                )
        self._keys = names
        self._check_shapes()

    def __getstate__(self) -> dict[str, Any]:
        # Arrays are read again in a process that needs them.
        return {name: value for name, value in self.__dict__.items() if name != "arrays"}

    def __len__(self) -> int:
        return self._num_frames

    @property
    def num_atoms(self) -> int:
        """Atoms of the molecule."""
        return self._num_atoms

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """``numbers`` (atoms,), ``positions`` (frames, atoms, 3), ``energies`` (frames,), ``forces``, as stored.

        Raises:
            DataError: the file is damaged.
        """
        try:
            found = {name: self._read(key) for name, key in self._keys.items()}
        finally:
            self._archive.close()
        numbers = found["numbers"]
        if numbers.min() < 1 or numbers.max() >= len(chemical_symbols):
            raise DataError(f"'{self.path}': '{self._keys['numbers']}' must hold atomic numbers, got {numbers}.")
        found["energies"] = found["energies"].reshape(-1)
        return found

    def _check_shapes(self) -> None:
        """Compare the shapes that the headers state with each other and with the bytes that are there."""
        heads = {name: self._header(key) for name, key in self._keys.items()}
        shapes = {name: shape for name, (shape, _) in heads.items()}
        frames, atoms = shapes["energies"][:1], shapes["numbers"]
        if len(atoms) != 1 or not frames or 0 in (*atoms, *frames):
            raise DataError(f"'{self.path}' must hold the atomic numbers of one molecule and its frames, got {shapes}.")
        good = shapes["energies"] in (frames, (*frames, 1))
        for name in ("positions", "forces"):
            good = good and shapes[name] == (*frames, *atoms, 3)
        kinds = {name: dtype.kind for name, (_, dtype) in heads.items()}
        if not good or kinds.pop("numbers") not in "iu" or set(kinds.values()) != {"f"}:
            stated = ", ".join(f"{self._keys[name]} {shape} {dtype}" for name, (shape, dtype) in heads.items())
            raise DataError(
                f"'{self.path}' must hold n atomic numbers, F energies, and F x n x 3 positions and forces, "
                f"got {stated}."
            )
        self._num_frames, self._num_atoms = frames[0], atoms[0]

    def _header(self, key: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Return the shape and type of an array, checked against its size."""
        name = f"{key}.npy"
        with self._archive.open_binary(name) as stream:
            head = BytesIO(stream.read(_HEAD))
        try:
            shape, _, dtype = _HEADERS[np.lib.format.read_magic(head)](head)
        except _DAMAGE as error:
            raise self._damaged(key, error) from error
        if dtype.hasobject:
            raise DataError(f"'{self.path}': the array '{key}' holds Python objects, which are not read.")
        stated = head.tell() + prod(shape) * dtype.itemsize
        if stated != self._sizes[name] or stated > LARGEST:
            raise DataError(
                f"'{self.path}': the array '{key}' states {stated} bytes and has {self._sizes[name]}; at most "
                f"{LARGEST} are read. Copy or download the file again."
            )
        return shape, dtype

    def _read(self, key: str) -> np.ndarray:
        with self._archive.open_binary(f"{key}.npy") as stream:
            try:
                array = np.lib.format.read_array(stream, allow_pickle=False)
                stream.read()  # The checksum is compared at the end.
            except _DAMAGE as error:
                raise self._damaged(key, error) from error
        return array

    def _damaged(self, key: str, error: BaseException) -> DataError:
        reason = " ".join(str(error).split())
        return DataError(f"'{self.path}': the array '{key}' is damaged ({reason}). Copy or download the file again.")
