"""Adapter of this project for the peer benchmark drivers, which time MACE, NequIP and SevenNet on fixed structures.

Copy it into the drivers' ``adapters`` folder and name the Python that has mlip-kit installed:

    python run_models.py --python mlip=.venv/bin/python --case mlip:facet-s --case mlip:facet-7net0 ...

The third part of a case chooses the mixer: nothing (quadratic), ``silu`` or ``silu10x19``, as in
``mlip:facet-3bpa:silu``.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from ase import Atoms
from torch_geometric.data import Batch

from mlip import MLIPCalculator
from mlip.data.build_graph import build_graph
from mlip.data.graph import AtomGraph
from mlip.models.build import build_model, parse_dtype
from mlip.nn.derivatives import predict

# Name: irreps_hidden, num_layers, lmax_edge.
SIZES = {
    "facet-s": ("64x0e+64x1o", 2, 3),
    "facet-3bpa": ("64x0e+64x1o+32x2e", 2, 2),
    "facet-7net0": ("128x0e+64x1o+32x2e", 5, 2),
}


class Adapter:
    """What the drivers call; random weights, energy and force loss."""

    def __init__(
        self, model: str, species: list[str], avg_neigh: float, dtype: str, mode: str, cutoff: float, sample: Any
    ) -> None:
        irreps, num_layers, lmax_edge = SIZES[model]
        factory = lambda path, **options: {"_target_": f"mlip.{path}", "_partial_": True, **options}  # noqa: E731
        activation = "SiLU" if mode.startswith("silu") else "Quadratic"
        config = {
            "_target_": "mlip.models.convolution_network.ConvolutionNetwork",
            "elements": species,
            "num_neighbors": float(avg_neigh),
            "neighbor_exponent": 0.7,
            "cutoff": cutoff,
            "irreps_hidden": irreps,
            "num_layers": num_layers,
            "lmax_edge": lmax_edge,
            "tensor_product": factory("ops.tensor_product.clebsch_gordan_dense.ClebschGordanDense"),
            "radial": factory("ops.radial.bspline.BSpline", num_basis=12),
            "envelope": factory("ops.envelope.polynomial.Polynomial"),
            "radial_weights": factory("nn.radial_weights.linear.LinearRadialWeights"),
            "self_connection": factory("nn.self_connection.linear.LinearSelfConnection"),
            "nonlinearity": factory(
                "nn.nonlinearity.sphere_mixer.SphereMixer", resolution=[10, 19] if mode == "silu10x19" else None
            ),
            "activation": {"_target_": f"mlip.nn.activations.{activation}"},
            "norm": factory("nn.layer_norm.EquivariantLayerNorm", initial_scale=1.0),
            "residual": True,
            "head": {"energy": factory("nn.heads.energy.EnergyHead", atomic_energies=dict.fromkeys(species, 0.0))},
        }
        self.cutoff = cutoff
        self.versions = {name: version(name) for name in ("e3nn", "torch")}
        self.model = build_model(config, dtype=parse_dtype(dtype))
        self.n_params = self.model.num_parameters
        self.opt = torch.optim.Adam(self.model.parameters(), lr=1e-4)

    def make_batch(self, structures: list[Atoms]) -> Batch:
        """Build the training batch once; it is not timed."""
        labels = [{"energy": np.array(a.info["ref_energy"]), "forces": a.arrays["ref_forces"]} for a in structures]
        return Batch.from_data_list([build_graph(a, self.cutoff, label) for a, label in zip(structures, labels)])

    def train_step(self, batch: Batch) -> float:
        """One optimiser step on energies an atom and forces."""
        self.opt.zero_grad(set_to_none=True)
        predicted = predict(self.model, batch, ("energy", "forces"), create_graph=True)
        energy = (predicted["energy"] - batch.energy) / torch.bincount(batch.batch)
        loss = energy.square().mean() + (predicted["forces"] - batch.forces).square().mean()
        loss.backward()
        self.opt.step()
        return float(loss.detach())

    def calculator(self) -> MLIPCalculator:
        """The calculator; the drivers ask molecules for a stress, too, which is left out for them."""
        calculator = MLIPCalculator(self.model)
        whole = calculator.calculate
        calculator.calculate = lambda atoms, wanted: whole(
            atoms, [name for name in wanted if name != "stress" or atoms.pbc.any()]
        )
        return calculator

    def graph(self, atoms: Atoms) -> AtomGraph:
        """Neighbour list and graph, built anew."""
        return build_graph(atoms, self.cutoff)

    nl = graph
