"""The model file: one safetensors file, weights plus a JSON header. Nothing in it is executed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from mlip.core.errors import ConfigError, ModelFileError
from mlip.core.fields import FIELDS, TARGETS
from mlip.core.files import write_atomically
from mlip.data.elements import list_elements
from mlip.models.base import AtomisticModel
from mlip.models.build import build_model, parse_dtype
from mlip.models.header import FORMAT_VERSION, KEY, opened
from mlip.models.size_limit import no_more_than
from mlip.nn.derivatives import predictable

# A damaged number may ask for more memory or digits than there are, nested lists for more depth than Python has.
_UNBUILDABLE = (ConfigError, TypeError, LookupError, ArithmeticError, RuntimeError, MemoryError)


def save_model(path: str | os.PathLike[str], model: AtomisticModel, metadata: Mapping[str, Any] | None = None) -> None:
    """Write a model file, whole or not at all.

    Args:
        path: usually ``model.safetensors``.
        model: built by :func:`mlip.models.build.build_model` or loaded from a file.
        metadata: plain JSON data for the card: provenance, data, metrics.

    Raises:
        ModelFileError: the model does not know its configuration.
        MlipError: the file cannot be written.
    """
    if not model.config:
        raise ModelFileError("Only models built from a configuration can be saved: use build_model(config).")
    header = {
        "format_version": FORMAT_VERSION,
        "config": model.config,
        "elements": list(model.elements),
        "cutoff": model.cutoff,
        "dtype": str(model.dtype).removeprefix("torch."),
        "units": {"length": "Å"} | {name: FIELDS[name].unit for name in TARGETS if name in predictable(model)},
        "inputs": {name: list(values) for name, values in model.inputs.items()},
        "num_parameters": model.num_parameters,
        "metadata": dict(metadata or model.metadata),
    }
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    try:
        text = json.dumps(header, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise ModelFileError(f"Configuration and metadata must be plain JSON data to be saved: {error}.") from error

    def write(temporary: Path) -> None:
        try:
            save_file(weights, temporary, {KEY: text})
        except SafetensorError as error:
            # safetensors wraps the error of the operating system, e.g. a full disk.
            raise OSError(str(error)) from error

    write_atomically(path, write)


def load_model(
    path: str | os.PathLike[str], device: str | torch.device = "cpu", dtype: str | torch.dtype | None = None
) -> AtomisticModel:
    """Load a model for inference; imports neither Lightning nor Hydra.

    Args:
        path: model file, or the name of an imported model.
        device: where to put the weights.
        dtype: ``float32`` or ``float64``; None keeps the type of the file.

    Raises:
        ModelFileError: as :func:`mlip.models.header.read_header`, or weights that do not fit the configuration or
            are not finite.
    """
    with opened(path, "pt") as (file, header):
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    wanted = parse_dtype(dtype) or parse_dtype(str(header["dtype"]))
    try:
        with no_more_than(len(weights), sum(value.numel() for value in weights.values())):
            model = build_model(header["config"], dtype=torch.float64)
    except _UNBUILDABLE as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ModelFileError(f"'{path}' describes a model this version cannot build: {reason}") from error
    if list(model.elements) != header["elements"] or model.cutoff != header["cutoff"]:
        different = sorted(set(model.elements) ^ set(header["elements"]))
        raise ModelFileError(
            f"The header of '{path}' is damaged: it names the elements {list_elements(header['elements'])} and a "
            f"cutoff of {header['cutoff']} Å, its configuration {list_elements(model.elements)} and {model.cutoff} Å"
            + (f"; they differ in {list_elements(different)}." if different else ".")
        )
    missing, unexpected = (
        model.load_state_dict(weights, strict=False) if _shapes_fit(model, weights, path) else ([], [])
    )
    if missing or unexpected:
        raise ModelFileError(
            f"The weights in '{path}' do not fit its configuration: missing {sorted(missing) or 'none'}, "
            f"unexpected {sorted(unexpected) or 'none'}."
        )
    try:
        model = model.to(device=device, dtype=wanted)
    except (RuntimeError, AssertionError) as error:
        raise ModelFileError(f"device='{device}' is not available: {str(error).splitlines()[0]}") from error
    model.metadata = header["metadata"]
    return model.eval()


def _shapes_fit(model: AtomisticModel, weights: Mapping[str, torch.Tensor], path: object) -> bool:
    for name, value in model.state_dict().items():
        if name in weights and weights[name].shape != value.shape:
            raise ModelFileError(
                f"The weights in '{path}' do not fit its configuration: '{name}' should have shape "
                f"{tuple(value.shape)}, has {tuple(weights[name].shape)}."
            )
        if name in weights and not torch.isfinite(weights[name]).all():
            raise ModelFileError(
                f"The weights '{name}' in '{path}' are not finite: the training diverged or the file is damaged."
            )
    return True
