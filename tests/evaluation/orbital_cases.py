"""A small Hamiltonian network and molecules with labels that are known, for tests of evaluation."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from ase import Atoms

from mlip.data.build_graph import graph_of
from mlip.data.orbitals import num_orbitals
from mlip.data.sample import Sample
from mlip.evaluation.predict import Prediction, predict_dataset
from mlip.models.base import AtomisticModel
from tests.components import compose_model, random_model

BASIS = "def2-svp"
SHELLS = "{H:[0,0,1],C:[0,0,0,1,1,2],O:[0,0,0,1,1,2]}"


@cache
def small_qhnet() -> AtomisticModel:
    """Return an untrained QHNet in float64; what it predicts is no physics, but symmetric and equivariant."""
    overrides = ("basis=def2-svp", "functional=b3lyp5", f"shells={SHELLS}", "onsite=null", "elements=[H,C,O]")
    overrides += ("num_channels=4", "lmax=2", "num_layers=2", "bottleneck=4")
    return random_model(compose_model("qhnet", *(f"model.{text}" for text in overrides)), size=0.05)


def waters(count: int) -> list[Atoms]:
    """Return slightly different water molecules."""
    rng = np.random.default_rng(0)
    place = np.array([[0.0, 0.0, 0.117], [0.0, 0.757, -0.469], [0.0, -0.757, -0.469]])
    return [Atoms("OH2", positions=place + 0.02 * rng.normal(size=(3, 3))) for _ in range(count)]


def metric(atoms: Atoms, seed: int = 0) -> np.ndarray:
    """Return a positive definite matrix in the place of an overlap, for tests without PySCF."""
    size = num_orbitals(atoms.numbers, BASIS)
    noise = np.random.default_rng(seed).normal(size=(size, size))
    return np.eye(size) + 0.2 / size**0.5 * (noise + noise.T) / 2


def predictions(molecules: list[Atoms]) -> list[Prediction]:
    """Return what the small network predicts."""
    model = small_qhnet()
    graphs = [graph_of(atoms, model.graph_builder) for atoms in molecules]
    with torch.no_grad():
        return predict_dataset(model, graphs, ("hamiltonian",))


def sample(atoms: Atoms, source: str, **labels: np.ndarray | int) -> Sample:
    """Return a labelled molecule."""
    info = {"source": source, "basis": "def2-SVP", "functional": "b3lyp5"}
    return Sample(atoms, {name: np.asarray(value) for name, value in labels.items()}, info)
