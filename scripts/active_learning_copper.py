"""Structures and comparison of scripts/demo_active_learning.sh, in the current folder: make, then compare."""

from __future__ import annotations

import sys

import numpy as np
from ase.build import bulk
from ase.io import read, write

from mlip import MLIPCalculator


def make() -> None:
    """Write 40 displaced cells of 8 atoms, and the cell that MD starts from."""
    rng = np.random.default_rng(0)
    frames = []
    for seed in range(40):
        atoms = bulk("Cu", "fcc", a=3.6 + 0.03 * rng.normal(), cubic=True) * (2, 1, 1)
        atoms.rattle(0.06, seed=seed)
        frames.append(atoms)
    write("start.extxyz", frames)
    write("cell.extxyz", bulk("Cu", "fcc", a=3.6, cubic=True) * (2, 1, 1))


def compare() -> None:
    """Print uncertainty and error of the selected structures before and after their labels were learned, eV/Å."""
    labelled = read("second.extxyz", ":")
    for when in ("before", "after"):
        calculator = MLIPCalculator([f"runs/{when}_{seed}/model.safetensors" for seed in (0, 1)])
        uncertainty, error = [], []
        for frame in labelled:
            atoms = frame.copy()
            atoms.calc = calculator
            wrong = np.linalg.norm(atoms.get_forces() - frame.get_forces(), axis=1)
            uncertainty.append(calculator.results["forces_std"].max())
            error.append(wrong.max())
        print(
            f"{when}: {len(labelled)} structures, largest spread of a force {np.mean(uncertainty):.3f} on average, "
            f"{max(uncertainty):.3f} at most; largest error of a force {np.mean(error):.3f} on average, "
            f"{max(error):.3f} at most"
        )


if __name__ == "__main__":
    {"make": make, "compare": compare}[sys.argv[1]]()
