"""The Tetris pieces: eight different shapes, two of them mirror images, the rest their own mirror images."""

from __future__ import annotations

import pickle
from itertools import combinations, permutations, product

import numpy as np
import pytest

from mlip.core.errors import ConfigError, DataError
from mlip.data.datasets.tetris import PIECES, SHAPES, TetrisDataset
from mlip.data.loading import GraphDataset
from mlip.data.statistics import compute_statistics

CUBES = {name: np.array(cubes) for name, (_, _, cubes) in PIECES.items()}
ROTATIONS = [
    matrix
    for order in permutations(range(3))
    for signs in product((1, -1), repeat=3)
    if np.linalg.det(matrix := np.diag(signs)[list(order)]) > 0
]
"""The 24 rotations of a cube."""


def key(cubes: np.ndarray) -> tuple[tuple[int, ...], ...]:
    """Cubes up to translation and order."""
    return tuple(sorted(map(tuple, cubes - cubes.min(axis=0))))


def same(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether a proper rotation maps one piece to the other."""
    return any(key(one @ matrix.T) == key(other) for matrix in ROTATIONS)


def test_there_are_24_rotations() -> None:
    assert len(ROTATIONS) == 24


def test_all_pieces_are_different_and_connected() -> None:
    assert len(PIECES) == 8
    assert not any(same(CUBES[a], CUBES[b]) for a, b in combinations(PIECES, 2))
    for cubes in CUBES.values():
        touching = np.abs(cubes[:, None] - cubes[None]).sum(axis=2) == 1
        assert (np.linalg.matrix_power(touching + np.eye(4), 4) > 0).all()


@pytest.mark.parametrize("name", PIECES)
def test_handedness(name: str) -> None:
    shape, handedness, cubes = PIECES[name]
    mirrored = CUBES[name] * [-1, 1, 1]
    assert same(CUBES[name], mirrored) == (handedness == 0)
    if handedness:
        other = next(n for n, (s, h, _) in PIECES.items() if s == shape and h == -handedness)
        assert same(CUBES[other], mirrored)
        steps = np.diff(cubes, axis=0)
        assert np.linalg.det(steps) == pytest.approx(handedness)


def test_samples() -> None:
    data = TetrisDataset(rotations=2, seed=3, element="Si", spacing=2.5)
    assert len(data) == 24
    for index, sample in enumerate(data):
        shape, handedness, cubes = list(PIECES.values())[index % 8]
        assert SHAPES[int(sample.labels["class_scores"].argmax())] == shape
        assert sample.labels["class_scores"].sum() == 1.0
        assert sample.labels["chirality"] == handedness
        assert set(sample.labels) == set(data.provides)
        assert sample.atoms.get_chemical_formula() == "Si4"
        distances = np.linalg.norm(np.diff(np.array(cubes), axis=0), axis=1)
        assert np.linalg.norm(np.diff(sample.atoms.positions, axis=0), axis=1) == pytest.approx(2.5 * distances)
    matrices = data._matrices
    assert np.linalg.det(matrices) == pytest.approx(np.ones(24))
    assert matrices @ matrices.transpose(0, 2, 1) == pytest.approx(np.broadcast_to(np.eye(3), (24, 3, 3)), abs=1e-12)
    with pytest.raises(IndexError):
        data[24]
    assert data[-1].source == "corner, turned copy 2"


def test_is_reproducible_and_pickles() -> None:
    one, same_seed, other = TetrisDataset(3, seed=1), TetrisDataset(3, seed=1), TetrisDataset(3, seed=2)
    again = pickle.loads(pickle.dumps(one))
    assert np.array_equal(one[20].atoms.positions, same_seed[20].atoms.positions)
    assert np.array_equal(one[20].atoms.positions, again[20].atoms.positions)
    assert not np.allclose(one[20].atoms.positions, other[20].atoms.positions)
    assert len(TetrisDataset(rotations=0)) == 8


@pytest.mark.parametrize(
    "options",
    [
        *({"rotations": wrong} for wrong in (-1, 1.5, "x", None)),
        *({"seed": wrong} for wrong in (-1, 0.5, "x")),
        *({"spacing": wrong} for wrong in (0.0, float("nan"), "abc")),
        *({"element": wrong} for wrong in ("Qq", "X", 1)),
    ],
)
def test_mistakes(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(options))} must be"):
        TetrisDataset(**options)


def test_statistics_without_energies() -> None:
    found = compute_statistics(list(TetrisDataset()), 1.1)
    assert found["elements"] == ["H"]
    assert found["atomic_energies"] == {"H": 0.0}
    assert found["force_rms"] is None
    assert found["energy_per_atom_mean"] is None
    # Three touching pairs a piece, four in the square; two edges a pair; every piece twice.
    assert found["num_edges"] == 2 * 2 * (8 * 3 + 1)


def test_scores_of_open_length_are_batched_and_filled() -> None:
    samples = list(TetrisDataset())
    del samples[2].labels["class_scores"]
    graphs = GraphDataset(samples, 1.1)
    assert graphs.labels == ("chirality", "class_scores")
    assert graphs[0].class_scores.shape == (1, 7)
    assert graphs[2].class_scores.shape == (1, 7)
    assert graphs[2].class_scores.isnan().all()
    samples[3].labels["class_scores"] = np.zeros(6)
    with pytest.raises(DataError, match=r"square.*class_scores.*\(6,\)"):
        GraphDataset(samples, 1.1)
