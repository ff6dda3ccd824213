"""Crystals through mlip and through SevenNet's own calculator: python scripts/compare_crystals.py lattice --help.

The same model twice: as mlip imports it, in float64, and in its own package and float32 (``--python``: the interpreter
of an environment with sevenn). ``lattice`` relaxes the perturbed prototypes of the reference data, one side with
mlip's relaxation, the other with ASE's FIRE and FrechetCellFilter; ``elastic`` and ``phonons`` put both calculators
into the same functions. docs/benchmarks.md shows the tables.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.filters import FrechetCellFilter
from ase.io import read
from ase.optimize import FIRE
from peers.calculator import PeerCalculator
from peers.driver import SCRIPTS, BenchmarkError

from mlip import MLIPCalculator
from mlip.core.units import GPA
from mlip.simulate.properties.elastic import elastic_constants
from mlip.simulate.properties.phonons import phonons
from mlip.simulate.relax import RelaxOptions
from mlip.simulate.relax_many import relax_many

FMAX = 1e-4
"""eV/Å; at 1e-3 the soft ones of the prototypes (Ti, Li) may stop 0.003 Å from their minimum."""

PEER_FMAX = 1e-3
"""eV/Å, as far as forces of float32 can be relaxed for sure in any cell."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare what is asked for and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("lattice", "elastic", "phonons"))
    parser.add_argument("names", nargs="*", help="prototypes [all; Si, Cu, MgO; Si, NaCl], such as Si_diamond")
    parser.add_argument("--python", required=True, metavar="PATH", help="interpreter of an environment with sevenn")
    parser.add_argument("--model", default="sevennet-0", help="file, or name of an imported model")
    parser.add_argument("--checkpoint", default="7net-0", help="the same model for sevenn's calculator")
    options = parser.parse_args(arguments)
    folder = Path(os.environ.get("MLIP_DATA", SCRIPTS.parents[1] / "shared" / "data")) / "crystals"
    if not folder.is_dir():
        sys.exit(f"There is no folder '{folder}': set MLIP_DATA to the folder of reference data.")
    try:
        theirs = PeerCalculator("sevenn", options.python, options.checkpoint)
        try:
            COMMANDS[options.what](options.names, folder, MLIPCalculator(options.model, dtype="float64"), theirs)
        finally:
            theirs.close()
    except BenchmarkError as problem:
        sys.exit(str(problem))


def lattice(names: Sequence[str], folder: Path, ours: MLIPCalculator, theirs: PeerCalculator) -> None:
    """Relax perturbed conventional cells with both; lattice constants side by side and beside references."""
    references = json.loads((folder / "reference_lattice.json").read_text(encoding="utf-8"))
    names = list(names) or list(references)
    crystals = [read(folder / f"{name}_conv_perturbed.vasp") for name in names]
    options = RelaxOptions("FIRE", fmax=FMAX, max_steps=2000, relax_cell=True)
    found = sorted(relax_many(crystals, ours, options), key=lambda one: one.number)
    print("| crystal | mlip a, c / Å | sevenn a, c / Å | largest difference / Å | PBE | experiment |")
    print("|---|---|---|---|---|---|")
    worst = 0.0
    errors: dict[str, list[float]] = {"pbe": [], "experiment": []}
    for name, crystal, one in zip(names, crystals, found, strict=True):
        if one.error or not one.result.converged:
            raise BenchmarkError(f"mlip did not relax {name}: {one.error or 'too many steps'}.")
        own, peer = one.result.atoms.cell.lengths(), relaxed(crystal, theirs).cell.lengths()
        worst = max(worst, difference := float(np.abs(own - peer).max()))
        stated = {kind: constants(references[name][kind]) for kind in errors}
        for kind, values in stated.items():
            errors[kind] += [abs(length - value) for length, value in zip((own[0], own[2]), values)]
        hexagonal = abs(own[0] - own[2]) > 0.05
        cells = [text(lengths[[0, 2]] if hexagonal else lengths[:1]) for lengths in (own, peer)]
        print(f"| {name} | {cells[0]} | {cells[1]} | {difference:.5f} | {text(stated['pbe'])} | ", end="")
        print(f"{text(stated['experiment'])} |", flush=True)
    print(f"\nLargest difference of mlip and sevenn: {worst:.5f} Å.")
    for kind, values in errors.items():
        if values:
            print(f"Mean absolute error against {kind}: {np.mean(values):.4f} Å, {len(values)} lattice constants.")


def constants(entry: dict[str, Any]) -> list[float]:
    """Return a, and c where there is one, of an entry of the references; at 0 K where that is known."""
    if "a_A" not in entry:
        return []
    a = entry.get("a_A_0K_from_dcdft", entry["a_A"])
    c = entry.get("c_A", a * entry["c/a"] if "c/a" in entry else None)
    return [a] if c is None else [a, c]


def relaxed(crystal: Atoms, calculator: PeerCalculator) -> Atoms:
    """Relax as a script for ASE does.

    Raises:
        BenchmarkError: it does not converge.
    """
    atoms = crystal.copy()
    atoms.calc = calculator
    if not FIRE(FrechetCellFilter(atoms), logfile=None).run(fmax=FMAX, steps=2000):
        raise BenchmarkError(f"sevenn did not relax {atoms.get_chemical_formula()} in 2000 steps.")
    return atoms


def text(values: Sequence[float]) -> str:
    """Return lattice constants for a table."""
    return ", ".join(f"{value:.4f}" for value in values) or "–"


def elastic(names: Sequence[str], folder: Path, ours: MLIPCalculator, theirs: PeerCalculator) -> None:
    """Elastic constants of relaxed primitive cells."""
    print("| crystal | through | C11 | C12 | C44 / GPa |")
    print("|---|---|---|---|---|")
    for name in names or ("Si_diamond", "Cu_fcc", "MgO_rocksalt"):
        crystal = read(folder / f"{name}.cif")
        for label, calculator, fmax in (("mlip", ours, 1e-4), ("sevenn", theirs, PEER_FMAX)):
            tensor = elastic_constants(crystal, calculator, relax_first=True, fmax=fmax).ieee / GPA
            print(f"| {name} | {label} | {tensor[0, 0]:.2f} | {tensor[0, 1]:.2f} | {tensor[3, 3]:.2f} |", flush=True)


def phonon_bands(names: Sequence[str], folder: Path, ours: MLIPCalculator, theirs: PeerCalculator) -> None:
    """Phonons of relaxed primitive cells: highest frequencies, and how far the bands differ."""
    print(
        "| crystal | supercell | highest, mlip / THz | highest, sevenn / THz | largest difference of the bands / THz |"
    )
    print("|---|---|---|---|---|")
    for name in names or ("Si_diamond", "NaCl_rocksalt"):
        crystal = read(folder / f"{name}.cif")
        found = [
            phonons(crystal, calculator, relax_first=True, min_length=10.5, mesh=30, fmax=fmax)
            for calculator, fmax in ((ours, 1e-4), (theirs, PEER_FMAX))
        ]
        apart = max(np.abs(a.frequencies - b.frequencies).max() for a, b in zip(found[0].bands, found[1].bands))
        size = " × ".join(map(str, found[0].repeats))
        print(f"| {name} | {size} | {found[0].highest:.4f} | {found[1].highest:.4f} | {apart:.5f} |", flush=True)


COMMANDS = {"lattice": lattice, "elastic": elastic, "phonons": phonon_bands}

if __name__ == "__main__":
    started = time.monotonic()
    main()
    print(f"{time.monotonic() - started:.0f} s", file=sys.stderr)
