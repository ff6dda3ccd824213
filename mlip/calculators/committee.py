"""What a calculator of a committee adds: loading several models as one, and the spread of their predictions."""

from __future__ import annotations

import copy
import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from mlip.core.errors import ConfigError
from mlip.core.fields import SPREADS
from mlip.models.base import AtomisticModel
from mlip.models.committee import committee_of
from mlip.models.model_file import load_model
from mlip.nn.derivatives import predictable

Source = str | os.PathLike[str] | AtomisticModel
"""A model, or the name or path of its file."""


def load_as_one(model: Source | Sequence[Source], device: torch.device, dtype: torch.dtype | None) -> AtomisticModel:
    """Return a copy of a model, or of several as a committee; in evaluation mode.

    Args:
        model: model, path or name, or a list of these; a list of one is that one.
        device: where to put the weights.
        dtype: of the weights; None keeps each model's, or float64 for a committee in which one has float64.

    Raises:
        ModelFileError: a file is not a model file.
        ConfigError: an empty list, or models that do not fit together.
    """
    if isinstance(model, str | os.PathLike):
        return load_model(model, device=device, dtype=dtype)
    if isinstance(model, AtomisticModel):
        return copy.deepcopy(model).to(device=device, dtype=dtype or model.dtype).eval()
    models = [load_as_one(one, device, dtype) for one in model]
    if not models:
        raise ConfigError("A calculator needs at least one model; the list of models is empty.")
    return models[0] if len(models) == 1 else committee_of(models).eval()


def spread_properties(model: AtomisticModel) -> tuple[str, ...]:
    """Return the spreads that a model has: ``energy_std``, ``forces_std``, …; none unless it is a committee."""
    known = predictable(model)
    return tuple(name for name in SPREADS.values() if name in known)


def spreads_to_predict(model: AtomisticModel, wanted: Collection[str]) -> list[str]:
    """Return the spreads to compute together with the wanted properties: those that are asked for or cost nothing.

    Spreads of energies are free, of forces and stress in a committee of whole models, too, where these are computed
    anyway; a committee of readouts needs a backward pass for each member.
    """
    free = {"energy", "energies"} | ({"forces", "stress"} & set(wanted) if hasattr(model, "split") else set())
    known = spread_properties(model)
    return [spread for name, spread in SPREADS.items() if spread in known and (spread in wanted or name in free)]


def spread_results(predicted: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return the spreads of one structure as results of a calculator: numbers, and arrays (atoms,)."""
    found = {spread: predicted[spread] for spread in SPREADS.values() if spread in predicted}
    return {
        name: float(value[0]) if name in (SPREADS["energy"], SPREADS["stress"]) else value
        for name, value in found.items()
    }


def named(models: Sequence[str | os.PathLike[str]]) -> str | list[str]:
    """Return the name of the only model, or the names of several, for the record of a run."""
    names = [os.fspath(model) for model in models]
    return names[0] if len(names) == 1 else names
