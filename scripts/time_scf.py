"""What a predicted Hamiltonian costs, and what a self-consistent calculation costs: python scripts/time_scf.py.

CPU time (time.process_time) of one thread, in one process, for molecules of growing size:
  qhnet, sphnet   HamiltonianCalculator.predict: checks, neighbour graph, network, square matrix; median of --repeats.
                  Weights are random and SPHNet's paths are fixed (sparsity 0.7): the time does not depend on weights.
                  Loading a model, once a process, is not counted.
  guess           the minao guess's Fock matrix; comes on top for models with target=difference, for every prediction
  overlap         comes on top for orbital energies
  SCF             PySCF's restricted Kohn-Sham from minao, exact integrals (no density fitting), as mlip data label
                  does it: b3lyp5, def2-svp, grid 3, 1e-13 Hartree. Own time of kernel(); reading the matrix is free.
  default         the same until PySCF's default of 1e-9 Hartree is reached

A calculation that takes longer than --budget seconds is broken off after a cycle, and its time is then an ESTIMATE,
marked with ~: what has passed plus the mean of its cycles so far (without the first) times the cycles that are missing;
their number is the median of the finished calculations of that series. "3 cycles" says what the same estimate would
have been after three cycles for the finished ones, against what it took: how far to trust it.

Examples:
  python scripts/time_scf.py                                             10 to 60 atoms, tens of minutes
  python scripts/time_scf.py --quick                                     two small molecules, 1 min
  python scripts/time_scf.py --series C2H6,C4H10,C8H18 --channels 64 --budget 600
"""

from __future__ import annotations

import argparse
import statistics
import time
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from ase import Atoms
from time_hamiltonians import VARIANTS, configuration, timed_model
from timed_molecules import named_molecule
from timed_tables import plot_scf, print_scf, write

from mlip import HamiltonianCalculator
from mlip.data.pyscf_extra import require_pyscf
from mlip.data.quantum import initial_hamiltonian, kohn_sham, molecule, overlap

SERIES = ("C3H8,C6H14,C10H22,C16H34,C19H40", "water3,water7,water13,water20")
FUNCTIONAL, BASIS = "b3lyp5", "def2-svp"
CONV_TOL, GRAD_TOL, MAX_CYCLE = 1e-13, 3.16e-5, 100
"""Those of configs/label/pyscf.yaml."""

DEFAULT_TOL = 1e-9
"""PySCF's own; its limit of the gradient is the root of it, which is `GRAD_TOL`."""

MODELS = {"qhnet": "qhnet", "sphnet": "sphnet 0.7"}
COLUMNS = ("series", "molecule", "atoms", "orbitals", *MODELS, "guess", "overlap", "scf", "default", "cycles")
COLUMNS += ("estimated", "after_3", *(f"scf/{name}" for name in MODELS), *(f"scf/(guess+{name})" for name in MODELS))


class _BudgetSpent(Exception):
    """Ends a calculation between two cycles."""


@dataclass
class Scf:
    """What is known of a calculation.

    Attributes:
        ends: CPU seconds since its start at the end of each cycle.
        total: seconds of all of it, None if it was broken off.
        default: seconds until `DEFAULT_TOL` was reached, None if it was not.
    """

    ends: list[float] = field(default_factory=list)
    total: float | None = None
    default: float | None = None

    def estimate(self, cycles: int, known: int | None = None) -> float:
        """Return the time of so many cycles from the first ``known`` of them, all by default; at least one."""
        ends = self.ends[:known]
        # The first cycle has the grid, the guess and often all integrals in it.
        one = (ends[-1] - ends[0]) / (len(ends) - 1) if len(ends) > 1 else ends[0]
        return ends[-1] + one * max(0, cycles - len(ends))


