"""Small checkpoints in the format of the sevenn package, made from formulas."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from e3nn.o3 import Irreps, wigner_3j
from torch import Tensor

SPECIES = {29: 0, 1: 1, 8: 2}
"""Cu, H, O: rows in the order of the symbols, not of the numbers."""

COMMON = {
    "_model_type": "E3_equivariant_model",
    "_type_map": SPECIES,
    "_number_of_species": 3,
    "chemical_species": ["Cu", "H", "O"],
    "cutoff": 4.0,
    "channel": 4,
    "is_parity": False,
    "radial_basis": {"radial_basis_name": "bessel", "bessel_basis_num": 5},
    "weight_nn_hidden_neurons": [6, 7],
    "act_radial": "silu",
    "act_scalar": {"e": "silu", "o": "tanh"},
    "act_gate": {"e": "silu", "o": "tanh"},
    "readout_as_fcn": False,
    "train_shift_scale": False,
}

OLD = {
    **COMMON,
    "version": "0.9.1",
    "lmax": 2,
    "lmax_edge": -1,
    "lmax_node": -1,
    "num_convolution_layer": 3,
    "irreps_manual": ["4x0e", "4x0e+3x1e+2x2e", "4x0e+3x1e+2x2e", "4x0e"],
    "cutoff_function": {"cutoff_function_name": "XPLOR", "cutoff_on": 3.2, "poly_cut_p_value": 6},
    "self_connection_type": "linear",
    "optimize_by_reduce": True,
    "train_avg_num_neigh": False,
    "avg_num_neigh": [36.0, 36.0, 36.0],
    "shift": np.array([-3.0, -2.0, -1.0], dtype=np.float32),
    "scale": [1.5, 1.5, 1.5],
}
"""As SevenNet-0 of May 2024: solid harmonics, unsorted weights, names with blanks."""

NEW = {
    **COMMON,
    "version": "0.11.1",
    "lmax": 1,
    "lmax_edge": 2,
    "lmax_node": -1,
    "num_convolution_layer": 2,
    "irreps_manual": False,
    "cutoff_function": {"cutoff_function_name": "poly_cut", "poly_cut_p_value": 5},
    "self_connection_type": "nequip",
    "interaction_type": "nequip",
    "conv_denominator": [5.0, 6.0],
    "train_denominator": False,
    "use_bias_in_linear": True,
    "use_modality": True,
    "_number_of_modalities": 2,
    "_modal_map": {"R2SCAN": 0, "PBE": 1},
    "use_modal_node_embedding": True,
    "use_modal_self_inter_intro": True,
    "use_modal_self_inter_outro": True,
    "use_modal_output_block": True,
    "use_modal_wise_shift": True,
    "use_modal_wise_scale": False,
    "_normalize_sph": True,
    "shift": [[-3.0, -2.0, -1.0], [-3.5, -2.25, -1.125]],
    "scale": [1.5, 1.25, 0.75],
}
"""Two levels of theory, biases, weights of the self-connection for each element, sorted weights."""


def state_dict(config: dict[str, Any]) -> dict[str, Tensor]:
    """Return all weights of a checkpoint with these settings, float32, by the newer names."""
    lmax, layers = config["lmax"], config["num_convolution_layer"]
    lmax_edge = config["lmax_edge"] if config["lmax_edge"] > 0 else lmax
    hidden = Irreps("4x0e+3x1e+2x2e" if config["irreps_manual"] else [(4, (l, 1)) for l in range(lmax + 1)])
    extra, bias, species = (2 if config.get("use_modality") else 0), config.get("use_bias_in_linear", False), 3
    found = {"edge_embedding.basis_function.coeffs": _frequencies(config)}

    def linear(name: str, before: Irreps, after: Irreps, levels: int = 0) -> None:
        inputs = before + Irreps([(levels, "0e")]) if levels else before
        size = sum(a.mul * b.mul for a in inputs for b in after if a.ir == b.ir)
        found[f"{name}.linear.weight"] = _values(name, size)
        if bias:
            found[f"{name}.linear.bias"] = _values(f"{name} bias", sum(b.mul for b in after if b.ir.l == 0))

    scalars, node = hidden[:1], hidden[:1]
    linear("onehot_to_feature_x", Irreps([(species, "0e")]), scalars, extra)
    for k in range(layers):
        out = hidden if k < layers - 1 else scalars
        gates = Irreps([(out.num_irreps, "0e"), *out[1:]])
        paths = [
            (a.mul, a.ir, l, ir)
            for a in node
            for l in range(lmax_edge + 1)
            for ir in a.ir * Irreps([(1, (l, 1))])[0].ir
        ]
        paths = [path for path in paths if path[3].l <= out.lmax]
        middle = Irreps([(sum(p[0] for p in paths if p[3].l == l), (l, 1)) for l in range(out.lmax + 1)])
        if config["self_connection_type"] == "linear":
            size = sum(a.mul * b.mul for a in node for b in gates if a.ir == b.ir)
            found[f"{k}_self_connection_intro.linear.weight"] = _values(f"{k} own", size)
        else:
            size = sum(a.mul * species * b.mul for a in node for b in gates if a.ir == b.ir)
            found[f"{k}_self_connection_intro.fc_tensor_product.weight"] = _values(f"{k} own", size)
        linear(f"{k}_self_interaction_1", node, node, extra)
        found[f"{k}_convolution.denominator"] = torch.tensor([5.0 + k])
        widths = [5, 6, 7, sum(p[0] for p in paths)]
        for i in range(3):
            values = _values(f"{k} radial {i}", widths[i] * widths[i + 1]).reshape(widths[i], widths[i + 1])
            found[f"{k}_convolution.weight_nn.layer{i}.weight"] = values
        for _, first, l, ir in paths:
            if first.l and l and ir.l:
                degrees = (first.l, l, ir.l)
                name = f"{k}_convolution.convolution._compiled_main_left_right._w3j_{'_'.join(map(str, degrees))}"
                # Some versions of e3nn had the other sign.
                sign = -1 if config is OLD and degrees in ((1, 1, 2), (2, 1, 2)) else 1
                found[name] = sign * wigner_3j(*degrees, dtype=torch.float32)
        linear(f"{k}_self_interaction_2", middle, gates, extra)
        node = out
    linear("reduce_input_to_hidden", scalars, Irreps("2x0e"), extra)
    linear("reduce_hidden_to_energy", Irreps("2x0e"), Irreps("1x0e"))
    for name in ("shift", "scale"):
        found[f"rescale_atomic_energy.{name}"] = torch.as_tensor(config[name], dtype=torch.float32)
    return found


def _frequencies(config: dict[str, Any]) -> Tensor:
    orders = torch.arange(1, 6) * (1 + 0.01 * torch.arange(5))
    return orders * math.pi / config["cutoff"]


def _values(name: str, size: int) -> Tensor:
    return 2 * torch.cos(1.7 * torch.arange(size, dtype=torch.float64) + sum(name.encode())).float()


def checkpoint(config: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a checkpoint; of an old version with the old names."""
    state = state_dict(config)
    if config["version"].startswith("0.9."):
        state = {_older(name): value for name, value in state.items()}
    return {
        "model_state_dict": state,
        "optimizer_state_dict": {},
        "scheduler_state_dict": {},
        "config": config,
        "epoch": 3,
    }


def _older(name: str) -> str:
    module, _, rest = name.partition(".")
    spoken = {
        "edge_embedding": "EdgeEmbedding",
        "reduce_input_to_hidden": "reducing nn input to hidden",
        "reduce_hidden_to_energy": "reducing nn hidden to energy",
        "rescale_atomic_energy": "rescale atomic energy",
    }
    blank = ("convolution", "self_connection_intro", "self_interaction_2")
    module = spoken.get(module, module.replace("_", " ") if module[2:] in blank else module)
    return f"{module}.{rest.replace('denominator', 'denumerator')}"


def write(path: Path, config: dict[str, Any]) -> Path:
    """Write a checkpoint file."""
    torch.save(checkpoint(config), path)
    return path


def structures() -> list[Atoms]:
    """Return a crystal with a skewed cell, and a cluster."""
    positions = [[0.1, 0.2, 0.3], [1.9, 0.1, 0.4], [0.2, 1.7, 1.5], [1.6, 1.8, 2.1]]
    cell = [[3.6, 0.1, 0.0], [0.3, 3.9, 0.2], [0.0, 0.4, 4.2]]
    return [Atoms("CuOHO", positions, cell=cell, pbc=True), Atoms("OHH", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0.1]])]
