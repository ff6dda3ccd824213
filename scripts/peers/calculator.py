"""Another package's potential as a calculator here: it computes in its own environment, in a process of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from peers.driver import Case, Worker


class PeerCalculator(Calculator):
    """Energy (eV), forces (eV/Å) and stress (eV/Å³) of a worker.

    Args:
        package: its ``peers/<package>_worker.py`` answers tasks of the kind ``calculator``.
        python: interpreter of its environment.
        checkpoint: of the model.
        timeout: seconds to wait for an answer.

    Raises:
        peers.driver.BenchmarkError: the worker cannot do it; also from every calculation.
    """

    implemented_properties = ("energy", "forces", "stress", "free_energy")

    def __init__(self, package: str, python: str, checkpoint: str, timeout: float = 600.0) -> None:
        super().__init__()
        task = {"kind": "calculator", "checkpoint": checkpoint}
        self._worker = Worker(Case(package, package, python, task), (), timeout)
        self.facts = self._worker.ask(task=task, threads=1)

    def calculate(
        self, atoms: Atoms | None = None, properties: Any = ("energy",), system_changes: Any = all_changes
    ) -> None:
        """Ask the worker for everything at once."""
        super().calculate(atoms, properties, system_changes)
        found = self._worker.ask(
            numbers=self.atoms.numbers.tolist(),
            positions=self.atoms.positions.tolist(),
            cell=self.atoms.cell.array.tolist(),
            pbc=self.atoms.pbc.tolist(),
        )
        self.results = {name: found[name] if name == "energy" else np.array(found[name]) for name in found}
        self.results["free_energy"] = found["energy"]

    def close(self) -> None:
        """End the process."""
        self._worker.close()