def main(arguments: list[str] | None = None) -> None:
    """Measure every molecule, print Markdown tables, write ``scf.csv`` and ``scf.png``."""
    options = parse(arguments)
    require_pyscf("timing its calculations")
    from pyscf import lib

    lib.num_threads(1)
    torch.set_num_threads(1)
    options.output.mkdir(parents=True, exist_ok=True)
    every = [named_molecule(name) for series in options.series for name in series.split(",")]
    elements = Atoms(sorted({symbol for atoms in every for symbol in atoms.get_chemical_symbols()}))
    settings = Namespace(basis=BASIS, cutoff=15.0, channels=options.channels, lmax=options.lmax)
    calculators = {
        name: HamiltonianCalculator(
            timed_model(configuration(elements, VARIANTS[variant], settings)), check_distances=False
        )
        for name, variant in MODELS.items()
    }
    rows: list[dict[str, Any]] = []
    for series in options.series:
        found = []
        before = rows
        for name in series.split(","):
            found.append(measure(name, calculators, options))
            print(f"{name}: {found[-1][1].ends[-1]:.0f} s of SCF", flush=True)
            # Whoever breaks off keeps what has been measured.
            rows = before + [{"series": series.split(",")[0], **row} for row in complete(found)]
            write(options.output / "scf.csv", COLUMNS, rows)
    print_scf(rows, tuple(MODELS))
    plot_scf(options.output / "scf.png", rows, tuple(MODELS))
    print(f"\nWritten: {options.output}/scf.csv, scf.png")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Return the options; what is wrong with them is said before anything is measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", nargs="+", default=list(SERIES), metavar="NAME,NAME", help="by size, small first")
    parser.add_argument("--channels", type=int, default=128, help="of the networks; a multiple of 8")
    parser.add_argument("--lmax", type=int, default=4, help="highest degree of their features")
    parser.add_argument("--repeats", type=int, default=3, help="of predictions and overlaps")
    parser.add_argument("--budget", type=float, default=120.0, help="CPU seconds of one SCF before it is broken off")
    parser.add_argument("--output", type=Path, default=Path("scf_times"), metavar="FOLDER")
    parser.add_argument("--quick", action="store_true", help="small networks on water and two waters")
    options = parser.parse_args(arguments)
    if options.quick:
        options.series, options.channels, options.lmax, options.repeats = ["water1,water2"], 8, 2, 1
    if min(options.channels, options.lmax, options.repeats) < 1 or options.channels % 8:
        parser.error("lmax and repeats must be at least 1, channels a multiple of 8, the heads of SPHNet's front end")
    for name in ",".join(options.series).split(","):
        named_molecule(name)
    return options


def measure(
    name: str, calculators: dict[str, HamiltonianCalculator], options: argparse.Namespace
) -> tuple[dict[str, Any], Scf]:
    """Return what one molecule takes."""
    atoms = named_molecule(name)
    row: dict[str, Any] = {"molecule": name, "atoms": len(atoms)}
    for model, calculator in calculators.items():
        row["orbitals"] = len(calculator.predict(atoms).hamiltonian)
        row[model] = seconds(lambda calculator=calculator: calculator.predict(atoms), options.repeats)
    # As long as a cycle, and so measured once, as they are.
    row["guess"] = seconds(lambda: initial_hamiltonian(atoms.numbers, atoms.positions, BASIS, FUNCTIONAL), 1)
    row["overlap"] = seconds(lambda: overlap(atoms.numbers, atoms.positions, BASIS), options.repeats)
    return row, run_scf(atoms, options.budget)


def seconds(function: Callable[[], Any], repeats: int) -> float:
    """Return the median CPU seconds of a call."""
    found = []
    for _ in range(repeats):
        started = time.process_time()
        function()
        found.append(time.process_time() - started)
    return statistics.median(found)


def run_scf(atoms: Atoms, budget: float) -> Scf:
    """Do a calculation, or as many cycles as there is time for, but at least two."""
    found = Scf()

    def note(state: dict[str, Any]) -> None:
        found.ends.append(time.process_time() - started)
        change = abs(state["e_tot"] - state["last_hf_e"])
        if found.default is None and change < DEFAULT_TOL and state["norm_gorb"] < GRAD_TOL:
            found.default = found.ends[-1]
        if found.ends[-1] > budget and len(found.ends) > 1:
            raise _BudgetSpent

    started = time.process_time()
    calculation = kohn_sham(molecule(atoms.numbers, atoms.positions, BASIS), FUNCTIONAL)
    calculation.conv_tol, calculation.conv_tol_grad, calculation.max_cycle = CONV_TOL, GRAD_TOL, MAX_CYCLE
    calculation.callback = note
    try:
        calculation.kernel()
    except _BudgetSpent:
        return found
    if calculation.converged:
        found.total = time.process_time() - started
    return found


def complete(found: list[tuple[dict[str, Any], Scf]]) -> list[dict[str, Any]]:
    """Return the rows of a series, estimates for what was broken off included; nothing where none was finished."""
    finished = [scf for _, scf in found if scf.total is not None]
    if not finished:
        return [{**row, "estimated": "broken off", "cycles": len(scf.ends)} for row, scf in found]
    cycles = round(statistics.median(len(scf.ends) for scf in finished))
    until_default = [scf.ends.index(scf.default) + 1 for scf in finished if scf.default is not None]
    rows = []
    for row, scf in found:
        done = scf.total is not None
        total = scf.total if done else scf.estimate(cycles)
        default = scf.default
        if default is None and until_default:
            default = scf.estimate(round(statistics.median(until_default)))
        row = {**row, "scf": total, "default": default, "cycles": len(scf.ends) if done else cycles}
        row["estimated"] = "" if done else f"from {len(scf.ends)} cycles"
        row["after_3"] = scf.estimate(len(scf.ends), 3) / total if done else None
        for model in MODELS:
            row[f"scf/{model}"] = total / row[model]
            row[f"scf/(guess+{model})"] = total / (row["guess"] + row[model])
        rows.append(row)
    return rows


if __name__ == "__main__":
    main()
