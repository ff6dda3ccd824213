"""The tables that ``mlip hamiltonian`` prints: orbitals of each structure, and SCF cycles from each guess."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from rich.table import Table

from mlip.calculators.pyscf_guess import GUESSES, PREDICTION
from mlip.cli.hamiltonian_task import Task
from mlip.core.units import HARTREE
from mlip.data.pyscf_extra import has_pyscf

if TYPE_CHECKING:
    from rich.console import Console

MOST_ROWS = 20
"""Structures that are listed; the file has all."""

SAME_ENERGY = 1e-6
"""Hartree; SCF solutions that differ more are different ones."""


def show_orbitals(task: Task, console: Console) -> None:
    """Print orbitals, electrons, HOMO, LUMO and gap."""
    model = task.calculator.model
    level = f"{model.functional or 'functional unknown'} / {model.basis}"
    table = Table(title=f"Predicted, {level}" + ("; energies in Eh" if task.orbitals else ""))
    table.add_column("structure")
    columns = ["orbitals"]
    if task.orbitals:
        columns += ["electrons", "HOMO", "LUMO", "gap", "gap / eV"]
    for name in columns:
        table.add_column(name, justify="right")
    for number, row in enumerate(task.rows[:MOST_ROWS]):
        cells = [f"{number} {row.formula}", str(row.orbitals)]
        if task.orbitals:
            gap = None if row.homo is None or row.lumo is None else row.lumo - row.homo
            cells += [str(row.electrons), _level(row.homo), _level(row.lumo), _level(gap)]
            cells.append("–" if gap is None else f"{gap * HARTREE:.3f}")
        table.add_row(*cells)
    console.print(table)
    if len(task.rows) > MOST_ROWS:
        console.print(f"… and {len(task.rows) - MOST_ROWS} more, which are in the file.")
    if not task.orbitals:
        hint = "--diagonalize adds orbital energies."
        if not has_pyscf():
            hint = "Without PySCF there are no overlaps and no orbitals: pip install 'mlip-kit[qm]'."
        console.print(hint, highlight=False, markup=False)


def show_scf(task: Task, console: Console) -> None:
    """Print the cycles from each guess, the energies and whether they agree."""
    if not task.runs:
        return
    table = Table(title="SCF cycles by initial guess; ratio to minao; energies in Eh")
    table.add_column("structure")
    for name in (*GUESSES, "ratio", "energy", "difference"):
        table.add_column(name, justify="right")
    different, unfinished = [], []
    for number, (row, runs) in enumerate(zip(task.rows, task.runs)):
        done = {guess: run.energy for guess, run in runs.items() if run.converged}
        difference = max(done.values()) - min(done.values()) if len(done) > 1 else 0.0
        different += [number] if difference > SAME_ENERGY else []
        unfinished += [number] if len(done) < len(runs) else []
        if number < MOST_ROWS:
            cycles = [f"{runs[guess].cycles}{'' if runs[guess].converged else ' (not converged)'}" for guess in GUESSES]
            ratio = runs[PREDICTION].cycles / runs["minao"].cycles
            energy = f"{runs[PREDICTION].energy:.8f}"
            table.add_row(f"{number} {row.formula}", *cycles, f"{ratio:.2f}", energy, f"{difference:.1e}")
    if len(task.runs) > 1:
        means = {guess: float(np.mean([runs[guess].cycles for runs in task.runs])) for guess in GUESSES}
        ratio = means[PREDICTION] / means["minao"]
        table.add_section()
        table.add_row("mean", *(f"{means[guess]:.2f}" for guess in GUESSES), f"{ratio:.2f}", "", "")
    console.print(table)
    if different:
        console.print(
            f"[yellow]Warning:[/yellow] the final energies of structures {_few(different)} differ by more than "
            f"{SAME_ENERGY:g} Eh: there is more than one solution, take the lowest.",
            highlight=False,
        )
    if unfinished:
        console.print(
            f"[yellow]Warning:[/yellow] structures {_few(unfinished)} did not converge from every guess; above 100 Eh "
            "the default tolerance is near round-off: try --conv-tol 1e-10.",
            highlight=False,
        )


def _few(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:5])) + (", …" if len(numbers) > 5 else "")


def _level(energy: float | None) -> str:
    return "–" if energy is None else f"{energy:.5f}"
