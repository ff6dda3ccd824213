"""A tiny training problem: a few random molecules with the energies and forces of a Morse potential."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.morse import MorsePotential
from rich.console import Console

from mlip.data.loading import GraphDataset
from mlip.data.sample import Sample
from mlip.models.base import AtomisticModel
from mlip.models.build import build_model
from mlip.training.losses.energy import EnergyLoss
from mlip.training.losses.forces import ForcesLoss
from mlip.training.losses.penalties import L2
from mlip.training.optimizers import adamw
from mlip.training.run import Outcome, Run, train
from mlip.training.schedules import WarmupCosine

CUTOFF = 3.0


def samples(count: int, seed: int) -> list[Sample]:
    """Return molecules of three to six atoms, so that batches by edges differ in size."""
    rng = np.random.default_rng(seed)
    found = []
    for k in range(count):
        number = int(rng.integers(3, 7))
        grid = np.stack(np.meshgrid(*[np.arange(2)] * 3), -1).reshape(-1, 3)[:number] * 1.2
        atoms = Atoms(rng.choice(["H", "C"], number), grid + rng.normal(0, 0.1, (number, 3)))
        atoms.calc = MorsePotential(epsilon=1.0, r0=1.2, rho0=3.0, rcut1=2.5, rcut2=2.9)
        labels = {"energy": np.array(atoms.get_potential_energy()), "forces": atoms.get_forces()}
        atoms.calc = None
        found.append(Sample(atoms, labels, {"source": f"made up:{k}"}))
    return found


def model_config() -> dict[str, Any]:
    partial_of = lambda path, **options: {"_target_": path, "_partial_": True, **options}  # noqa: E731
    return {
        "_target_": "mlip.models.convolution_network.ConvolutionNetwork",
        "elements": ["H", "C"],
        "cutoff": CUTOFF,
        "num_neighbors": 4.0,
        "neighbor_exponent": 0.7,
        "irreps_hidden": "8x0e+4x1o",
        "num_layers": 2,
        "lmax_edge": 1,
        "tensor_product": partial_of("mlip.ops.tensor_product.clebsch_gordan_dense.ClebschGordanDense"),
        "radial": partial_of("mlip.ops.radial.bspline.BSpline", num_basis=6),
        "envelope": partial_of("mlip.ops.envelope.polynomial.Polynomial"),
        "radial_weights": partial_of("mlip.nn.radial_weights.linear.LinearRadialWeights"),
        "self_connection": partial_of("mlip.nn.self_connection.linear.LinearSelfConnection"),
        "nonlinearity": partial_of("mlip.nn.nonlinearity.sphere_mixer.SphereMixer", resolution=[4, 7]),
        "activation": {"_target_": "mlip.nn.activations.SiLU"},
        "norm": partial_of("mlip.nn.layer_norm.EquivariantLayerNorm", initial_scale=0.5),
        "residual": True,
        "head": {
            "energy": partial_of("mlip.nn.heads.energy.EnergyHead", atomic_energies={"H": 0.0, "C": 0.0}),
        },
    }


def make_model(seed: int = 0) -> AtomisticModel:
    return build_model(model_config(), seed=seed)


def make_run(folder: Path, penalty: Any = None, **changes: Any) -> Run:
    """Return a run of 24 or so steps with a validation every six."""
    settings = {
        "folder": folder,
        "losses": {
            "energy": EnergyLoss(weight=1.0, penalty=L2()),
            "forces": ForcesLoss(weight=1.0, penalty=penalty or L2()),
        },
        "optimizer": partial(adamw, lr=0.01),
        "schedule": partial(WarmupCosine, warmup=0.1),
        "max_epochs": 4,
        "batch_edges": 60,
        "batch_graphs": 3,
        "checkpoint_every": 1000,
        "ema_decay": 0.9,
        "seed": 3,
        "trainer": {"accelerator": "cpu", "devices": 1, "gradient_clip_val": 10.0},
        "fingerprint": {"the setting 'model'": "a", "the training data": "b"},
        "resume_hint": f"mlip train --resume {folder}",
    }
    return Run(**(settings | changes))


def run_training(run: Run, console: Console | None = None) -> tuple[AtomisticModel, Outcome]:
    """Train from the same initial weights every time."""
    model = make_model()
    train_set, valid_set = GraphDataset(samples(16, 0), CUTOFF), GraphDataset(samples(5, 1), CUTOFF)
    return model, train(model, train_set, valid_set, run, console or Console(quiet=True))
