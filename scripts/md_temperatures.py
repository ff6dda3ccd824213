"""Molecular dynamics of one structure at several temperatures and with several thermostats, as one batch.

    python scripts/md_temperatures.py molecule.xyz model.safetensors --temperatures 300 600 1200 --output runs/md

Each run has a folder, ``langevin_300K`` and so on, as ``mlip md`` would leave it: look at it with ``mlip analyse``. The
same command goes on where it was killed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from mlip import MLIPCalculator, keep_freed_memory
from mlip.simulate.ensembles import NVE, BussiNVT, Ensemble, LangevinNVT, NoseHooverNVT
from mlip.simulate.md import run_md
from mlip.simulate.md_loop import Progress
from mlip.simulate.md_replicas import Replica
from mlip.simulate.md_summary import MDSummary
from mlip.simulate.output import write_summary
from mlip.simulate.structures import read_structure
from mlip.simulate.together import run_together

ENSEMBLES: dict[str, type[Ensemble]] = {
    "nve": NVE, "langevin": LangevinNVT, "bussi": BussiNVT, "nose-hoover": NoseHooverNVT,
}  # fmt: skip


def main() -> None:
    """Run all, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("structure", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--frame", type=int, default=0)
    parser.add_argument("--temperatures", type=float, nargs="+", default=[300.0, 600.0, 1200.0], help="K")
    parser.add_argument("--ensembles", nargs="+", choices=ENSEMBLES, default=["langevin"])
    parser.add_argument("--steps", type=int, default=200_000)
    parser.add_argument("--timestep", type=float, default=0.5, help="fs")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    keep_freed_memory()
    atoms = read_structure(given.structure, given.frame)
    runs = [(name, kelvin) for name in given.ensembles for kelvin in given.temperatures]

    def task(number: int, name: str, kelvin: float) -> Callable[[MLIPCalculator], MDSummary]:
        def run(one: MLIPCalculator) -> MDSummary:
            replica = Replica(number, given.output / f"{name}_{kelvin:g}K")
            replica.folder.mkdir(parents=True, exist_ok=True)
            files = replica.files(restart=(replica.folder / "checkpoint.npz").exists())
            return run_md(
                atoms, one, ENSEMBLES[name](temperature=kelvin), given.steps, timestep=given.timestep, seed=number,
                files=files, log_interval=20, frame_interval=200, checkpoint_interval=5000, alone=False,
                callback=report if number == 0 else None,
            )  # fmt: skip

        return run

    def report(state: Progress) -> None:
        if state.step % 1000 == 0:
            print(f"step {state.step}", file=sys.stderr, flush=True)

    calculator = MLIPCalculator(given.model, dtype=given.dtype)
    tasks = [task(number, *run) for number, run in enumerate(runs)]
    for outcome in sorted(run_together(tasks, calculator), key=lambda one: one.number):
        name, kelvin = runs[outcome.number]
        if outcome.error is not None:
            print(f"{name} {kelvin:g} K: {outcome.error}", flush=True)
            continue
        summary = outcome.value
        write_summary(given.output / f"{name}_{kelvin:g}K" / "summary.json", summary.as_dict())
        drift = "" if summary.drift is None else f", drift {summary.drift:.4f} meV/atom/ps"
        print(f"{name} {kelvin:g} K: mean temperature {summary.temperature_mean:.1f} K{drift}")


if __name__ == "__main__":
    main()
