"""Radial weights from tables: their stated error, energies and forces of a model, and when a table is forgotten."""

from __future__ import annotations

import copy
from functools import cache

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

from mlip.models.base import AtomisticModel
from mlip.nn.convolution import MANY_EDGES, Convolution
from mlip.nn.edges import EdgeFeatures
from mlip.nn.tabulated import SLOPE_TOLERANCE, TOLERANCE, tabulate
from mlip.ops.kernels.compiler import NoCompiler, compiler
from mlip.ops.kernels.table import Table, evaluate
from mlip.testing.evaluate import evaluate as predicted
from mlip.testing.evaluate import graph_for
from tests.components import compose_model, random_model

try:
    compiler()
except NoCompiler as error:
    pytest.skip(str(error), allow_module_level=True)

TINY = ("model.irreps_hidden=2x0e+2x1e", "model.lmax_edge=1", "model.head.energy_fixed.hidden=[3]")


@cache
def original(num_layers: int = 1) -> AtomisticModel:
    """Radial networks, gates, and in float64: digits to compare."""
    return random_model(compose_model("sevennet", *TINY, f"model.num_layers={num_layers}"), size=0.2)


def model(num_layers: int = 1) -> AtomisticModel:
    found = copy.deepcopy(original(num_layers))
    found.use_kernels("on")
    return found.requires_grad_(False)


def diamond() -> Atoms:
    atoms = bulk("C", cubic=True) * (2, 1, 1)
    atoms.rattle(0.1, seed=0)
    return atoms


def convolutions(of: AtomisticModel) -> list[Convolution]:
    return [part for part in of.modules() if isinstance(part, Convolution)]


@pytest.mark.parametrize("num_layers", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_weights_and_slopes_are_as_good_as_stated(num_layers: int) -> None:
    assert (TOLERANCE, SLOPE_TOLERANCE) == (1e-5, 1e-4)
    own = model(num_layers)
    error = tabulate(own)
    assert error is not None
    assert error <= TOLERANCE
    (edges,) = (part for part in own.modules() if isinstance(part, EdgeFeatures))
    for convolution in convolutions(own):
        made = convolution._messages
        table = Table(made.cells, made.steps, made.error, 0.0)
        r = torch.linspace(1 / made.steps, edges.cutoff, 20_011, dtype=torch.float64)
        (values, slopes), (found, found_slopes) = (
            torch.func.jvp(function, (r,), (torch.ones_like(r),))
            for function in (lambda x: convolution.radial_weights(edges.basis(x)), lambda x: evaluate(table, x))  # noqa: B023
        )
        assert float((found - values).abs().max()) <= 1.05 * TOLERANCE * float(values.abs().max())
        assert float((found_slopes - slopes).abs().max()) <= 1.05 * SLOPE_TOLERANCE * float(slopes.abs().max())


@pytest.mark.parametrize("num_layers", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_energies_and_forces_of_a_model(num_layers: int) -> None:
    atoms, plain, own = diamond(), original(num_layers), model(num_layers)
    assert graph_for(own, atoms).num_edges >= MANY_EDGES
    tabulate(own)
    fields = ("energies", "forces", "stress")
    expected, found = (predicted(one, atoms, fields) for one in (plain, own))
    reference = predicted(plain, Atoms("C"), ("energies",))["energies"]
    assert np.any(expected["forces"] != found["forces"]), "the table was not used"
    for field, tolerance in (("energies", TOLERANCE), ("forces", SLOPE_TOLERANCE), ("stress", SLOPE_TOLERANCE)):
        size = np.abs(expected[field] - (reference if field == "energies" else 0)).max()
        # A layer multiplies what the layer before has left.
        assert np.abs(found[field] - expected[field]).max() <= num_layers * tolerance * size, field


def test_forces_are_the_slope_of_the_tabulated_energy() -> None:
    atoms, own = diamond(), model()
    tabulate(own)
    forces = predicted(own, atoms)["forces"]
    step = 1e-4
    for atom, axis in ((0, 0), (3, 2), (6, 1)):
        energies = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions[atom, axis] += sign * step
            energies.append(float(predicted(own, moved)["energy"]))
        slope = -(energies[0] - energies[1]) / (2 * step)
        # Second derivatives jump at the knots of a table.
        assert slope == pytest.approx(forces[atom, axis], abs=1e-6 * np.abs(forces).max())


def test_few_edges_do_without() -> None:
    own = model()
    tabulate(own)
    pair = Atoms("CO", [[0, 0, 0], [0, 0, 1.2]])
    assert predicted(own, pair)["energy"] == pytest.approx(float(predicted(model(), pair)["energy"]), rel=1e-15)


def test_training_forgets_the_table() -> None:
    own, atoms = model(), diamond()
    before = predicted(own, atoms)["forces"]
    tabulate(own)
    own.eval()
    assert np.any(predicted(own, atoms)["forces"] != before)
    own.train()
    assert all(one._messages is None for one in convolutions(own))
    with torch.no_grad():
        for convolution in convolutions(own):
            for parameter in convolution.radial_weights.parameters():
                parameter.zero_()
    assert not predicted(own.eval(), atoms)["forces"].any(), "weights of before are used"


def test_what_cannot_be_tabulated_stays_as_it_is() -> None:
    own, atoms = model(), diamond()
    assert tabulate(own, tolerance=0.0) is None
    assert tabulate(own, slope_tolerance=0.0) is None
    assert all(one._messages is None for one in convolutions(own))
    own.use_kernels("off")
    assert tabulate(own) is None
    assert np.isfinite(predicted(own, atoms)["energy"])
