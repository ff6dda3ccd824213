"""Streamed least squares against numpy.linalg.lstsq on all rows at once."""

import pickle

import numpy as np
import pytest
from scipy.linalg import null_space

from mlip.core.errors import DataError
from mlip.data.least_squares import StreamedLeastSquares


def rows_and_targets(kind, num_rows=3000, seed=0):
    """Compositions and total energies of realistic size; ``kind`` says how much the rows determine."""
    rng = np.random.default_rng(seed)
    if kind == "full":
        rows = rng.integers(0, 60, size=(num_rows, 6)).astype(float)
    elif kind == "fixed ratio":
        rows = np.outer(rng.integers(1, 9, num_rows), [9.0, 8.0, 1.0])
    elif kind == "pairs":
        rows = np.zeros((num_rows, 5))
        rows[:, :2] = rng.integers(1, 9, num_rows)[:, None]
        rows[:, 2:] = rng.integers(0, 9, size=(num_rows, 3))
        rows[:, 4] = rows[:, 2]
    else:
        rows = np.zeros((num_rows, 118))
        rows[:, [0, 5, 7, 25]] = rng.integers(0, 20, size=(num_rows, 4))
    energies = -1000.0 * np.arange(1, rows.shape[1] + 1)
    return rows, rows @ energies + rng.normal(size=num_rows)


KINDS = ("full", "fixed ratio", "pairs", "unused columns")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pieces", [1, 7, 600])
def test_equals_numpy(kind, pieces):
    rows, targets = rows_and_targets(kind)
    streamed = StreamedLeastSquares(rows.shape[1])
    for part in np.array_split(np.arange(len(rows)), pieces):
        streamed.add(rows[part], targets[part])
    expected, _, rank, _ = np.linalg.lstsq(rows, targets, rcond=None)
    np.testing.assert_allclose(streamed.solve(), expected, rtol=1e-10, atol=1e-8)
    assert streamed.rank == rank
    assert streamed.num_rows == len(rows)
    used = rows.any(axis=0)
    np.testing.assert_array_equal(streamed.used, used)
    rms = np.sqrt(np.mean((rows @ expected - targets) ** 2))
    assert streamed.residual(streamed.solve()) == pytest.approx(rms, rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_null_space_is_that_of_scipy(kind):
    rows, targets = rows_and_targets(kind)
    streamed = StreamedLeastSquares(rows.shape[1])
    streamed.add(rows, targets)
    used = rows.any(axis=0)
    found = streamed.null_space()
    expected = null_space(rows[:, used])
    assert found.shape == (expected.shape[1], rows.shape[1])
    np.testing.assert_allclose(found[:, used].T @ found[:, used], expected @ expected.T, atol=1e-9)
    assert not found[:, ~used].any()


def test_merged_pieces_and_saved_states_give_the_same():
    rows, targets = rows_and_targets("full")
    whole, first, second = (StreamedLeastSquares(6) for _ in range(3))
    whole.add(rows, targets)
    first.add(rows[:1700], targets[:1700])
    for row, target in zip(rows[1700:], targets[1700:]):
        second.add(row, target)
    saved = StreamedLeastSquares(6, second.triangle, second.num_rows)
    first.merge(pickle.loads(pickle.dumps(saved)))
    np.testing.assert_allclose(first.solve(), whole.solve(), rtol=1e-12)
    assert (first.num_rows, first.rank) == (whole.num_rows, whole.rank)


def test_ridge_is_the_least_squares_of_further_rows():
    rows, targets = rows_and_targets("pairs", 40)
    streamed = StreamedLeastSquares(5)
    streamed.add(rows, targets)
    centre = np.linalg.lstsq(rows.sum(axis=1, keepdims=True), targets, rcond=None)[0].item()
    more = np.concatenate([rows, np.sqrt(0.3) * np.eye(5)])
    expected = np.linalg.lstsq(more, np.concatenate([targets, np.full(5, np.sqrt(0.3) * centre)]), rcond=None)[0]
    np.testing.assert_allclose(streamed.solve(ridge=0.3), expected, rtol=1e-9)
    # A weak one changes nothing that the rows determine and shares the rest evenly.
    weak = streamed.solve(ridge=1e-6)
    np.testing.assert_allclose(rows @ weak, rows @ streamed.solve(), rtol=1e-6)
    assert weak[0] == pytest.approx(weak[1], rel=1e-6)


def test_rows_are_not_gathered_without_end():
    streamed = StreamedLeastSquares(3)
    for _ in range(20):
        streamed.add(np.ones((500, 3)), np.ones(500))
    assert sum(map(len, streamed._waiting)) < 2000


def test_nothing_and_nonsense():
    empty = StreamedLeastSquares(4)
    np.testing.assert_array_equal(empty.solve(), np.zeros(4))
    np.testing.assert_array_equal(empty.solve(ridge=1.0), np.zeros(4))
    assert empty.rank == 0
    assert empty.null_space().shape == (0, 4)
    with pytest.raises(DataError, match="finite"):
        empty.add([[1, 2, 3, 4]], [np.nan])
    with pytest.raises(DataError, match=r"\(1, 4\)"):
        empty.add([[1, 2, 3]], [1.0])
    with pytest.raises(DataError, match="negative"):
        empty.solve(ridge=-1)
    with pytest.raises(DataError, match="Cannot merge"):
        empty.merge(StreamedLeastSquares(3))
    with pytest.raises(DataError, match="unknowns is"):
        StreamedLeastSquares(4, np.zeros((4, 4)))
