"""Degrees of freedom under constraints: the rank of what they leave, also where they overlap, less rigid motions."""

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
    FixInternals,
    FixScaled,
    FixSubsetCom,
    FixSymmetry,
    Hookean,
)

from mlip.calculators.ase import MLIPCalculator
from mlip.core.errors import SimulationError
from mlip.core.units import KB
from mlip.simulate.constraints import free_dimensions, free_directions, free_translations
from mlip.simulate.ensembles import NVE
from mlip.simulate.md import run_md
from mlip.simulate.velocities import degrees_of_freedom, draw_velocities, remove_rigid_motion, rigid_motions
from tests.simulate.analytic import einstein_crystal
from tests.simulate.pair_model import PairModel


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
    ("atoms", "expected", "conserved"),
    [
        (held(), 24, 3),
        (held(FixAtoms([0, 1, 2]), FixAtoms([1, 2, 3])), 12, 0),
        (held(FixAtoms([0, 1]), FixCartesian([1, 2], (True, False, False))), 17, 0),
        (held(FixCartesian([1, 2], (True, False, False))), 22, 2),
        (held(FixedPlane([0, 1], (0, 0, 1)), FixedPlane([1, 2], (0, 0, 1))), 21, 2),
        (held(FixedPlane([0, 1], (0, 0, 1)), FixedLine([1, 2], (1, 1, 0))), 19, 1),
        (held(FixScaled([0, 1], (True, False, True)), FixScaled([1], (False, True, True))), 19, 0),
        (held(FixScaled([0, 1], (True, True, True)), skewed=True), 6, 0),
        (held(FixBondLengths([[0, 1], [1, 2]]), FixAtoms([4, 5]), FixAtoms([5]), Hookean(0, 4, 1.0, 2.0)), 16, 0),
        (held(FixBondLengths([[0, 1], [1, 2]]), Hookean(0, 4, 1.0, 2.0)), 22, 3),
        (held(Hookean(0, (0.0, 0.0, 0.0), 1.0, 0.1)), 24, 0),
        (held(Hookean(0, (0.0, 1.0, 1.0, -3.0), 1.0)), 24, 2),
        (held(FixCom()), 21, 0),
        (held(FixSubsetCom([0, 1]), FixAtoms([2])), 18, 0),
    ],
)
def test_they_are_counted_once(atoms: Atoms, expected: int, conserved: int) -> None:
    assert free_directions(atoms) == rank_of_momenta(atoms) == expected
    assert degrees_of_freedom(atoms, momentum_conserved=True) == expected - conserved
    draw_velocities(atoms, 300, np.random.default_rng(0))
    assert 2 * atoms.get_kinetic_energy() / ((expected - conserved) * KB) == pytest.approx(300)


def cluster(*constraints: FixConstraint) -> Atoms:
    atoms = Atoms("CuHCCuC", [[0, 0, 0], [2.2, 0.1, 0], [0, 2.3, 0.2], [0.3, 0, 2.4], [1.6, 1.5, 1.4]])
    atoms.set_constraint(list(constraints))
    return atoms


