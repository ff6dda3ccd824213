"""The class behind `mlip.drivers.torch_sim`, which needs torch-sim to be there."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from ase import Atoms
from torch import Tensor
from torch_geometric.data import Batch
from torch_sim.models.interface import ModelInterface

from mlip.calculators.ase import MLIPCalculator
from mlip.calculators.structure_checks import check_structure
from mlip.core.errors import StructureError
from mlip.data.build_graph import graph_of
from mlip.data.graph import AtomGraph
from mlip.data.inputs import stated_inputs
from mlip.data.neighbours import SkinNeighbourList


class TorchSimModel(ModelInterface):
    """Energies, forces and stresses of a batch of systems, all in one pass; made by `torch_sim_model`.

    Attributes:
        calculator: evaluates the graphs.
    """

    def __init__(self, calculator: MLIPCalculator, stress: bool) -> None:
        super().__init__()
        self.calculator = calculator
        self._device = calculator.model.device
        self._dtype = torch.float64
        self._compute_forces = True
        self._compute_stress = stress
        self._memory_scales_with = "n_atoms_x_density"
        self._lists: list[SkinNeighbourList] = []

    def forward(self, state: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Evaluate a state.

        Args:
            state: a `SimState`, or a dict of ``positions`` (atoms, 3) Å, ``cell`` (systems, 3, 3) Å with vectors as
                columns, ``pbc``, ``atomic_numbers`` (atoms,) and ``system_idx`` (atoms,).
            kwargs: none are used (torch-sim's interface).

        Returns:
            ``energy`` (systems,) eV, ``forces`` (atoms, 3) eV/Å and, unless switched off, ``stress`` (systems, 3, 3)
            eV/Å³, tension positive; zero for systems that are not periodic. In the dtype of the positions.

        Raises:
            StructureError: as `MLIPCalculator.calculate`.
        """
        read = state.get if isinstance(state, dict) else lambda name: getattr(state, name)
        positions, graphs = read("positions"), self._graphs(read)
        batch = Batch.from_data_list(graphs)
        fields = ["energy", "forces", *(["stress"] if self._compute_stress else [])]
        found = self.calculator.predict(batch, fields)
        for number in np.flatnonzero(~np.isfinite(found["energy"])).tolist():
            raise StructureError(
                f"The model returned an energy of {found['energy'][number]} eV for system {number} of {len(graphs)}: "
                "do two atoms coincide?"
            )
        return {name: torch.from_numpy(found[name]).to(positions) for name in fields}

    def _graphs(self, read: Any) -> list[AtomGraph]:
        """Return the graph of every system; neighbour lists are kept while they hold."""
        positions, numbers, cells = (
            read(name).detach().cpu().numpy() for name in ("positions", "atomic_numbers", "cell")
        )
        index = read("system_idx")
        index = np.zeros(len(numbers), dtype=np.int64) if index is None else index.cpu().numpy()
        if (np.diff(index) < 0).any():
            raise StructureError("The atoms of a state must be ordered by their systems.")
        periodic = read("pbc")
        periodic = periodic.cpu().numpy() if isinstance(periodic, Tensor) else periodic
        return [
            self._graph(
                number,
                Atoms(
                    numbers[index == number],
                    positions[index == number].astype(np.float64),
                    # Theirs has the vectors as columns.
                    cell=cell.T.astype(np.float64),
                    pbc=periodic,
                ),
            )
            for number, cell in enumerate(cells)
        ]

    def _graph(self, number: int, atoms: Atoms) -> AtomGraph:
        model, calculator = self.calculator.model, self.calculator
        check_structure(atoms, model)
        pairs = None
        if calculator.neighbours is not None and math.isfinite(model.graph_builder.cutoff):
            while len(self._lists) <= number:
                self._lists.append(SkinNeighbourList(model.graph_builder.cutoff, calculator.neighbours.skin))
            pairs = self._lists[number].update(atoms)
        return graph_of(atoms, model.graph_builder, stated_inputs(atoms, model.inputs, calculator.given), pairs)
