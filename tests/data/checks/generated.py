"""Files of consistently labelled structures (ASE's EMT potential), good ones and ones with a mistake."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from mlip.data.checks.base import Finding, Settings
from mlip.data.checks.report import Report
from mlip.data.checks.run import run_checks
from mlip.data.datasets.extxyz import ExtxyzDataset

SPLIT = {"train": 0.8, "valid": 0.2, "test": 0, "seed": 0}


def labelled(atoms: Atoms, **changes: object) -> Atoms:
    """Return a copy with the labels of EMT, or others where they are given."""
    copy = atoms.copy()
    copy.calc = EMT()
    labels = {"energy": copy.get_potential_energy(), "forces": copy.get_forces()}
    if copy.pbc.all():
        labels["stress"] = copy.get_stress()
    copy.calc = SinglePointCalculator(copy, **(labels | changes))
    return copy


def crystals(number: int = 30, seed: int = 0) -> list[Atoms]:
    """Return strained and rattled cells of four atoms, copper and gold in all ratios."""
    return copies(_crystals(number, seed))


def copies(frames: list[Atoms]) -> list[Atoms]:
    """Return copies with their labels."""
    return [_copy(atoms) for atoms in frames]


def _copy(atoms: Atoms) -> Atoms:
    copy = atoms.copy()
    copy.calc = SinglePointCalculator(copy, **atoms.calc.results)
    return copy


@cache
def _crystals(number: int, seed: int) -> list[Atoms]:
    rng = np.random.default_rng(seed)
    frames = []
    for k in range(number):
        atoms = bulk("Cu", "fcc", a=3.8, cubic=True)
        atoms.numbers[: k % 5] = 79
        strain = 0.02 * rng.normal(size=(3, 3))
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + (strain + strain.T) / 2), scale_atoms=True)
        atoms.rattle(0.05, seed=k)
        frames.append(labelled(atoms))
    return frames


def molecules(number: int = 30) -> list[Atoms]:
    """Return rattled molecules."""
    return copies(_molecules(number))


@cache
def _molecules(number: int) -> list[Atoms]:
    frames = []
    for k in range(number):
        atoms = molecule(("H2O", "CH4", "CH3OH", "C2H6", "CO2")[k % 5])
        atoms.rattle(0.03, seed=k)
        frames.append(labelled(atoms))
    return frames


def trajectory(steps: int = 20) -> list[Atoms]:
    """Return one crystal along a path of small steps, as in dynamics, its cell breathing."""
    start = bulk("Cu", "fcc", a=3.7, cubic=True) * (2, 1, 1)
    start.rattle(0.05, seed=1)
    direction = np.random.default_rng(2).normal(size=(8, 3))
    frames = []
    for k in range(steps):
        atoms = start.copy()
        if k % 2:
            atoms.set_cell(atoms.cell * (1 + 0.0007 * k), scale_atoms=True)
        else:
            atoms.positions += 0.02 * (k + 1) ** 0.5 * direction
        frames.append(labelled(atoms))
    return frames


def change(frames: list[Atoms], which: slice, edit: Callable[[dict], object]) -> list[Atoms]:
    """Return the frames with the labels of some of them edited in place (a dict of arrays)."""
    for atoms in frames[which]:
        results = {key: np.array(value) for key, value in atoms.calc.results.items()}
        edit(results)
        atoms.calc = SinglePointCalculator(atoms, **results)
    return frames


def check_frames(folder: Path, frames: list[Atoms], cutoff: float = 5.0, **options: object) -> Report:
    """Write frames to a file, read it as a user would, and check it."""
    write(folder / "data.xyz", frames, format="extxyz")
    dataset = ExtxyzDataset(
        folder / "data.xyz", **({"labels": ["energy"], "optional_labels": ["forces", "stress"]} | options)
    )
    return run_checks([dataset], Settings(cutoff, SPLIT))


def serious(report: Report) -> list[Finding]:
    """Return errors and warnings."""
    return [finding for finding in report.findings if finding.level != "note"]


def found(report: Report, check: str) -> Finding:
    """Return the only finding of a check."""
    (finding,) = [finding for finding in report.findings if finding.check == check]
    return finding
