"""Run all checks on a model, in the order in which a table shows them."""

from __future__ import annotations

from collections.abc import Iterator

from ase import Atoms

from mlip.models.base import AtomisticModel
from mlip.testing import field_checks, suite
from mlip.testing.measurement import Measurement
from mlip.testing.structures import molecule, rattled, standard_structures


def examine(model: AtomisticModel, structure: Atoms | None = None, seed: int = 0) -> Iterator[Measurement]:
    """Yield every measurement, one after the other as they are done.

    Args:
        model: in any dtype; derivatives and symmetries are checked on a copy in float64.
        structure: the user's own. It is rattled by 0.05 Å, because the forces of a perfect crystal are zero
            by symmetry and errors relative to them would mean nothing.
        seed: of the generated structures.
    """
    exact = suite.double(model)
    generated = standard_structures(model.elements, seed)
    own = {} if structure is None else {"your structure": rattled(structure)}
    structures = {**generated, **own}
    if "energy" in model.fields:
        for name, atoms in structures.items():
            yield from suite.equivariance_rows(exact, name, atoms)
            yield from suite.symmetry_rows(exact, name, atoms)
            yield from suite.derivative_rows(exact, name, atoms)
            yield from suite.precision_rows(model, name, atoms)
        yield from suite.cutoff_rows(exact)
        yield from suite.edge_case_rows(exact, structures)
    if field_checks.checked_fields(model):
        for name, atoms in structures.items():
            yield from field_checks.field_rows(exact, name, atoms)
        yield from field_checks.field_case_rows(exact, structures)


def aliasing(model: AtomisticModel, structure: Atoms | None = None, seed: int = 0) -> dict[str, float]:
    """Return the equivariance error of the forces over their RMS by grid of the mixers; empty if exact."""
    atoms = molecule(model.elements, seed) if structure is None else rattled(structure)
    return suite.resolution_errors(suite.double(model), atoms)
