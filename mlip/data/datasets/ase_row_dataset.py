"""From rows of ASE databases to samples: the part that the generic reader, OMol25 and OMat24 share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from ase import Atoms

from mlip.core.errors import DataError
from mlip.data.datasets.base import CHUNK_SAMPLES, Chunk, Dataset
from mlip.data.datasets.extxyz import is_isolated_atom
from mlip.data.formats.ase_rows import AseRows
from mlip.data.formats.ase_rows_metadata import RowMetadata
from mlip.data.formats.frame import Frame
from mlip.data.labels import CANDIDATES, LabelReader, merge_keys
from mlip.data.sample import Sample

RESULTS = ("energy", "free_energy", "forces", "stress", "magmoms", "magmom", "charges", "dipole")
"""What a row holds as results of a calculator."""

PLACES = ("key_value_pairs", "data")
"""Other places of a row; ``data.KEY`` names what stands there where a key alone is not clear."""

LOOKED_AT = 100
"""Rows that are looked at, at most, to find out which keys hold the labels."""


@dataclass
class RowSamples:
    """Samples out of rows, for one choice of keys and units.

    The keys that hold the labels must be the same in all rows as in the first ones, so that levels of theory do not
    mix.

    Args:
        rows: of the databases.
        labels: finds and checks the labels.
        group_key: key whose value becomes ``info["group"]``; every row must have it.
        info_keys: further keys that are copied to ``info`` where a row has them.
        isolated_atoms: whether a single atom without periodic axes is there for its energy.
        include_isolated_atoms: whether it is a sample, too.

    Raises:
        DataError: there are no rows, or the first ones lack a required label or have it twice.
    """

    rows: AseRows
    labels: LabelReader
    group_key: str | None = None
    info_keys: Sequence[str] = ()
    isolated_atoms: bool = False
    include_isolated_atoms: bool = False

    def __post_init__(self) -> None:
        if not len(self.rows):
            raise DataError(f"'{self.rows.files[0]}' has no rows.")
        self._keys = {label: (key, "the first rows") for label, key in self._first_keys().items()}

    def label_keys(self) -> dict[str, tuple[str, str]]:
        """Return ``{label: (key, where it was first met)}``, see `Dataset.label_keys`."""
        return dict(self._keys)

    def _first_keys(self) -> dict[str, str]:
        """Return the key of every label that the first rows have."""
        wanted = (*self.labels.required, *self.labels.optional)
        probe = replace(self.labels, optional=wanted)
        found: dict[str, str] = {}
        damage: DataError | None = None
        example: tuple[Frame, str] | None = None
        for index in range(min(len(self.rows), LOOKED_AT)):
            where = self.rows.source(index)
            try:
                frame = self._frame(self.rows.row(index), where)
                found = {**probe.read(frame, where, ())["keys"], **found}
                if example is None and not self._is_isolated(frame, where):
                    example = (frame, where)
            except DataError as error:
                damage = damage or error
            if all(label in found for label in wanted):
                break
        if any(label not in found for label in self.labels.required):
            if example is not None:
                self.labels.read(*example)
            elif damage is not None:
                raise damage
        return found

    def samples(self, index: int) -> Iterator[Sample]:
        """Yield the sample of a row; an isolated atom that is kept comes once as such and once as a sample.

        Raises:
            DataError: the row is damaged, lacks something that it must have, or has values that cannot be right.
        """
        where = self.rows.source(index)
        row = self.rows.row(index)
        frame = self._frame(row, where)
        alone = self._is_isolated(frame, where)
        read = self.labels.read(frame, where, ("energy",) if alone else None)
        merge_keys(self._keys, {label: (key, where) for label, key in read["keys"].items()})
        labels = read["values"]
        if "charge" in labels and "spin" in labels:
            _check_electrons(int(labels["charge"]), int(labels["spin"]), row["numbers"], where)
        atoms = Atoms(row["numbers"], positions=row["positions"], cell=row["cell"], pbc=row["pbc"])
        info = self._info(row, where, alone)
        if alone:
            yield Sample(atoms, labels, info, isolated=True)
        if not alone or self.include_isolated_atoms:
            yield Sample(atoms.copy() if alone else atoms, labels, info)

    def _frame(self, row: Mapping[str, Any], where: str) -> Frame:
        """Return a row as the label reader takes it: results apart, all else in ``info``."""
        results = {name: row[name] for name in RESULTS if name in row}
        info = {key: value for place in reversed(PLACES) for key, value in row[place].items()}
        for label in (*self.labels.required, *self.labels.optional):
            named = self.labels.keys.get(label)
            if named is None:
                _check_same_value(label, results, row, where)
            elif named not in results and named not in info:
                place, _, key = named.partition(".")
                if place in PLACES and key in row[place]:
                    info[named] = row[place][key]
        if np.ndim(results.get("magmoms", 0.0)) == 2 and "magmoms" in (*self.labels.required, *self.labels.optional):
            raise DataError(
                f"{where}: the magnetic moments are vectors (non-collinear), which are not read. Take magmoms out of "
                "labels and optional_labels."
            )
        self.labels.units.check_hints(info, where)
        arrays = {"tags": row["tags"]} if "tags" in row else {}
        return Frame(row["numbers"], row["positions"], row["cell"], row["pbc"], info, arrays, results, row.get("fixed"))

    def _is_isolated(self, frame: Frame, where: str) -> bool:
        return self.isolated_atoms and is_isolated_atom(frame, where)

    def _info(self, row: Mapping[str, Any], where: str, alone: bool) -> dict[str, Any]:
        info: dict[str, Any] = {"source": where, "id": int(row["id"])}
        for key in ("config_type", *self.info_keys):
            value = _lookup(key, row)
            if value is not None:
                info[key] = str(value) if key == "config_type" else _plain(value)
        if self.group_key is not None:
            group = _lookup(self.group_key, row)
            if group is None and not alone:
                raise DataError(f"{where}: no '{self.group_key}', which group_key names. {_keys_there(row)}")
            info |= {} if group is None else {"group": str(group)}
        elif "trajectory" in row:
            info["group"] = row["trajectory"]
        return info

    def chunks(self) -> Iterator[Chunk]:
        """Cut the files into runs of rows."""
        for number, (file, start, stop) in enumerate(self.rows.spans()):
            part = file / "data.mdb" if file.is_dir() else file
            row_bytes = part.stat().st_size / max(stop - start, 1)
            for first in range(start, stop, CHUNK_SAMPLES):
                last = min(first + CHUNK_SAMPLES, stop)
                key = f"{number}:{file.name}:{first - start}-{last - start - 1}"
                known = None if self.include_isolated_atoms else last - first
                yield Chunk(key, (first, last), known, max(int(row_bytes * (last - first)), 1))

    def read(self, chunk: Chunk) -> Iterator[Sample | DataError]:
        """Read the samples of a chunk, a damaged one as its `DataError`."""
        for index in range(*chunk.location):
            try:
                yield from self.samples(index)
            except DataError as error:
                yield error


class AseRowDataset(Dataset):
    """Rows of ASE databases as a data set with random access; subclasses say which labels these have.

    Args:
        samples: of the rows.

    Raises:
        DataError: metadata that belong to other rows. When a sample is read: see `RowSamples.samples`.
    """

    def __init__(self, samples: RowSamples) -> None:
        self._samples = samples
        self._metadata = RowMetadata(samples.rows)
        self.units = samples.labels.units.as_dict()

    def __len__(self) -> int:
        return len(self._samples.rows)

    def __getitem__(self, index: int) -> Sample:
        sample = next(self._samples.samples(index))
        self._metadata.check_size(index, len(sample.atoms))
        return sample

    def chunks(self) -> Iterator[Chunk]:
        """Cut the files into runs of rows, see `Dataset.chunks`."""
        return self._samples.chunks()

    def fields(self) -> set[str]:
        """Return what every sample has."""
        return set(self.provides)

    def label_keys(self) -> dict[str, tuple[str, str]]:
        """Return the keys that labels were read from, see `Dataset.label_keys`."""
        return self._samples.label_keys()

    def num_atoms(self) -> np.ndarray | None:
        """Return (samples,) atoms out of ``metadata.npz``, None where there is none."""
        return self._metadata.num_atoms()


def _lookup(key: str, row: Mapping[str, Any]) -> Any:
    """Return a value out of key_value_pairs or data, None if there is none."""
    place, _, name = key.partition(".")
    if place in PLACES and name:
        return row[place].get(name)
    return next((row[place][key] for place in PLACES if row[place].get(key) is not None), None)


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _keys_there(row: Mapping[str, Any]) -> str:
    there = sorted({key for place in PLACES for key in row[place]})
    return f"The keys there are: {', '.join(there) or 'none'}."


def _check_same_value(label: str, results: Mapping[str, Any], row: Mapping[str, Any], where: str) -> None:
    """Refuse a label that stands in two places of a row under the same key with different values."""
    for number, place in enumerate(PLACES):
        for key, value in row[place].items():
            if value is None or key.lower() not in CANDIDATES[label]:
                continue
            for before, values in (("the results", results), *((name, row[name]) for name in PLACES[:number])):
                if values.get(key) is not None and not _same(values[key], value):
                    raise DataError(
                        f"{where} has two different values for its {label} '{key}': in {before} and in {place}. Say "
                        f"which one: {label}_key: {key} for the first, {label}_key: {place}.{key} for the other."
                    )


def _same(value: Any, other: Any) -> bool:
    """Whether two labels agree; six Voigt numbers may stand for a matrix."""
    try:
        first, second = (np.asarray(item, dtype=np.float64) for item in (value, other))
    except (TypeError, ValueError):
        return False
    first, second = (
        array.reshape(9)[[0, 4, 8, 5, 2, 1]] if array.shape == (3, 3) else array for array in (first, second)
    )
    return first.size == second.size and np.allclose(first.ravel(), second.ravel(), rtol=1e-6, atol=1e-6)


def _check_electrons(charge: int, spin: int, numbers: np.ndarray, where: str) -> None:
    """Refuse a multiplicity that so many electrons cannot have."""
    electrons = int(numbers.sum()) - charge
    if electrons < 0 or (electrons + spin) % 2 == 0 or spin > electrons + 1:
        raise DataError(
            f"{where}: {electrons} electrons cannot have the multiplicity {spin}. The spin must be 2S + 1, the charge "
            "that of the whole structure."
        )
