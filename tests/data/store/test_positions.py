"""Positions through fractional coordinates: the same bits back, in less space."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlip.data.store.positions import have_fractions, put_positions, take_positions
from mlip.data.store.streams import Reader, Writer


def through(positions, cells, num_atoms):
    writer = Writer()
    put_positions(writer, positions, cells, np.asarray(num_atoms))
    record = writer.finish()
    return take_positions(Reader(record, "here"), cells, np.asarray(num_atoms)), len(record)


def structure(rng, num_atoms, kind):
    """Return positions and cell of a kind of file."""
    cell = np.round(rng.normal(size=(3, 3)) + 6 * np.eye(3), 8)
    fractions = np.round(rng.uniform(-1.2, 2.2, (num_atoms, 3)), 8)
    if kind == "text":
        return np.round(fractions @ cell, 8), cell
    if kind == "product":
        return fractions @ cell, cell
    if kind == "any":
        return rng.normal(size=(num_atoms, 3)), cell
    if kind == "flat":
        return rng.normal(size=(num_atoms, 3)), np.array([cell[0], cell[0], cell[2]])
    if kind == "far":
        return rng.normal(size=(num_atoms, 3)) * 1e7, cell
    return np.round(rng.normal(size=(num_atoms, 3)), 5), np.zeros((3, 3))


KINDS = ["text", "product", "any", "flat", "far", "molecule"]


@given(st.lists(st.tuples(st.sampled_from(KINDS), st.integers(1, 9)), min_size=1, max_size=6), st.integers(0, 999))
def test_any_mixture_comes_back_bit_for_bit(kinds, seed):
    rng = np.random.default_rng(seed)
    parts = [structure(rng, count, kind) for kind, count in kinds]
    positions = np.concatenate([part[0] for part in parts])
    cells = np.stack([part[1] for part in parts])
    back, _ = through(positions, cells, [count for _, count in kinds])
    assert back.tobytes() == positions.tobytes()


@pytest.mark.parametrize("kind", ["text", "product"])
def test_fractions_are_found_and_take_less_than_half_a_float(kind):
    positions, cell = structure(np.random.default_rng(1), 200, kind)
    assert have_fractions(positions, cell)
    assert through(positions, cell[None], [200])[1] < 0.55 * positions.nbytes


def test_symmetric_sites_are_stored_once():
    rng = np.random.default_rng(2)
    cell = np.round(rng.normal(size=(3, 3)) + 6 * np.eye(3), 8)
    free = np.round(rng.uniform(0, 0.5, (50, 3)), 8)
    sites = np.concatenate([free, -free % 1, (free + 0.5) % 1, (0.5 - free) % 1])
    symmetric, size = through(np.round(sites @ cell, 8), cell[None], [200])
    _, other = through(structure(rng, 200, "text")[0], cell[None], [200])
    assert symmetric.tobytes() == np.round(sites @ cell, 8).tobytes()
    assert size < 0.5 * other


def test_negative_zeros_and_huge_positions_come_back():
    cell = np.round(np.diag([3.0, 4.0, 5.0]), 8)
    positions = np.array([[-0.0, 0.0, 1.25], [0.75, -0.0, -0.0], [1e8, 0, 0]])
    assert through(positions, cell[None], [3])[0].tobytes() == positions.tobytes()


def test_without_a_cell_there_are_no_fractions():
    assert not have_fractions(np.ones((2, 3)), np.zeros((3, 3)))
    assert not have_fractions(np.random.default_rng(0).normal(size=(5, 3)), 5 * np.eye(3))
