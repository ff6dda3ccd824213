"""The task relax: what ``mlip relax`` does with many structures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from mlip.calculators.ase import MLIPCalculator
from mlip.simulate.relax_many import Relaxed, relax_many
from mlip.simulate.relax_result import RelaxOptions
from mlip.simulate.relax_table import UNITS, row_of
from mlip.simulate.screening.record import COMMON, LAST, Column, ScreenRecord
from mlip.simulate.screening.task import Item, ScreeningTask
from mlip.simulate.together import MAX_ATOMS, MAX_EDGES

_MEANINGS = {
    "steps": "taken",
    "energy_before": "of the starting structure",
    "energy_after": "of the relaxed structure",
    "energy_gain": "by which the relaxation lowered the energy",
    "fmax_before": "largest force on a free atom",
    "fmax_after": "largest force on a free atom",
    "stress_max_before": "largest deviation of a relaxed component of the stress",
    "stress_max_after": "largest deviation of a relaxed component of the stress",
    "volume_before": "of the cell",
    "volume_after": "of the cell",
    "volume_change": "relative",
    "space_group_before": "symbol and number",
    "space_group_after": "symbol and number",
    "energy_std": "spread of a committee in the end",
    "forces_std": "largest spread of a committee in the end",
}


def _column(name: str) -> Column:
    kind = "integer" if name == "steps" else "text" if name.startswith("space_group") else "number"
    return Column(_MEANINGS[name], kind, UNITS.get(name, ""))


@dataclass(frozen=True)
class RelaxTask(RelaxOptions, ScreeningTask):
    """Relax structures side by side; the options are those of `RelaxOptions`."""

    name = "relax"
    columns = {  # noqa: RUF012 - not changed by anyone.
        "converged": Column("whether all forces came below the limit", "truth"),
        **{name: _column(name) for name in _MEANINGS},
    }
    highlights = ("energy_gain", "volume_change", "steps")

    def run(self, items: Iterable[Item], calculator: MLIPCalculator, batch_atoms: int) -> Iterator[ScreenRecord]:
        """Relax structures; see :meth:`ScreeningTask.run`."""
        read: list[Item] = []

        def structures() -> Iterator[Any]:
            for item in items:
                read.append(item)
                yield item.atoms

        limits = {"max_atoms": batch_atoms, "max_edges": max(1, batch_atoms * MAX_EDGES // MAX_ATOMS)}
        for relaxed in relax_many(structures(), calculator, self, **limits):
            yield _record(read[relaxed.number], relaxed)


def _record(item: Item, relaxed: Relaxed) -> ScreenRecord:
    if relaxed.result is None:
        return item.failed(relaxed.error, relaxed.seconds)
    values = row_of(relaxed, item.name).as_dict()
    kept = {name: value for name, value in values.items() if name not in COMMON and name not in LAST}
    kept["converged"] = relaxed.result.converged
    return item.done(kept, relaxed.result.atoms, relaxed.seconds, relaxed.result.warnings)
