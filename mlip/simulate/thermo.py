"""The thermodynamic log of an MD run: a CSV file, and what is computed from its columns."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from ase import Atoms

from mlip.core.errors import SimulationError
from mlip.core.files import write_text_atomically
from mlip.core.units import GPA, MEV
from mlip.simulate.uncertainty import spreads
from mlip.simulate.velocities import temperature_of


@dataclass(frozen=True)
class ThermoRow:
    """One line of the log. NaN stands for what is not defined or was not asked for.

    Attributes:
        step: since the start of the first run.
        time: fs.
        temperature: K.
        potential, kinetic, total: eV.
        conserved: eV, the quantity that exact integration would keep (Langevin has none).
        volume: Å³.
        pressure: GPa, kinetic part included (NPT only).
        energy_std: eV, spread of a committee, see :func:`mlip.nn.derivatives.spread`.
        forces_std: eV/Å, largest spread of the forces on one atom.
    """

    step: int
    time: float
    temperature: float
    potential: float
    kinetic: float
    total: float
    conserved: float
    volume: float
    pressure: float
    energy_std: float = np.nan
    forces_std: float = np.nan

    @classmethod
    def measure(
        cls, atoms: Atoms, step: int, time: float, freedom: int, conserved: float | None, with_stress: bool
    ) -> ThermoRow:
        """Read a row off the atoms, whose results the calculator already has."""
        energy_std, forces_std = spreads(atoms)
        potential, kinetic = float(atoms.get_potential_energy()), float(atoms.get_kinetic_energy())
        pressure = np.nan
        if with_stress:
            pressure = -float(np.mean(atoms.get_stress(include_ideal_gas=True)[:3])) / GPA
        return cls(
            step=step,
            time=time,
            temperature=temperature_of(atoms, freedom),
            potential=potential,
            kinetic=kinetic,
            total=potential + kinetic,
            conserved=np.nan if conserved is None else conserved,
            volume=float(atoms.get_volume()) if atoms.pbc.all() else np.nan,
            pressure=pressure,
            energy_std=energy_std,
            forces_std=forces_std,
        )


HEADER = (
    "step", "time_fs", "temperature_K", "potential_eV", "kinetic_eV", "total_eV", "conserved_eV", "volume_A3",
    "pressure_GPa", "energy_std_eV", "forces_std_eV_per_A",
)  # fmt: skip
"""Column names with units, in the order of the fields of `ThermoRow`."""

_FORMER_COLUMNS = 9
"""Logs of versions that knew no committees end with the pressure."""


class ThermoLog:
    """Appends rows to a CSV file, or only collects them if there is no file; use it as a context manager.

    Attributes:
        rows: those of this run.
    """

    def __init__(
        self, path: str | os.PathLike[str] | None, continue_after: int | None = None, since: int | None = None
    ) -> None:
        """Open the file.

        Args:
            path: the CSV file, or None.
            continue_after: keep the rows up to this step (a restart); None starts anew.
            since: count those after this step among the rows of this run; None counts none of them.

        Raises:
            SimulationError: the file cannot be written, or is no thermodynamic log.
        """
        self.rows: list[ThermoRow] = []
        self.path = None if path is None else Path(path)
        self._file = None
        if self.path is None:
            return
        kept = [] if continue_after is None or not self.path.is_file() else read_thermo(self.path)
        kept = [row for row in kept if row.step <= (-1 if continue_after is None else continue_after)]
        if since is not None:
            self.rows += [row for row in kept if row.step > since]
        text = ",".join(HEADER) + "\n" + "".join(map(_line, kept))
        write_text_atomically(self.path, text)
        self._file = self.path.open("a", encoding="utf-8", buffering=1)

    def append(self, row: ThermoRow) -> None:
        """Add a row; it is on disk when this returns.

        Raises:
            SimulationError: the disk is full.
        """
        self.rows.append(row)
        if self._file is not None:
            try:
                self._file.write(_line(row))
            except OSError as error:
                raise SimulationError(
                    f"Cannot write to '{self.path}' ({error.strerror or error}). Free some space and "
                    "restart from "
                    "the trajectory."
                ) from error

    def sync(self) -> None:
        """Bring all rows onto the disk, so that they survive a power cut.

        Raises:
            SimulationError: the disk is full.
        """
        if self._file is not None:
            try:
                self._file.flush()
                os.fsync(self._file.fileno())
            except OSError as error:
                raise SimulationError(f"Cannot write to '{self.path}' ({error.strerror or error}).") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()


def read_thermo(path: str | os.PathLike[str]) -> list[ThermoRow]:
    """Read the rows of a log; a last line that was cut short is left out.

    Raises:
        SimulationError: the file has other columns or a damaged line.
    """
    with open(path, encoding="utf-8", newline="") as handle:
        text = handle.read()
    lines = list(csv.reader(text[: text.rfind("\n") + 1].splitlines()))
    if not lines or tuple(lines[0]) not in (HEADER, HEADER[:_FORMER_COLUMNS]):
        raise SimulationError(f"'{path}' is no thermodynamic log of this program: its first line is {lines[:1]}.")
    try:
        return [ThermoRow(int(line[0]), *(float(cell or "nan") for cell in line[1:])) for line in lines[1:]]
    except (ValueError, TypeError, IndexError) as error:
        raise SimulationError(f"'{path}' has a damaged line ({error}). Move the file away and run again.") from error


def column(rows: Sequence[ThermoRow], name: str) -> np.ndarray:
    """Return one field of all rows as an array."""
    if name not in {field.name for field in fields(ThermoRow)}:
        raise KeyError(name)
    return np.array([getattr(row, name) for row in rows], dtype=np.float64)


def energy_drift(time: np.ndarray, energy: np.ndarray, num_atoms: int) -> float | None:
    """Fit a line to an energy by least squares and return its slope.

    Args:
        time: (rows,) fs.
        energy: (rows,) eV.
        num_atoms: what the slope is divided by.

    Returns:
        meV/atom/ps, or None with fewer than three rows or an energy that is not defined.
    """
    if len(time) < 3 or not np.isfinite(energy).all():
        return None
    centred = time - time.mean()
    slope = float(centred @ (energy - energy.mean()) / (centred @ centred))
    return slope * 1000 / (num_atoms * MEV)


def _line(row: ThermoRow) -> str:
    # With all digits: a run that was continued from its log has the same averages as one that was not stopped.
    cells = (str(value) if isinstance(value, int) else repr(float(value)) for value in astuple(row))
    return ",".join("" if cell == "nan" else cell for cell in cells) + "\n"
