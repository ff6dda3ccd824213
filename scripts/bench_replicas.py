"""Time MD of several replicas as one batch against one after the other, in turns.

python scripts/bench_replicas.py molecule.xyz sevennet-0 --replicas 8 --steps 20 --rounds 5
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from mlip.calculators.ase import MLIPCalculator
from mlip.simulate.ensembles import LangevinNVT
from mlip.simulate.md import run_md
from mlip.simulate.md_replicas import replicas_in, run_replicas
from mlip.simulate.structures import read_structure


def main() -> None:
    """Print the times of each round, then medians and spreads."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("structure", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--frame", type=int, default=0)
    parser.add_argument("--replicas", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    atoms, number, steps = read_structure(given.structure, given.frame), given.replicas, given.steps
    calculator = MLIPCalculator(given.model)

    def together() -> None:
        with tempfile.TemporaryDirectory() as folder:
            for outcome in run_replicas(atoms, calculator, LangevinNVT(), steps, replicas_in(folder, number, 0)):
                if outcome.error is not None:
                    raise outcome.error

    def alone() -> None:
        with tempfile.TemporaryDirectory() as folder:
            for replica in replicas_in(folder, number, 0):
                run_md(atoms, calculator, LangevinNVT(), steps, seed=replica.seed, files=replica.files(False))

    times: dict[str, list[float]] = {"one batch": [], "one by one": []}
    for turn in range(given.rounds + 1):
        for name, run in zip(times, (together, alone)):
            began, wall = time.process_time(), time.perf_counter()
            run()
            if turn:  # The first one warms up.
                times[name].append((time.process_time() - began) * 1000 / (number * steps))
                spent = (time.perf_counter() - wall) * 1000 / (number * steps)
                print(f"{name}: {times[name][-1]:.2f} ms CPU, {spent:.2f} ms wall, a replica and step", flush=True)
    for name, values in times.items():
        print(f"{name}: median {np.median(values):.2f} ms CPU, {min(values):.2f} to {max(values):.2f}")
    ratios = np.array(times["one by one"]) / np.array(times["one batch"])
    print(f"one by one / one batch: median {np.median(ratios):.2f}, {ratios.min():.2f} to {ratios.max():.2f}")


if __name__ == "__main__":
    main()
