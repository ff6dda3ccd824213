"""A run of samples as stacked arrays: what a block packs and statistics are taken from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from ase import Atoms

from mlip.core.errors import DataError
from mlip.core.fields import DATA_FIELDS, FIELDS
from mlip.data.sample import Sample

_KINDS = {"float": np.float64, "int": np.int64, "bool": np.bool_}


@dataclass
class Column:
    """One field of a run of samples.

    Attributes:
        present: (samples,) bool: who has it.
        shapes: of the values that are there, one a sample that has it.
        values: all of them, flat, one after the other; float64, int64 or bool.
    """

    present: np.ndarray
    shapes: list[tuple[int, ...]]
    values: np.ndarray

    @property
    def sizes(self) -> np.ndarray:
        """Numbers of each sample; 0 for one that lacks the field."""
        sizes = np.zeros(len(self.present), dtype=np.int64)
        sizes[self.present] = [prod(shape) for shape in self.shapes]
        return sizes


@dataclass
class Columns:
    """Some samples, stacked.

    Attributes:
        num_atoms: (samples,) int64.
        numbers: (atoms,) int64.
        positions: (atoms, 3) Å.
        cells: (samples, 3, 3) Å.
        pbc: (samples, 3) bool.
        infos: one dictionary a sample.
        labels: `Column` by name of the field.
    """

    num_atoms: np.ndarray
    numbers: np.ndarray
    positions: np.ndarray
    cells: np.ndarray
    pbc: np.ndarray
    infos: list[dict[str, Any]]
    labels: dict[str, Column] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.num_atoms)


def stack(samples: Sequence[Sample]) -> Columns:
    """Stack samples that `check_sample` has passed."""
    names = [name for name in DATA_FIELDS if any(name in sample.labels for sample in samples)]
    return Columns(
        num_atoms=np.array([len(sample.atoms) for sample in samples], dtype=np.int64),
        numbers=np.concatenate([sample.atoms.numbers for sample in samples]).astype(np.int64),
        positions=np.concatenate([sample.atoms.positions for sample in samples]),
        cells=np.stack([sample.atoms.cell.array for sample in samples]),
        pbc=np.stack([sample.atoms.pbc for sample in samples]),
        infos=[sample.info for sample in samples],
        labels={name: _stack_field(name, samples) for name in names},
    )


def _stack_field(name: str, samples: Sequence[Sample]) -> Column:
    values = [np.asarray(sample.labels[name]) for sample in samples if name in sample.labels]
    return Column(
        present=np.array([name in sample.labels for sample in samples]),
        shapes=[value.shape for value in values],
        values=np.concatenate([value.ravel() for value in values]).astype(_KINDS[FIELDS[name].kind]),
    )


class Unstacked(Sequence[Sample]):
    """The samples of some columns, made when they are asked for."""

    def __init__(self, columns: Columns) -> None:
        self.columns = columns
        self._starts = np.concatenate([[0], np.cumsum(columns.num_atoms)])
        self._offsets = {name: np.concatenate([[0], np.cumsum(c.sizes)]) for name, c in columns.labels.items()}

    def __len__(self) -> int:
        return len(self.columns)

    @property
    def num_numbers(self) -> int:
        """Numbers in all labels."""
        return sum(column.values.size for column in self.columns.labels.values())

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        columns = self.columns
        index = range(len(columns))[index]
        atoms = slice(self._starts[index], self._starts[index + 1])
        labels = {}
        for name, column in columns.labels.items():
            if column.present[index]:
                start, stop = self._offsets[name][index : index + 2]
                shape = column.shapes[int(np.count_nonzero(column.present[:index]))]
                labels[name] = column.values[start:stop].reshape(shape).copy()
        structure = Atoms(
            columns.numbers[atoms], columns.positions[atoms], cell=columns.cells[index], pbc=columns.pbc[index]
        )
        return Sample(structure, labels, json.loads(json.dumps(columns.infos[index])))


def check_sample(sample: Sample) -> None:
    """Refuse a sample that no data set should hand out.

    Raises:
        DataError: no atoms, an unknown element, numbers that are not finite, an unknown field or one of a wrong
            shape or kind, provenance that is not JSON; names the sample.
    """
    atoms, where = sample.atoms, sample.source
    if len(atoms) == 0:
        raise DataError(f"{where}: a structure needs at least one atom, this one has none.")
    if atoms.numbers.min() < 1 or atoms.numbers.max() > 118:
        raise DataError(f"{where}: atomic numbers must be 1 to 118, got {sorted(set(atoms.numbers.tolist()))}.")
    if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
        raise DataError(f"{where}: positions and cell must be finite (NaN or inf). Remove or repair the structure.")
    for name, value in sample.labels.items():
        _check_label(name, np.asarray(value), len(atoms), where)
    try:
        plain = json.loads(json.dumps(sample.info, allow_nan=False)) == sample.info
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: the provenance of a structure must be plain JSON values ({error}).") from error
    if not plain:
        raise DataError(
            f"{where}: the provenance of a structure must be plain JSON values, with texts as keys and lists in place "
            f"of tuples, got {sample.info}."
        )


def _check_label(name: str, value: np.ndarray, num_atoms: int, where: str) -> None:
    if name not in DATA_FIELDS:
        raise DataError(f"{where}: '{name}' is no field of a data set; there are {', '.join(DATA_FIELDS)}.")
    known = FIELDS[name]
    if known.level == "orbital_pair":
        fits = value.ndim == 2 and value.shape[0] == value.shape[1] > 0
    elif known.level == "atom":
        fits = value.shape[:1] == (num_atoms,) and known.fits(value.shape[1:])
    else:
        fits = known.fits(value.shape)
    if not fits:
        raise DataError(f"{where}: the {name} of {num_atoms} atoms cannot have the shape {value.shape}.")
    kinds = {"float": "f", "int": "iu", "bool": "b"}[known.kind]
    if value.dtype.kind not in kinds or not np.can_cast(value.dtype, _KINDS[known.kind]):
        raise DataError(f"{where}: the {name} must be of kind {known.kind}, got {value.dtype}.")
    if not np.isfinite(value).all():
        raise DataError(f"{where}: the {name} is not finite (NaN or inf). Remove or repair the structure.")
