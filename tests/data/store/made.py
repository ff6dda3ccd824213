"""Samples and data sets that the tests of the store share."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms

from mlip.core.errors import DataError
from mlip.core.fields import DATA_FIELDS, FIELDS
from mlip.data.datasets.base import Chunk, Dataset
from mlip.data.sample import Sample


def crystal(rng: np.random.Generator, num_atoms: int = 6, **info: Any) -> Sample:
    """Return a periodic structure as VASP's text gives it: decimals everywhere, stress from kbar."""
    cell = np.round(np.diag(rng.uniform(3, 6, 3)) + rng.uniform(-0.5, 0.5, (3, 3)), 8)
    positions = np.round(np.round(rng.uniform(size=(num_atoms, 3)), 8) @ cell, 8)
    stress = np.round(rng.normal(size=(3, 3)) * 50, 8)
    labels = {
        "energy": np.array(np.round(rng.normal() * 50, 8)),
        "forces": np.round(rng.normal(size=(num_atoms, 3)), 8),
        "stress": -(stress + stress.T) / 2 * 0.0006241509125883258,
    }
    return Sample(Atoms(rng.choice([8, 14, 26], num_atoms), positions, cell=cell, pbc=True), labels, info)


def molecule(rng: np.random.Generator, num_atoms: int = 4, orbitals: int = 7, **info: Any) -> Sample:
    """Return a molecule with numbers that are no decimals, and every kind of field that crystals lack."""
    matrix = rng.normal(size=(orbitals, orbitals))
    labels = {
        "energy": np.array(rng.normal() * 1000),
        "forces": rng.normal(size=(num_atoms, 3)),
        "class_scores": rng.normal(size=3),
        "chirality": np.array(-1.0),
        "magmoms": rng.normal(size=num_atoms),
        "hamiltonian": matrix + matrix.T,
        "initial_hamiltonian": matrix,
        "overlap": np.eye(orbitals),
        "relaxed_positions": rng.normal(size=(num_atoms, 3)),
        "charge": np.array(-1),
        "spin": np.array(2),
        "tags": rng.integers(0, 3, num_atoms),
        "fixed": rng.integers(0, 2, num_atoms).astype(bool),
    }
    for name in DATA_FIELDS:
        # Fields that were added since.
        if name not in labels and name != "stress":
            field = FIELDS[name]
            shape = (*((num_atoms,) if field.level == "atom" else ()), *(size or 2 for size in field.shape))
            values = rng.normal(size=shape)
            labels[name] = values if field.kind == "float" else np.asarray(np.rint(values).astype(field.kind))
    return Sample(Atoms(rng.choice([1, 6, 8], num_atoms), rng.normal(size=(num_atoms, 3)) * 3), labels, info)


def assert_same(found: Sample, expected: Sample) -> None:
    """Compare two samples to the last bit, types and the order of provenance included."""
    for name in ("numbers", "positions", "pbc"):
        assert getattr(found.atoms, name).tobytes() == getattr(expected.atoms, name).tobytes(), name
    assert found.atoms.cell.array.tobytes() == expected.atoms.cell.array.tobytes()
    assert set(found.labels) == set(expected.labels)
    for name, value in expected.labels.items():
        kind = {"float": np.float64, "int": np.int64, "bool": np.bool_}[FIELDS[name].kind]
        assert found.labels[name].dtype == kind, name
        assert found.labels[name].shape == value.shape, name
        assert found.labels[name].tobytes() == np.asarray(value, dtype=kind).tobytes(), name
    assert list(found.info.items()) == list(expected.info.items())


@dataclass
class ListDataset(Dataset):
    """Samples, or errors in their place, that are known beforehand."""

    items: list[Sample | DataError]
    chunk_samples: int = 4
    provides: tuple[str, ...] = ("energy", "forces")
    units: dict[str, str] = dataclasses.field(default_factory=lambda: {"energy": "eV"})
    licence: str = "CC0-1.0"
    citation: str = "nobody"
    level_of_theory: dict[str, str] = dataclasses.field(default_factory=dict)
    name: str = "list"

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Sample:
        return self.items[index]

    def chunks(self) -> Iterator[Chunk]:
        # More samples than there are, so that every chunk gets a shard of its own.
        for start in range(0, len(self.items), self.chunk_samples):
            yield Chunk(f"{self.name}:{start}", (start, start + self.chunk_samples), 2000, 100)

    def read(self, chunk: Chunk) -> Iterator[Sample | DataError]:
        yield from self.items[slice(*chunk.location)]


def samples(count: int, seed: int = 0) -> list[Sample]:
    """Return crystals and molecules with provenance."""
    rng = np.random.default_rng(seed)
    return [(molecule if k % 3 == 2 else crystal)(rng, source=f"a.xyz:{k}", group=f"mp-{k // 2}") for k in range(count)]
