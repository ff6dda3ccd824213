"""Small Hamiltonian networks of H, C and O, in several bases."""

from __future__ import annotations

from functools import cache
from typing import Any

from ase import Atoms
from ase.build import molecule

from mlip.models.base import AtomisticModel
from mlip.models.hamiltonian_network import HamiltonianNetwork
from tests.components import compose_model, random_model

SHELLS = {
    "def2-svp": {"H": [0, 0, 1], "C": [0, 0, 0, 1, 1, 2], "O": [0, 0, 0, 1, 1, 2]},
    "def2-tzvp": {"H": [0, 0, 0, 1], "C": [0] * 5 + [1] * 3 + [2, 2, 3], "O": [0] * 5 + [1] * 3 + [2, 2, 3]},
    "sto-3g": {"H": [0], "C": [0, 0, 1], "O": [0, 0, 1]},
}
SMALL = {
    "qhnet": ("model.num_channels=8", "model.lmax=2", "model.bottleneck=4", "model.num_layers=2"),
    "sphnet": (
        *("model.num_channels=8", "model.lmax=2", "model.bottleneck=4", "model.num_layers=2"),
        *("model.front_end.cutoff=3.5", "model.front_end.long_cutoff=5.0"),
        *("model.front_end.num_layers=2", "model.front_end.num_long_layers=2"),
    ),
}
HAMILTONIANS = tuple(SMALL)
FIXED = ("model.path_gate.random_steps=0", "model.path_gate.adaptive_steps=0", "model.path_gate.sparsity=0.5")


def onsite(basis: str) -> dict[str, list[list[list[float]]]]:
    """Return symmetric matrices of the size that core and valence have, for every element and degree."""
    found = {}
    for k, (symbol, degrees) in enumerate(SHELLS[basis].items()):
        found[symbol] = [
            [[(-19.0 if l == a == b == 0 else 0.5 / (1 + a + b)) - 0.1 * k for b in range(count)] for a in range(count)]
            for l, count in enumerate(degrees.count(l) for l in range(max(degrees) + 1))
        ]
    return found


def configuration(name: str, *overrides: str, basis: str = "def2-svp") -> dict[str, Any]:
    """Return the plain configuration of a small model with a cutoff of 6 Å."""
    found = compose_model(name, "+cutoff=6.0", *SMALL[name], *overrides)
    return found | {"basis": basis, "shells": SHELLS[basis], "onsite": onsite(basis)}


@cache
def hamiltonian_model(name: str, *overrides: str, basis: str = "def2-svp", size: float = 0.3) -> AtomisticModel:
    """Return a model with random parameters in float64, the paths of its gates fixed; not to be changed."""
    model = random_model(configuration(name, *overrides, basis=basis), size=size)
    assert isinstance(model, HamiltonianNetwork)
    model.begin_step(0)
    return model


def acid() -> Atoms:
    """Return acetic acid, bent a little so that nothing is symmetric."""
    atoms = molecule("CH3COOH")
    atoms.rattle(0.05, seed=1)
    return atoms
