"""Forces that somebody set to zero, that do not add up, or that are too large."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mlip.data.checks.base import EXAMPLES, Check, Finding, Seen, Settings, structures
from mlip.data.checks.frame import Frame
from mlip.data.checks.table import FrameTable

ONE_SIDED = 1e-3
"""`Frame.one_sided` above which no symmetry explains a force of exactly zero. In MPtrj sites with such forces have less
than 2e-5, 99 % of all others more than 3e-4."""

STRONG = 0.05
"""eV/Å; zeros among forces that are all smaller may be rounded numbers."""

NET = 0.1
"""Net force over the sum of the norms of the forces from which on it is no numerical noise …"""

NET_AT_LEAST = 0.3
"""… if it is larger than this as well, eV/Å."""

LARGE = 100.0
"""eV/Å."""


class ZeroForces(Check):
    """Forces of exactly zero on atoms whose surroundings do not forbid a force.

    ASE sets the forces of atoms under FixAtoms to zero when it writes them. An atom on a symmetric site has a zero
    force by right; what tells the two apart is whether the neighbours are spread evenly.
    """

    name = "zero forces"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._some, self._fixed, self._all = Seen(), Seen(), Seen()
        self._num_forces = self._num_fixed = 0

    def update(self, frame: Frame) -> None:
        """Look for zeros."""
        forces = frame.label("forces")
        if forces is None or len(frame) < 2:
            return
        self._num_forces += 1
        fixed = frame.labels.get("fixed")
        self._num_fixed += fixed is not None and bool(fixed.any())
        zero = ~forces.any(axis=1)
        if not zero.any() or frame.damage:
            return
        unforced = zero & (frame.one_sided > ONE_SIDED)
        if not unforced.any():
            return
        if zero.all():
            self._all.add(frame.source)
        elif fixed is not None and zero[fixed.astype(bool)].all() and fixed.any():
            self._fixed.add(frame.source)
        elif np.abs(forces).max() > STRONG:
            self._some.add(f"{frame.source} (atoms {', '.join(map(str, np.flatnonzero(unforced)[:4]))})")

    def findings(self, table: FrameTable) -> Iterator[Finding]:
        """Say which kind of zeros there are."""
        repair = (
            "Write the forces of the code itself (calc.results['forces'], or get_forces(apply_constraint=False)), or "
            "leave these structures out: a model learns from them that nothing acts on these atoms."
        )
        if self._fixed:
            text = (
                f"Of {structures(self._num_fixed)} with fixed atoms {self._fixed.count} have forces of exactly zero on "
                "them: a constraint was applied to these labels."
            )
            level = "error" if self._fixed.count > 0.5 * self._num_fixed else "warning"
            yield self.finding(level, text, repair, self._fixed)
        if self._some:
            text = (
                f"{structures(self._some.count, 'have')} forces of exactly zero on some atoms that no symmetry "
                "explains, as ASE writes them for fixed atoms (FixAtoms)."
            )
            # A few atoms on nearly symmetric sites in a large set may be rounding.
            level = "error" if self._some.count >= 0.01 * self._num_forces else "warning"
            yield self.finding(level, text, repair, self._some)
        if self._all:
            text = f"All forces of {structures(self._all.count)} are exactly zero, and no symmetry explains it."
            yield self.finding("error", text, "They were probably filled in: remove these labels.", self._all)


class NetForce(Check):
    """Forces of a structure on which nothing acts from outside must add up to zero."""

    name = "net force"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._seen, self._num_forces, self._largest = Seen(), 0, 0.0

    def update(self, frame: Frame) -> None:
        """Add up the forces."""
        forces = frame.label("forces")
        if forces is None or len(frame) < 2:
            return
        self._num_forces += 1
        net = float(np.linalg.norm(forces.sum(axis=0)))
        # Where some forces were set to zero the others need not add up; that is another check.
        if net > NET_AT_LEAST and net > NET * np.linalg.norm(forces, axis=1).sum() and forces.any(axis=1).all():
            self._seen.add(frame.source)
            self._largest = max(self._largest, net)

    def findings(self, table: FrameTable) -> Iterator[Finding]:
        """Say how many do not."""
        if self._seen:
            yield self.finding(
                "warning" if self._seen.count >= 0.01 * self._num_forces else "note",
                f"The forces of {structures(self._seen.count)} do not add up to zero (up to {self._largest:.3g} eV/Å).",
                "Atoms in another order than their forces, missing atoms, an external field, or unconverged forces.",
                self._seen,
            )


class LargeForces(Check):
    """Forces beyond those of colliding atoms."""

    name = "large forces"

    def findings(self, table: FrameTable) -> Iterator[Finding]:
        """Name the structures."""
        largest = table["force_max"]
        with np.errstate(invalid="ignore"):
            rows = np.flatnonzero(largest > LARGE)
        if len(rows):
            rows = rows[np.argsort(-largest[rows])]
            yield Finding(
                "warning",
                self.name,
                f"{structures(len(rows), 'have')} a force above {LARGE:g} eV/Å, the largest {largest[rows[0]]:.4g}.",
                "Look at them: overlapping atoms or another unit. A few such forces dominate a loss of squares.",
                len(rows),
                [table.source(row) for row in rows[:EXAMPLES]],
            )
