"""Build a model from its plain configuration."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch

from mlip.core.build import TARGET, build, locate
from mlip.core.errors import ConfigError
from mlip.data.build_graph import as_builder
from mlip.data.graphs.base import GraphBuilder
from mlip.models.base import AtomisticModel

KERNELS = "kernels"
"""Option of every model."""

DTYPES: dict[str, torch.dtype] = {"float32": torch.float32, "float64": torch.float64}
"""Floating-point types by their name in configurations and on the command line."""


def build_model(config: Mapping[str, Any], seed: int = 0, dtype: torch.dtype = torch.float32) -> AtomisticModel:
    """Build a model with reproducible initial weights.

    Args:
        config: plain containers with ``_target_``; everything resolved, statistics of the data included. Every model
            takes ``kernels`` besides its own options, see `AtomisticModel.use_kernels`.
        seed: of the initial weights. The global random state is left as it was.
        dtype: of the weights.

    Raises:
        ConfigError: the configuration does not describe a model.
    """
    if not isinstance(config, Mapping) or TARGET not in config:
        raise ConfigError(f"A model configuration is a mapping with '{TARGET}', got {type(config).__name__}.")
    config = deepcopy(dict(config))
    _check_targets(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build({name: value for name, value in config.items() if name != KERNELS})
    if not isinstance(model, AtomisticModel):
        raise ConfigError(f"model._target_ must be a model of mlip, got '{config.get(TARGET)}'.")
    model.config = config
    model.use_kernels(config.get(KERNELS, "auto"))
    return model.to(dtype)


def build_graph_builder(config: Mapping[str, Any]) -> GraphBuilder:
    """Build the graph builder of a model's configuration, without the model: for the statistics that it needs.

    Args:
        config: as for `build_model`; only ``graph`` and ``cutoff`` need to be resolved.

    Raises:
        ConfigError: ``graph`` does not describe a graph builder.
    """
    graph = config.get("graph")
    if graph is None:
        return as_builder(config["cutoff"])
    _check_targets(graph)
    builder = build(graph)
    if not isinstance(builder, GraphBuilder):
        raise ConfigError(f"model.graph must be a graph builder such as model/graph=radius, got {graph!r}.")
    return builder


def _check_targets(config: Any) -> None:
    """Refuse targets that are no parts of models: a model file from a stranger must not call functions of ours.

    Without this, ``_target_: mlip.core.files.write_text_atomically`` in a header would write a file.
    """
    if isinstance(config, Mapping):
        if TARGET in config:
            found = locate(config[TARGET])
            if not (isinstance(found, type) and issubclass(found, torch.nn.Module | GraphBuilder)):
                raise ConfigError(
                    f"_target_ '{config[TARGET]}' is no part of a model: only modules and graphs are built here."
                )
        for value in config.values():
            _check_targets(value)
    elif isinstance(config, list | tuple):
        for value in config:
            _check_targets(value)


def parse_dtype(name: str | torch.dtype | None) -> torch.dtype | None:
    """Return a torch dtype from its name; None stays None.

    Raises:
        ConfigError: neither ``float32`` nor ``float64``.
    """
    if name is None or isinstance(name, torch.dtype):
        return name
    if not isinstance(name, str) or name not in DTYPES:
        raise ConfigError(f"dtype must be one of {', '.join(DTYPES)}, got '{name}'.")
    return DTYPES[name]
