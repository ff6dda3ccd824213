"""The task eos: what ``mlip eos`` does, for every crystal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
from ase import Atoms

from mlip.calculators.ase import MLIPCalculator
from mlip.core.errors import SimulationError
from mlip.core.units import GPA, MEV
from mlip.simulate.ensembles import require_positive
from mlip.simulate.properties.eos import MIN_POINTS, equation_of_state
from mlip.simulate.screening.record import Column, ScreenRecord
from mlip.simulate.screening.task import Item, ScreeningTask
from mlip.simulate.screening.tasks.one_by_one import Found, one_by_one


@dataclass(frozen=True)
class EosTask(ScreeningTask):
    """Energy against volume; the options are those of :func:`mlip.simulate.properties.eos.equation_of_state`."""

    span: float = 0.08
    points: int = 9
    relax_ions: bool = True
    relax_shape: bool = True
    relax_first: bool = False
    fmax: float = 0.005
    max_steps: int = 500

    name = "eos"
    dtype = "float64"
    columns = {  # noqa: RUF012
        "v0": Column("volume of least energy, of the cell", unit="A3"),
        "v0_per_atom": Column("volume of least energy", unit="A3"),
        "b0": Column("bulk modulus", unit="GPa"),
        "b0_prime": Column("its derivative by the pressure"),
        "e0": Column("energy at v0, of the cell", unit="eV"),
        "residual": Column("root mean square difference of curve and energies", unit="meV/atom"),
        "volumes": Column("of the cell, at each point", "numbers", "A3"),
        "energies": Column("of the cell, at each point", "numbers", "eV"),
    }
    highlights = ("v0_per_atom", "b0", "b0_prime")

    def __post_init__(self) -> None:
        require_positive(span=self.span, fmax=self.fmax, max_steps=self.max_steps)
        if self.span > 0.5 or self.points < MIN_POINTS:
            raise SimulationError(
                f"An equation of state takes a span of at most 0.5 and at least {MIN_POINTS} points, got {self.span:g} "
                f"and {self.points}."
            )

    def run(self, items: Iterable[Item], calculator: MLIPCalculator, batch_atoms: int) -> Iterator[ScreenRecord]:
        """Compute curves, the points of each as one batch; see :meth:`ScreeningTask.run`."""
        return one_by_one(items, partial(self._one, calculator))

    def _one(self, calculator: MLIPCalculator, atoms: Atoms) -> Found:
        result = equation_of_state(atoms, calculator, **asdict(self))
        values = {"volumes": result.volumes.tolist(), "energies": result.energies.tolist()}
        if result.curve is not None:
            curve = result.curve
            values |= {
                "v0": curve.v0,
                "v0_per_atom": curve.v0 / result.num_atoms,
                "b0": curve.b0 / GPA,
                "b0_prime": curve.b0_prime,
                "e0": curve.e0,
                "residual": result.residual / MEV,
            }
        return Found(values, result.structures[int(np.argmin(result.energies))], result.warnings)
