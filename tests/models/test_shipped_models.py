"""The contract of models, run on every yaml in configs/model as it ships."""

from __future__ import annotations

import pytest
from ase.build import molecule as ase_molecule

from mlip.testing import field_checks, orbital_checks, suite, symmetry
from tests.components import component_names, compose_model, random_model
from tests.models.checked import check, structures_of
from tests.models.hamiltonian_cases import HAMILTONIANS

LARGE = {*HAMILTONIANS, "facet_270k", "mace"}
"""Take more than five seconds at full size; small ones are tested in files of their own."""

SHIPPED = [pytest.param(name, marks=pytest.mark.slow if name in LARGE else ()) for name in component_names("")]


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_configuration(name: str) -> None:
    """The yaml as it ships, at full size: all but the mixer's aliasing, which random weights exaggerate."""
    model = random_model(compose_model(name, *(["+cutoff=15.0"] if name in HAMILTONIANS else [])), size=0.1)
    structures = structures_of(model)
    if orbital_checks.matrix_fields(model):
        check(orbital_checks.matrix_rows(model, "molecule", structures["molecule"]))
        check(orbital_checks.matrix_case_rows(model, {"water": ase_molecule("H2O")}))
        check(orbital_checks.matrix_cutoff_rows(model))
    if field_checks.checked_fields(model):
        for kind in ("molecule", "slab"):
            check(field_checks.field_rows(model, kind, structures[kind]))
        check(field_checks.field_case_rows(model, structures))
        check(field_checks.field_cutoff_rows(model))
        check(field_checks.signal_rows(model, structures))
    if "energy" not in model.fields:
        return
    check(suite.symmetry_rows(model, "crystal", structures["crystal"]))
    check(suite.derivative_rows(model, "slab", structures["slab"]))
    check(suite.precision_rows(model, "molecule", structures["molecule"]))
    errors = symmetry.equivariance_errors(model, structures["molecule"])
    assert errors["forces"] < (suite.EXACT if model.exactly_equivariant else 0.02)
