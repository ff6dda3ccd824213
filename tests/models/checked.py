"""Rows of a contract, and the structures that they are measured on."""

from __future__ import annotations

from collections.abc import Iterable

from ase import Atoms

from mlip.models.base import AtomisticModel
from mlip.testing.measurement import Measurement
from mlip.testing.structures import standard_structures


def check(rows: Iterable[Measurement]) -> None:
    """Fail with every row that is out of its tolerance."""
    wrong = [f"{row.name}: {row.value:.2e} > {row.tolerance:.0e} {row.unit}" for row in rows if not row.passed]
    assert not wrong, "; ".join(wrong)


def structures_of(model: AtomisticModel) -> dict[str, Atoms]:
    """Return the generated structures that a model can treat."""
    structures = standard_structures(model.elements, seed=1)
    return {name: atoms for name, atoms in structures.items() if model.graph_builder.periodic or not atoms.pbc.any()}
