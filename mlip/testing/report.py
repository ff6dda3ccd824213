"""Run all checks on a model, in the order in which a table shows them."""

from __future__ import annotations

from collections.abc import Iterator

from ase import Atoms

from mlip.core.errors import ConfigError
from mlip.core.fields import FIELDS
from mlip.models.base import AtomisticModel
from mlip.testing import field_checks, graph_changes, orbital_checks, suite
from mlip.testing.measurement import Measurement
from mlip.testing.structures import molecule, rattled, standard_structures, within_reach


def examine(model: AtomisticModel, structure: Atoms | None = None, seed: int = 0) -> Iterator[Measurement]:
    """Yield every measurement, one after the other as they are done.

    Args:
        model: in any dtype; derivatives and symmetries are checked on a copy in float64.
        structure: the user's own. It is rattled by 0.05 Å, because the forces of a perfect crystal are zero
            by symmetry and errors relative to them would mean nothing.
        seed: of the generated structures. They are shrunk where the cutoff is shorter than their bonds.

    Raises:
        ConfigError: the model declares no field, or one that the field table does not know.
    """
    unknown = [name for name in model.fields if name not in FIELDS]
    if unknown or not model.fields:
        problem = f"the field '{unknown[0]}', which the field table lacks" if unknown else "no fields"
        raise ConfigError(
            f"{type(model).__name__} cannot be checked: it declares {problem}. Its attribute 'fields' lists what it "
            f"predicts, out of: {', '.join(FIELDS)}."
        )
    exact = suite.double(model)
    matrices = orbital_checks.matrix_fields(model)
    generated = {
        name: within_reach(atoms, model.cutoff)
        for name, atoms in standard_structures(model.elements, seed).items()
        # Matrices over orbitals are those of molecules.
        if not atoms.pbc.any() or (model.graph_builder.periodic and not matrices)
    }
    own = {} if structure is None else {"your structure": rattled(structure)}
    structures = {**generated, **own}
    if "energy" in model.fields:
        for name, atoms in structures.items():
            yield from suite.equivariance_rows(exact, name, atoms)
            yield from suite.symmetry_rows(exact, name, atoms)
            yield from suite.derivative_rows(exact, name, atoms)
            yield from suite.precision_rows(model, name, atoms)
        yield from suite.cutoff_rows(exact)
        yield from graph_changes.change_rows(exact)
        yield from suite.edge_case_rows(exact, structures)
    if matrices:
        for name, atoms in structures.items():
            yield from orbital_checks.matrix_rows(exact, name, atoms)
        yield from orbital_checks.matrix_case_rows(exact, structures)
        yield from orbital_checks.matrix_cutoff_rows(exact)
    if field_checks.checked_fields(model):
        for name, atoms in structures.items():
            yield from field_checks.field_rows(exact, name, atoms)
        yield from field_checks.field_case_rows(exact, structures)
        yield from field_checks.field_cutoff_rows(exact)
        yield from field_checks.signal_rows(exact, generated)


def aliasing(model: AtomisticModel, structure: Atoms | None = None, seed: int = 0) -> dict[str, float]:
    """Return the equivariance error of the forces over their RMS by grid of the mixers; empty if exact."""
    atoms = molecule(model.elements, seed) if structure is None else rattled(structure)
    return suite.resolution_errors(suite.double(model), atoms)
