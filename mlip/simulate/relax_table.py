"""The table of many relaxations: a row each, counts, CSV."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from statistics import median
from typing import Any

from ase import Atoms

from mlip.simulate.relax_many import Relaxed


@dataclass(frozen=True)
class RelaxedRow:
    """What the table says of a structure; what does not apply, or is not known, is None.

    Attributes:
        number: place in the input, from 0.
        name: the file, and which one of it.
        status: ``converged``, ``not converged`` or ``failed``.
        formula, atoms: the composition and the number of atoms.
        steps: taken.
        energy_before, energy_after: eV; ``energy_gain`` eV/atom, how much the relaxation lowered the energy.
        fmax_before, fmax_after: largest force, eV/Å.
        stress_max_before, stress_max_after: largest deviation of a relaxed component of the stress, eV/Å³.
        volume_before, volume_after: Å³; ``volume_change`` relative.
        space_group_before, space_group_after: such as ``Fm-3m (225)``.
        energy_std, forces_std: spread of a committee in the end, eV and eV/Å.
        seconds: from its start to its end, side by side with others.
        warnings: sentences.
        error: one sentence, of what failed.
    """

    number: int
    name: str
    status: str
    formula: str | None = None
    atoms: int | None = None
    steps: int | None = None
    energy_before: float | None = None
    energy_after: float | None = None
    energy_gain: float | None = None
    fmax_before: float | None = None
    fmax_after: float | None = None
    stress_max_before: float | None = None
    stress_max_after: float | None = None
    volume_before: float | None = None
    volume_after: float | None = None
    volume_change: float | None = None
    space_group_before: str | None = None
    space_group_after: str | None = None
    energy_std: float | None = None
    forces_std: float | None = None
    seconds: float | None = None
    warnings: str = ""
    error: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the columns."""
        return asdict(self)


UNITS = {
    "energy_before": "eV", "energy_after": "eV", "energy_gain": "eV/atom", "fmax_before": "eV/A", "fmax_after": "eV/A",
    "stress_max_before": "eV/A3", "stress_max_after": "eV/A3", "volume_before": "A3", "volume_after": "A3",
    "energy_std": "eV", "forces_std": "eV/A", "seconds": "s",
}  # fmt: skip
"""Of the columns that have one."""


def row_of(relaxed: Relaxed, name: str, atoms: Atoms | None = None, number: int | None = None) -> RelaxedRow:
    """Return the row of a relaxation.

    Args:
        relaxed: what became of it.
        name: of the structure.
        atoms: the starting structure, for one that failed; None if there is none.
        number: place in the input; None if it is that of the relaxation.
    """
    number = relaxed.number if number is None else number
    result = relaxed.result
    if result is None:
        formula = atoms.get_chemical_formula() if atoms is not None else None
        size = len(atoms) if atoms is not None else None
        return RelaxedRow(number, name, "failed", formula, size, seconds=relaxed.seconds, error=relaxed.error)
    before, after, values = result.before, result.after, result.as_dict()
    return RelaxedRow(
        number,
        name,
        "converged" if result.converged else "not converged",
        values["formula"],
        values["num_atoms"],
        result.steps,
        before.energy,
        after.energy,
        (before.energy - after.energy) / values["num_atoms"],
        before.fmax,
        after.fmax,
        before.stress_max,
        after.stress_max,
        before.volume,
        after.volume,
        result.volume_change,
        values["space_group_before"],
        values["space_group_after"],
        after.energy_std,
        after.forces_std,
        relaxed.seconds,
        " ".join(result.warnings),
    )


def as_csv(rows: Sequence[RelaxedRow]) -> str:
    """Return the table as CSV in the order of the input, units in the heads of the columns; all digits of a number."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [field.name for field in fields(RelaxedRow)]
    writer.writerow([f"{name}_{UNITS[name].replace('/', '_per_')}" if name in UNITS else name for name in names])
    for row in sorted(rows, key=lambda row: row.number):
        writer.writerow(["" if value is None else value for value in (getattr(row, name) for name in names)])
    return text.getvalue()


def counts(rows: Sequence[RelaxedRow]) -> dict[str, Any]:
    """Return how many there are of each kind, and medians of those that did not fail; ready for JSON."""
    status = Counter(row.status for row in rows)
    good = [row for row in rows if row.status != "failed"]

    def middle(name: str) -> float | None:
        values = [getattr(row, name) for row in good if getattr(row, name) is not None]
        return median(values) if values else None

    return {
        "structures": len(rows),
        "converged": status["converged"],
        "not_converged": status["not converged"],
        "failed": status["failed"],
        "with_warnings": sum(bool(row.warnings) for row in rows),
        "space_group_changed": sum(row.space_group_before != row.space_group_after for row in good),
        "median_steps": middle("steps"),
        "median_energy_gain_eV_per_atom": middle("energy_gain"),
        "median_volume_change": middle("volume_change"),
    }
