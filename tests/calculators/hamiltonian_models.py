"""Hamiltonian models of tests: one with random parameters, and one that knows a matrix by heart."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from ase import Atoms
from torch import Tensor, nn

from mlip.data.graph import AtomGraph
from mlip.models.base import AtomisticModel
from mlip.models.build import build_model
from tests.components import compose_model, random_model


def water() -> Atoms:
    """Return a water near equilibrium."""
    return Atoms("OH2", [[0, 0, 0.1173], [0, 0.7572, -0.4692], [0.0, -0.7572, -0.4692]])


ONSITE = {
    "H": [[[-0.385, -0.499], [-0.499, -0.423]], [[1.082]]],
    "O": [
        [[-19.105, 6.984, 3.265], [6.984, -3.206, -2.019], [3.265, -2.019, -1.278]],
        [[-0.073, -0.476], [-0.476, -0.019]],
        [[2.565]],
    ],
}
"""Means over waters in def2-SVP, Hartree."""


@cache
def random_hamiltonian_model(*overrides: str) -> AtomisticModel:
    """Return a small QHNet of H and O in def2-SVP with random parameters in float64; not to be changed."""
    return random_model(small_qhnet(*overrides))


def untrained_water_model() -> AtomisticModel:
    """Return a small QHNet in float64 as training starts with it: nearly the mean blocks of water."""
    return build_model(small_qhnet() | {"onsite": ONSITE}, seed=0, dtype=torch.float64).eval()


def small_qhnet(*overrides: str) -> dict[str, Any]:
    """Return the configuration."""
    return compose_model(
        "qhnet",
        *("model.elements=[H,O]", "model.functional=b3lyp5", "model.basis=def2-svp"),
        "model.shells={H:[0,0,1],O:[0,0,0,1,1,2]}",
        *("model.num_channels=4", "model.num_layers=2", "model.lmax=2", "model.cutoff=10.0", "model.graph.cutoff=10.0"),
        *(overrides or ("model.onsite=null",)),
    )


class StoredHamiltonian(AtomisticModel):
    """Returns one matrix (orbitals, orbitals), order `mlip`, whatever the structure."""

    fields = ("hamiltonian",)

    def __init__(
        self,
        matrix: np.ndarray,
        basis: str = "def2-svp",
        functional: str | None = "b3lyp5",
        elements: tuple[str, ...] = ("H", "O"),
    ) -> None:
        super().__init__(elements, 10.0)
        self.matrix = nn.Parameter(torch.tensor(matrix, dtype=torch.float64))
        self.basis, self.functional, self.target = basis, functional, "hamiltonian"

    @property
    def exactly_equivariant(self) -> bool:
        return False

    def forward(self, graph: AtomGraph) -> dict[str, Tensor]:
        return {"hamiltonian": self.matrix.flatten(), "num_orbitals": torch.tensor([len(self.matrix)])}
