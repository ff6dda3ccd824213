"""The shipped components, enumerated: a new yaml and its python file are tested with no other edit."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from mlip.cli.config_dir import config_dir
from mlip.core.build import build
from mlip.models.base import AtomisticModel
from mlip.models.build import build_model

ENERGIES = {"H": -13.6, "C": -1029.4, "O": -2041.8, "Si": -289.2}
"""eV, of the size all-electron codes give, so that lost digits show."""

STATISTICS = {
    "elements": ["O", "H", "C"],
    "num_neighbors": 14.2,
    "atomic_energies": ENERGIES,
    "force_rms": 1.3,
    "energy_per_atom_mean": -4.5,
    "charge": [-1, 0, 1],
    "spin": [1, 2, 3],
    "basis": "def2-svp",
    "functional": "b3lyp5",
    "shells": {"H": [0, 0, 1], "C": [0, 0, 0, 1, 1, 2], "O": [0, 0, 0, 1, 1, 2]},
    "onsite": None,
    "onsite_difference": None,
}


def component_names(group: str) -> list[str]:
    """Return the names of the options of a group such as ``tensor_product``, or of the models for ``""``."""
    return sorted(path.stem for path in (config_dir() / "model" / group).glob("*.yaml"))


def component(group: str, name: str) -> dict[str, Any]:
    """Return the plain configuration of an option, its references to the statistics resolved."""
    return deepcopy(_component(group, name))


@cache
def _component(group: str, name: str) -> dict[str, Any]:
    text = (config_dir() / "model" / group / f"{name}.yaml").read_text(encoding="utf-8")
    node = OmegaConf.create({"cutoff": 5.0, "statistics": STATISTICS, "node": yaml.safe_load(text)})
    found = OmegaConf.to_container(node, resolve=True)["node"]
    # Of options of a list (heads, pair terms) the only key is their name.
    return found[name] if list(found) == [name] else found


def factory(group: str, name: str) -> Any:
    """Build an option as the model does: a factory if its yaml is partial, else the object."""
    return build(component(group, name))


def compose_model(name: str, *overrides: str) -> dict[str, Any]:
    """Compose a model's configuration with Hydra and resolve it against the statistics."""
    return deepcopy(_compose(name, overrides))


@cache
def _compose(name: str, overrides: tuple[str, ...]) -> dict[str, Any]:
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose(overrides=[f"+model={name}", *overrides])
    config = OmegaConf.merge({"cutoff": 4.0, "statistics": STATISTICS}, config)
    return OmegaConf.to_container(config, resolve=True)["model"]


SMALL = ("model.irreps_hidden=6x0e+4x1o+2x2e", "model.num_layers=2")
"""Facet's size in most tests."""


def random_model(config: dict[str, Any], seed: int = 0, size: float = 0.3) -> AtomisticModel:
    """Build a model in float64 with parameters far from their initial values (which are symmetric zeros)."""
    model = build_model(config, seed=seed, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return model.eval()


def small_facet(*overrides: str, seed: int = 0) -> AtomisticModel:
    """Return a small exactly equivariant Facet with random parameters in float64."""
    return random_model(compose_model("facet", *SMALL, "model/activation=quadratic", *overrides), seed)


def repository_root() -> Path:
    """Return the folder of the checkout."""
    return Path(__file__).resolve().parents[1]
