"""The model file: one safetensors file, weights plus a JSON header. Nothing in it is executed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from mlip.core.errors import ConfigError, ModelFileError
from mlip.core.fields import FIELDS, TARGETS
from mlip.core.files import write_atomically
from mlip.models.base import AtomisticModel
from mlip.models.build import build_model, parse_dtype
from mlip.models.names import find_model
from mlip.nn.derivatives import predictable

FORMAT_VERSION = 2
"""Raised when the header or the names of the weights change; older versions get an upgrade function."""

_KEY = "mlip"

_ENTRIES: dict[str, type | tuple[type, ...]] = {
    "config": dict,
    "elements": list,
    "cutoff": (int, float),
    "dtype": str,
    "metadata": dict,
}
"""What every header has, and of which kind."""

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
            save_file(weights, temporary, {_KEY: text})
        except SafetensorError as error:
            # safetensors wraps the error of the operating system, e.g. a full disk.
            raise OSError(str(error)) from error

    write_atomically(path, write)


def read_header(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the JSON header of a model file without building the model.

    Raises:
        ModelFileError: no such file, truncated, not a model file, or an unknown format version.
    """
    return _read(path, weights=False)[0]


def load_model(
    path: str | os.PathLike[str], device: str | torch.device = "cpu", dtype: str | torch.dtype | None = None
) -> AtomisticModel:
    """Load a model for inference; imports neither Lightning nor Hydra.

    Args:
        path: model file, or the name of an imported model.
        device: where to put the weights.
        dtype: ``float32`` or ``float64``; None keeps the type of the file.

    Raises:
        ModelFileError: as :func:`read_header`, or weights that do not fit the configuration or are not finite.
    """
    header, weights = _read(path, weights=True)
    wanted = parse_dtype(dtype) or parse_dtype(str(header["dtype"]))
    try:
        model = build_model(header["config"], dtype=torch.float64)
    except _UNBUILDABLE as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ModelFileError(f"'{path}' describes a model this version cannot build: {reason}") from error
    if list(model.elements) != header["elements"] or model.cutoff != header["cutoff"]:
        raise ModelFileError(
            f"The header of '{path}' is damaged: it names the elements {header['elements']} and a cutoff of "
            f"{header['cutoff']} Å, its configuration {list(model.elements)} and {model.cutoff} Å."
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


def _read(path: str | os.PathLike[str], weights: bool) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    path = find_model(path)
    if not path.is_file():
        raise ModelFileError(f"There is no model file '{path}'. Training writes one to RUN/model.safetensors.")
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()} if weights else {}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        if path.suffix == ".ckpt":
            raise ModelFileError(
                f"'{path}' is a checkpoint to resume a training from; the model is model.safetensors beside it."
            ) from error
        raise ModelFileError(
            f"'{path}' cannot be read as a model file: it is truncated or not a safetensors file ({error})."
        ) from error
    if text is None:
        raise ModelFileError(f"'{path}' is a safetensors file, but not one of mlip: its header has no '{_KEY}' entry.")
    try:
        header = json.loads(text)
        version = header["format_version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelFileError(f"The header of '{path}' is damaged ({error}).") from error
    if version != FORMAT_VERSION:
        mend = (
            "It is older than the models of today: train it again."
            if version == 1
            else "Update mlip to read newer files."
        )
        raise ModelFileError(f"'{path}' has format version {version}; this mlip reads version {FORMAT_VERSION}. {mend}")
    absent = [key for key in _ENTRIES if key not in header]
    if absent:
        raise ModelFileError(f"The header of '{path}' lacks {', '.join(absent)}.")
    wrong = [key for key, kind in _ENTRIES.items() if not isinstance(header[key], kind)]
    if wrong or not all(isinstance(symbol, str) for symbol in header["elements"]):
        raise ModelFileError(f"The header of '{path}' is damaged: {', '.join(wrong or ['elements'])} cannot be that.")
    return header, tensors
