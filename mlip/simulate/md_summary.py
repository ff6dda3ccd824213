"""What an MD run amounts to: averages, energy drift, speed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from ase import Atoms

from mlip.simulate.ensembles import NVE, Ensemble, LangevinNVT
from mlip.simulate.thermo import ThermoRow, column, energy_drift


@dataclass(frozen=True)
class MDSummary:
    """The result of one MD run, earlier parts included if it was continued from a checkpoint with the same settings.

    Attributes:
        atoms: final structure with velocities and calculator.
        rows: the thermodynamic log.
        ensemble: its name.
        first_step, last_step: of this part, counted from the start of the first run.
        timestep: fs.
        temperature_mean, temperature_std: K, over the logged steps.
        drift: meV/atom/ps, least-squares slope of the conserved quantity; None if there is none (Langevin) or
            fewer than three rows.
        drift_of: what was fitted, or why nothing was.
        volume_mean: Å³, or None.
        pressure_mean: GPa, or None.
        energy_std_mean: eV, mean spread of a committee, or None.
        forces_std_max: eV/Å, largest spread of the forces on an atom in the run, or None.
        seconds: wall time of the steps.
        ns_per_day: speed.
        notes: what the user should know.
    """

    atoms: Atoms
    rows: tuple[ThermoRow, ...]
    ensemble: str
    first_step: int
    last_step: int
    timestep: float
    temperature_mean: float
    temperature_std: float
    drift: float | None
    drift_of: str
    volume_mean: float | None
    pressure_mean: float | None
    energy_std_mean: float | None
    forces_std_max: float | None
    seconds: float
    ns_per_day: float
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers with their units in the names, ready for JSON."""
        renamed = {
            "timestep": "timestep_fs",
            "temperature_mean": "temperature_mean_K",
            "temperature_std": "temperature_std_K",
            "drift": "energy_drift_meV_per_atom_per_ps",
            "drift_of": "energy_drift_of",
            "volume_mean": "volume_mean_A3",
            "pressure_mean": "pressure_mean_GPa",
            "energy_std_mean": "energy_std_mean_eV",
            "forces_std_max": "forces_std_max_eV_per_A",
        }
        skipped = ("atoms", "rows")
        values = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in skipped}
        final = {name: None if value != value else value for name, value in asdict(self.rows[-1]).items()}
        return {
            "formula": self.atoms.get_chemical_formula(),
            "num_atoms": len(self.atoms),
            **{renamed.get(name, name): list(v) if isinstance(v, tuple) else v for name, v in values.items()},
            "final_temperature_K": final["temperature"],
            "final_potential_eV": final["potential"],
            "final_total_eV": final["total"],
        }


def summarise(
    atoms: Atoms,
    rows: list[ThermoRow],
    ensemble: Ensemble,
    steps: tuple[int, int],
    timestep: float,
    seconds: float,
    notes: list[str],
) -> MDSummary:
    """Reduce the log of a run.

    Args:
        atoms: final structure.
        rows: the log of this run, at least one row.
        ensemble: what was sampled.
        steps: first and last step.
        timestep: fs.
        seconds: wall time.
        notes: collected so far.
    """
    temperature = column(rows, "temperature")
    conserved = column(rows, "conserved")
    drift = energy_drift(column(rows, "time"), conserved, len(atoms))
    if not np.isfinite(conserved).all():
        langevin = isinstance(ensemble, LangevinNVT)
        drift_of = f"not defined: {'Langevin dynamics' if langevin else 'a ramp'} conserves no energy"
    elif drift is None:
        drift_of = "not fitted: fewer than three logged steps"
    else:
        drift_of = "total energy" if isinstance(ensemble, NVE) else "energy with thermostat and barostat"
    forces_std = column(rows, "forces_std")
    simulated = (steps[1] - steps[0]) * timestep * 1e-6
    return MDSummary(
        atoms=atoms,
        rows=tuple(rows),
        ensemble=ensemble.name,
        first_step=steps[0],
        last_step=steps[1],
        timestep=timestep,
        temperature_mean=float(temperature.mean()),
        temperature_std=float(temperature.std()),
        drift=drift,
        drift_of=drift_of,
        volume_mean=_mean(rows, "volume"),
        pressure_mean=_mean(rows, "pressure"),
        energy_std_mean=_mean(rows, "energy_std"),
        forces_std_max=float(forces_std.max()) if np.isfinite(forces_std).all() else None,
        seconds=seconds,
        ns_per_day=simulated / seconds * 86400,
        notes=tuple(notes),
    )


def _mean(rows: list[ThermoRow], name: str) -> float | None:
    values = column(rows, name)
    return float(values.mean()) if np.isfinite(values).all() else None