@pytest.mark.parametrize(
    ("atoms", "conserved"),
    [
        (cluster(FixBondLengths([[0, 1]]), Hookean(0, 3, 3.0, 2.0)), 6),
        (cluster(FixInternals(bonds=[[None, [0, 1]]], angles_deg=[[None, [1, 0, 2]]])), 6),
        (cluster(FixAtoms([1])), 3),
        (cluster(FixAtoms([1, 2])), 1),
        (cluster(FixAtoms([1, 2, 3])), 0),
        (cluster(FixedPlane([0, 1], (0, 0, 1))), 3),
        (cluster(FixedLine([1], (0, 0, 1))), 2),
        (cluster(Hookean(1, (0.0, 0.3, 0.0), 2.0, 0.0)), 3),
        (cluster(Hookean(3, (0.0, 0.0, 1.0, -2.0), 2.0)), 3),
        (cluster(FixCom()), 3),
        (held(FixBondLengths([[0, 1]]), Hookean(0, 4, 3.0, 1.0)), 3),
        (held(FixedPlane([0, 1], (0, 1, 1))), 2),
    ],
)
def test_what_is_taken_out_stays_out(atoms: Atoms, conserved: int) -> None:
    """No rigid motion that is counted as conserved gets momentum in NVE, although the atoms have moved."""
    assert len(rigid_motions(atoms)) == conserved
    summary = run_md(atoms, MLIPCalculator(PairModel()), NVE(600), 60, timestep=1.0)
    moved = summary.atoms
    weighted = (moved.get_momenta() / np.sqrt(moved.get_masses())[:, None]).ravel()
    assert np.abs(moved.positions - atoms.positions).max() > 0.1
    np.testing.assert_allclose(rigid_motions(moved) @ weighted, 0, atol=1e-9)


def test_rigid_bonds_and_springs_do_not_let_a_crystal_drift() -> None:
    for constraint in (FixBondLengths([[0, 1]]), Hookean(0, 1, 3.0, 1.0)):
        atoms = held(constraint)
        draw_velocities(atoms, 300, np.random.default_rng(1))
        np.testing.assert_allclose(atoms.get_momenta().sum(axis=0), 0, atol=1e-10)
        atoms.set_momenta(atoms.get_momenta() + atoms.get_masses()[:, None] * [0.02, 0.0, 0.01])
        remove_rigid_motion(atoms)
        np.testing.assert_allclose(atoms.get_momenta().sum(axis=0), 0, atol=1e-10)


def test_what_the_whole_can_drift_along() -> None:
    np.testing.assert_allclose(free_translations(held()), np.eye(3), atol=1e-12)
    np.testing.assert_allclose(free_translations(held(FixedPlane([0], (0, 0, 2)))), np.diag([1, 1, 0]), atol=1e-12)
    # What is not known here, or held twice, holds all.
    for constraint in (ExternalForce(0, 1, 1.0), FixSubsetCom([0]), FixAtoms([3])):
        np.testing.assert_array_equal(free_translations(held(constraint)), np.zeros((3, 3)))
    atoms = held(FixAtoms([3, 1]), FixedPlane([0], (0, 0, 1)), FixedLine([2], (0, 0, 1)))
    np.testing.assert_array_equal(free_dimensions(atoms)[:5], [2, 0, 1, 0, 3])


@pytest.mark.parametrize(
    ("constraints", "match"),
    [
        ([FixSymmetry(bulk("Cu", cubic=True) * (1, 2, 1))], "with the constraint FixSymmetry"),
        ([ExternalForce(0, 1, 1.0)], "with the constraint ExternalForce"),
        ([FixAtoms([0]), FixCom()], "FixCom on atoms that another constraint holds"),
        ([FixBondLengths([[0, 1]]), FixBondLengths([[1, 2]])], "FixBondLengths on atoms that another"),
        ([FixedPlane([0], (0, 0, 1)), FixedPlane([0], (0, 1, 1))], "whose directions are not at right angles"),
        ([FixScaled([0], (False, True, False))], "FixScaled along an axis of the cell that is not at right angles"),
    ],
)
def test_what_cannot_be_counted_is_refused(constraints: list[FixConstraint], match: str) -> None:
    skewed = isinstance(constraints[0], FixScaled)
    with pytest.raises(SimulationError, match=match):
        free_directions(held(*constraints, skewed=skewed))


def test_a_run_with_overlapping_constraints_has_its_temperature() -> None:
    atoms, springs = einstein_crystal()
    atoms.set_constraint([FixAtoms([0, 1, 2]), FixAtoms([1, 2, 3])])
    summary = run_md(atoms, springs, NVE(300), 1)
    assert summary.rows[0].temperature == pytest.approx(300)
    assert summary.rows[0].kinetic == pytest.approx(0.5 * 12 * KB * 300)
