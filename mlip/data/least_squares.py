"""Least squares over any number of rows in the memory of one small triangle."""

from __future__ import annotations

import numpy as np

from mlip.core.errors import DataError

BLOCK = 1024
"""Rows that are gathered before they are folded into the triangle."""


class StreamedLeastSquares:
    """Minimise |A·x − b|² for rows of A and entries of b that arrive in pieces, in any order, from many processes.

    Kept is the triangle R of a QR decomposition of the augmented matrix [A, b]: orthogonal transformations lose no
    digits, where sums of products would lose half of them. Without ridge the solution is that of
    ``numpy.linalg.lstsq`` on all rows: of minimum norm where they do not determine it.

    Args:
        num_columns: unknowns; columns that only ever saw zeros are allowed and solve to 0.
        triangle: (num_columns + 1, num_columns + 1), to go on from a saved state.
        num_rows: rows in that state.
    """

    def __init__(self, num_columns: int, triangle: np.ndarray | None = None, num_rows: int = 0) -> None:
        size = num_columns + 1
        if triangle is not None and np.shape(triangle) != (size, size):
            raise DataError(f"A state of {num_columns} unknowns is ({size}, {size}), got {np.shape(triangle)}.")
        self.num_columns = num_columns
        self.num_rows = num_rows
        self._triangle = np.zeros((size, size)) if triangle is None else np.array(triangle, dtype=np.float64)
        self._waiting: list[np.ndarray] = []
        self._num_waiting = 0

    def add(self, rows: np.ndarray, targets: np.ndarray) -> None:
        """Add equations.

        Args:
            rows: (equations, num_columns).
            targets: (equations,).

        Raises:
            DataError: values that are not finite, or another number of columns.
        """
        rows = np.atleast_2d(np.asarray(rows, dtype=np.float64))
        targets = np.asarray(targets, dtype=np.float64).reshape(-1)
        if rows.shape != (len(targets), self.num_columns):
            raise DataError(f"Expected rows of shape ({len(targets)}, {self.num_columns}), got {rows.shape}.")
        block = np.concatenate([rows, targets[:, None]], axis=1)
        if not np.isfinite(block).all():
            raise DataError("Least squares needs finite numbers: leave out structures without a finite label.")
        self._append(block)
        self.num_rows += len(block)

    def merge(self, other: StreamedLeastSquares) -> None:
        """Add all equations of another one with the same columns.

        Raises:
            DataError: the columns differ in number.
        """
        if other.num_columns != self.num_columns:
            raise DataError(f"Cannot merge {other.num_columns} unknowns into {self.num_columns}.")
        self._append(other.triangle)
        self.num_rows += other.num_rows

    @property
    def triangle(self) -> np.ndarray:
        """(num_columns + 1, num_columns + 1): the whole state, together with `num_rows`."""
        if self._waiting:
            stacked = np.concatenate([self._triangle, *self._waiting])
            self._triangle = np.linalg.qr(stacked, mode="r")
            self._waiting, self._num_waiting = [], 0
        return self._triangle.copy()

    @property
    def used(self) -> np.ndarray:
        """(num_columns,) bool: columns with an entry that is not zero."""
        return self.triangle[:, :-1].any(axis=0)

    @property
    def rank(self) -> int:
        """Number of independent combinations of unknowns that the rows determine."""
        return self._decomposition()[3]

    def solve(self, ridge: float = 0.0) -> np.ndarray:
        """Return the solution (num_columns,).

        Args:
            ridge: weight of further equations, one for each column in use, that draw its unknown towards the one
                number that fits best if all unknowns are equal: 1 is the weight of a row with a single 1 in it.
                0 for none.

        Raises:
            DataError: a negative ridge.
        """
        if not ridge >= 0:
            raise DataError(f"The ridge must not be negative, got {ridge}.")
        triangle = self.triangle
        matrix, target = triangle[:, :-1], triangle[:, -1]
        if ridge == 0:
            left, singular, right, rank = self._decomposition()
            return right[:rank].T @ ((left.T @ target)[:rank] / singular[:rank])
        used = self.used
        together = matrix.sum(axis=1)
        centre = together @ target / (together @ together) if together.any() else 0.0
        stacked = np.concatenate([matrix, np.sqrt(ridge) * np.eye(self.num_columns)])
        targets = np.concatenate([target - centre * together, np.zeros(self.num_columns)])
        return np.where(used, np.linalg.lstsq(stacked, targets, rcond=None)[0] + centre, 0.0)

    def null_space(self) -> np.ndarray:
        """Return (directions, num_columns), orthonormal: changes of the unknowns in use that no row notices."""
        used = self.used
        _, _, right, rank = self._decomposition()
        # Columns without entries are unit vectors of the null space themselves; they are nobody's unknowns.
        free = right[rank:] * used
        _, singular, directions = np.linalg.svd(free, full_matrices=False)
        return directions[singular > 0.5]

    def residual(self, solution: np.ndarray) -> float:
        """Return the root mean square of A·x − b over all rows."""
        triangle = self.triangle
        return float(np.linalg.norm(triangle @ np.append(solution, -1.0)) / np.sqrt(max(self.num_rows, 1)))

    def _append(self, block: np.ndarray) -> None:
        self._waiting.append(block)
        self._num_waiting += len(block)
        if self._num_waiting >= max(BLOCK, 2 * self.num_columns):
            _ = self.triangle

    def _decomposition(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
        """Return the singular value decomposition of the rows' triangle, and the rank."""
        left, singular, right = np.linalg.svd(self.triangle[:, :-1], full_matrices=False)
        # numpy's own limit for the rows as one matrix, with room for the rounding of folding them in.
        limit = 10 * np.finfo(np.float64).eps * max(self.num_rows, self.num_columns) * singular.max(initial=0.0)
        return left, singular, right, int(np.count_nonzero(singular > limit))
