"""Degrees of freedom under constraints: the rank of what they leave, also where they overlap."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.constraints import (
    ExternalForce,
    FixAtoms,
    FixBondLengths,
    FixCartesian,
    FixCom,
    FixConstraint,
    FixedLine,
    FixedPlane,
    FixScaled,
    FixSubsetCom,
    FixSymmetry,
    Hookean,
)

from mlip.core.errors import SimulationError
from mlip.core.units import KB
from mlip.simulate.constraints import free_directions
from mlip.simulate.ensembles import NVE
from mlip.simulate.md import run_md
from mlip.simulate.velocities import degrees_of_freedom, draw_velocities
from tests.simulate.analytic import einstein_crystal


def held(*constraints: FixConstraint, skewed: bool = False) -> Atoms:
    atoms = bulk("Cu", cubic=not skewed) * (2 if skewed else 1, 2, 1)
    atoms.rattle(0.1, seed=3)
    atoms.set_constraint(list(constraints))
    return atoms


def rank_of_momenta(atoms: Atoms) -> int:
    """Which momenta does ASE let through?"""
    rows = []
    for place in range(3 * len(atoms)):
        momenta = np.zeros(3 * len(atoms))
        momenta[place] = 1
        moved = atoms.copy()
        moved.set_momenta(momenta.reshape(-1, 3))
        rows.append(moved.get_momenta().ravel())
    return int(np.linalg.matrix_rank(np.array(rows), tol=1e-8))


@pytest.mark.parametrize(
    ("atoms", "expected"),
    [
        (held(), 24),
        (held(FixAtoms([0, 1, 2]), FixAtoms([1, 2, 3])), 12),
        (held(FixAtoms([0, 1]), FixCartesian([1, 2], (True, False, False))), 17),
        (held(FixedPlane([0, 1], (0, 0, 1)), FixedPlane([1, 2], (0, 0, 1))), 21),
        (held(FixedPlane([0, 1], (0, 0, 1)), FixedLine([1, 2], (1, 1, 0))), 19),
        (held(FixScaled([0, 1], (True, False, True)), FixScaled([1], (False, True, True)), skewed=True), 7),
        (held(FixBondLengths([[0, 1], [1, 2]]), FixAtoms([4, 5]), FixAtoms([5]), Hookean(0, 4, 1.0, 2.0)), 16),
        (held(FixCom()), 21),
        (held(FixSubsetCom([0, 1]), FixAtoms([2])), 18),
    ],
)
def test_they_are_counted_once(atoms: Atoms, expected: int) -> None:
    assert free_directions(atoms) == rank_of_momenta(atoms) == expected
    if atoms.constraints:
        assert degrees_of_freedom(atoms, momentum_conserved=True) == expected
        draw_velocities(atoms, 300, np.random.default_rng(0))
        assert 2 * atoms.get_kinetic_energy() / (expected * KB) == pytest.approx(300)


@pytest.mark.parametrize(
    ("constraints", "match"),
    [
        ([FixSymmetry(bulk("Cu", cubic=True) * (1, 2, 1))], "with the constraint FixSymmetry"),
        ([ExternalForce(0, 1, 1.0)], "with the constraint ExternalForce"),
        ([FixAtoms([0]), FixCom()], "FixCom on atoms that another constraint holds"),
        ([FixBondLengths([[0, 1]]), FixBondLengths([[1, 2]])], "FixBondLengths on atoms that another"),
        ([FixedPlane([0], (0, 0, 1)), FixedPlane([0], (0, 1, 1))], "not at right angles"),
    ],
)
def test_what_cannot_be_counted_is_refused(constraints: list[FixConstraint], match: str) -> None:
    with pytest.raises(SimulationError, match=match):
        free_directions(held(*constraints))


def test_a_run_with_overlapping_constraints_has_its_temperature() -> None:
    atoms, springs = einstein_crystal()
    atoms.set_constraint([FixAtoms([0, 1, 2]), FixAtoms([1, 2, 3])])
    summary = run_md(atoms, springs, NVE(300), 1)
    assert summary.rows[0].temperature == pytest.approx(300)
    assert summary.rows[0].kinetic == pytest.approx(0.5 * 12 * KB * 300)
