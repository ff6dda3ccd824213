"""Make the bundled set of Kohn-Sham matrices (``data/small_molecules/qh9.db``).

What it makes
    Small molecules (water, ammonia, methane, methanol, ethanol) from ASE's g2 collection,
    every atom displaced by a normal deviate of 0.05 A along each axis, turned at random;
    each with its Fock matrix, energy and forces at B3LYP(VWN5)/def2-SVP, the level of QH9.
    The geometries are rounded to 1e-6 A: the same seed gives the same ones everywhere.

How to run
    pip install 'mlip-kit[qm]'
    python scripts/make_orbital_data.py --out data/small_molecules/qh9.db --jobs 2

    It writes the geometries into a temporary folder and calls `mlip data label`, so an
    interrupted run goes on where it stopped.

    python scripts/make_orbital_data.py --out data/small_molecules/qh9.db --check 3

    computes the first 3 structures of every molecule again and prints the largest differences.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.io import write
from scipy.spatial.transform import Rotation

from mlip.core.units import HARTREE
from mlip.data.datasets.qh9 import QH9Dataset
from mlip.data.labelling.kohn_sham import KohnShamLabeller

MOLECULES = {"water": "H2O", "ammonia": "NH3", "methane": "CH4", "methanol": "CH3OH", "ethanol": "CH3CH2OH"}
COUNTS = {"water": 60, "ammonia": 30, "methane": 30, "methanol": 16, "ethanol": 12}
DISPLACEMENT = 0.05
"""Å, standard deviation along each axis."""

DECIMALS = 6
SETTINGS = {"xc": "b3lyp5", "basis": "def2-svp", "grid_level": 3, "conv_tol": 1e-11, "grad_tol": 1e-6}


def geometries(name: str, seed: int) -> list[Atoms]:
    """Return displaced and turned copies of a molecule; those of one molecule do not depend on the others."""
    rng = np.random.default_rng([seed, list(MOLECULES).index(name)])
    found = []
    for _ in range(COUNTS[name]):
        atoms = molecule(MOLECULES[name])
        positions = atoms.positions - atoms.positions.mean(0)
        positions = positions + rng.normal(scale=DISPLACEMENT, size=positions.shape)
        turn = Rotation.from_quat(rng.normal(size=4))
        found.append(Atoms(atoms.numbers, positions=np.round(turn.apply(positions), DECIMALS)))
    return found


def make(out: Path, seed: int, jobs: int) -> None:
    """Write the geometries and label them."""
    with TemporaryDirectory() as folder:
        files = [Path(folder) / f"{name}.xyz" for name in MOLECULES]
        for file in files:
            write(file, geometries(file.stem, seed), format="extxyz")
        options = [f"--{key.replace('_', '-')}={value}" for key, value in SETTINGS.items()]
        options += ["--forces", "--layout=dynamic", f"--jobs={jobs}", "--licence=CC0-1.0", f"--out={out}"]
        command = [sys.executable, "-m", "mlip.cli", "data", "label", *map(str, files), *options]
        subprocess.run(command, check=True)


def check(out: Path, seed: int, count: int) -> None:
    """Compute the first structures of every molecule again, and print how much they differ."""
    data = QH9Dataset(out)
    labeller = KohnShamLabeller(["energy", "hamiltonian"], **SETTINGS)
    start = 0
    for name in MOLECULES:
        for index, atoms in enumerate(geometries(name, seed)[:count]):
            sample = data[start + index]
            labels = labeller.label(atoms.numbers, atoms.positions)
            moved = np.abs(sample.atoms.positions - atoms.positions).max()
            energy = abs(float(sample.labels["energy"]) / HARTREE - labels.energy)
            matrix = np.abs(sample.labels["hamiltonian"] - labels.hamiltonian).max()
            print(f"{name} {index}: positions {moved:.1e} A, energy {energy:.1e} Eh, matrix {matrix:.1e} Eh")
        start += COUNTS[name]


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("data/small_molecules/qh9.db"))
    parser.add_argument("--seed", type=int, default=6)
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--check", type=int, default=0, metavar="N", help="only check N structures of each molecule")
    args = parser.parse_args()
    if args.check:
        check(args.out, args.seed, args.check)
    else:
        make(args.out, args.seed, args.jobs)


if __name__ == "__main__":
    main()
