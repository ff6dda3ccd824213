"""Timing of relaxations: many side by side, one by one, and as a script around another package's calculator does it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import read

from peers.driver import SCRIPTS, BenchmarkError, Case, Measured
from peers.workloads import Workload, stored

MPTRJ = "mptrj/mptrj-random-sharedpart.xyz"
"""In the folder of reference data."""

SAME = 2e-3
"""eV an atom: median difference of the energies of relaxed structures from which two packages are not alike."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--structures", metavar="FILE", help="crystals [the sample of MPtrj in MLIP_DATA]")
    parser.add_argument("--count", type=int, default=200, help="so many of them, evenly spread [200]")
    parser.add_argument("--largest", type=int, metavar="ATOMS", help="leave larger ones out")
    parser.add_argument("--groups", type=int, default=5, help="a turn relaxes every so-manieth [5]")
    parser.add_argument("--fmax", type=float, default=0.05, help="eV/Å [0.05]")
    parser.add_argument("--max-steps", type=int, default=500, help="[500]")
    parser.add_argument("--model", default="sevennet-0", help="file, or name of an imported model")
    parser.add_argument("--checkpoint", default="7net-0", help="the same model for sevenn's calculator")
    # A turn is a group, and the first group of all is relaxed before any turn.
    parser.set_defaults(turn=0.0, warm_up=1)


def workload_of(options: argparse.Namespace, folder: Path) -> Workload:
    """Return the structures to be relaxed.

    Raises:
        BenchmarkError: there is no such file, or no structure of this size.
    """
    data = Path(os.environ.get("MLIP_DATA", SCRIPTS.parents[1] / "shared" / "data"))
    path = Path(options.structures) if options.structures else data / MPTRJ
    if not path.is_file():
        raise BenchmarkError(f"There is no '{path}': give --structures, or set MLIP_DATA to the folder of data sets.")
    found: list[Atoms] = [atoms for atoms in read(path, index=":") if len(atoms) <= (options.largest or len(atoms))]
    if len(found) < options.groups:
        raise BenchmarkError(f"'{path}' has {len(found)} structures of this size, fewer than {options.groups} groups.")
    chosen = [found[k] for k in np.linspace(0, len(found) - 1, min(options.count, len(found))).astype(int)]
    plain = [Atoms(a.numbers, a.positions, cell=a.cell, pbc=a.pbc) for a in chosen]
    size = f"{len(plain)} crystals" + (f" of at most {options.largest} atoms" if options.largest else "")
    return stored(size, plain, folder)


def cases_of(options: argparse.Namespace, workload: Workload) -> list[Case]:
    """Return mlip's two cases, the peer before them if its Python is known."""
    task = {"kind": "relax", "structures": workload.path, "checkpoint": options.checkpoint, "model": options.model}
    task |= {"groups": options.groups, "fmax": options.fmax, "max_steps": options.max_steps}
    own = options.pythons["mlip"]
    cases = [
        Case("mlip, one by one", "mlip", own, {**task, "batched": False, "keep_memory": True}),
        Case("mlip", "mlip", own, {**task, "batched": True, "keep_memory": True}),
    ]
    if "sevenn" in options.pythons:
        cases.insert(0, Case("sevenn", "sevenn", options.pythons["sevenn"], task))
    return cases


def same_minima(found: Sequence[Measured]) -> None:
    """Print how the relaxed structures of the first group differ; refuse what cannot be the same model."""
    first = np.array(found[0].facts["relaxed"])
    with np.errstate(all="raise"):
        for one in found[1:]:
            relaxed = np.array(one.facts["relaxed"])
            # Sizes are those of every so-manieth structure; energies an atom need them only roughly.
            energy = np.abs(relaxed[:, 0] - first[:, 0]) / (one.facts["atoms"] / one.facts["structures"])
            volume = np.abs(relaxed[:, 1] / first[:, 1] - 1)
            print(
                f"{one.case.name} − {found[0].case.name}, {len(first)} structures: energies differ by "
                f"{np.median(energy):.1e} (median) and {energy.max():.1e} eV an atom (largest), volumes by "
                f"{100 * np.median(volume):.1e} and {100 * volume.max():.1e} %, steps {int(relaxed[:, 2].sum())} and "
                f"{int(first[:, 2].sum())}",
                flush=True,
            )
            if not np.median(energy) < SAME:
                raise BenchmarkError(
                    f"{one.case.name} and {found[0].case.name} relax to other energies: do --model and --checkpoint "
                    "name the same model?"
                )
