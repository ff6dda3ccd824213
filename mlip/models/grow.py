"""More elements for a model that is there already; what it predicts for the old ones stays the same to the bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from ase.data import atomic_numbers, chemical_symbols
from torch import Tensor

from mlip.core.errors import ConfigError, ModelFileError, did_you_mean
from mlip.core.fields import FIELDS
from mlip.data.elements import list_elements
from mlip.models.base import AtomisticModel, sort_elements
from mlip.models.build import build_model

Start = Literal["nearest", "mean"]
"""What a new element starts as: the known element that is nearest in the periodic table, or the mean of all."""

ENERGIES = "atomic_energies"
"""Mappings of this name in a model's configuration are reference energies (eV by symbol)."""

_PERIODS = (1, 3, 11, 19, 37, 55, 87)
_COLUMNS = 18


def add_elements(
    model: AtomisticModel, elements: Sequence[str], start: Start = "nearest"
) -> tuple[AtomisticModel, dict[str, tuple[str, ...]]]:
    """Return a model of the same weights that knows more elements.

    The model is built again with the longer list of elements. A dimension of a parameter that counted the known
    elements and counts all elements now gets more rows: those of the known elements are copied, a new element starts
    with the mean of the rows of the elements that it is made after. Reference energies of new elements are zero, or
    what the configuration has for them already.

    Args:
        model: built from a configuration or loaded from a file.
        elements: symbols that it is to know besides its own.
        start: how new elements start.

    Returns:
        The model, the very same one if it knows all elements, and for each new symbol the known ones it starts as.

    Raises:
        ConfigError: an unknown symbol or start.
        ModelFileError: a weight depends on the elements in another way than by a dimension that counts them, or the
            model predicts matrices over orbitals.
    """
    if start not in get_args(Start):
        hint = did_you_mean(str(start), get_args(Start))
        raise ConfigError(f"A new element starts as 'nearest' or 'mean', got {start!r}.{hint}")
    known, wanted = model.elements, sort_elements([*model.elements, *elements])
    new = [symbol for symbol in wanted if symbol not in known]
    if not new:
        return model, {}
    if any(FIELDS[name].level == "orbital_pair" for name in model.fields if name in FIELDS):
        raise ModelFileError(
            f"{type(model).__name__} cannot get new elements: its matrices are laid out for the orbitals of "
            f"{list_elements(known)}. Train a new model on data of all elements."
        )
    origins = {symbol: (nearest_element(symbol, known),) if start == "nearest" else known for symbol in new}
    grown = build_model(_with_elements(model.config, known, origins), dtype=model.dtype)
    if grown.elements != wanted:
        raise ModelFileError(
            f"{type(model).__name__} cannot get new elements: it knows {list_elements(grown.elements)} after "
            f"{', '.join(new)} were added to its configuration."
        )
    rows = _Rows(known, wanted, origins)
    before, after = model.state_dict(), grown.state_dict()
    if before.keys() != after.keys():
        names = ", ".join(sorted(before.keys() ^ after.keys()))
        raise ModelFileError(
            f"{type(model).__name__} cannot get new elements: its weights {names} come and go with them."
        )
    grown.load_state_dict({name: rows.fit(name, value, after[name].shape) for name, value in before.items()})
    grown.metadata = model.metadata
    return grown.to(model.device).train(model.training), origins


def shift_energies(model: AtomisticModel, shifts: Mapping[str, float]) -> AtomisticModel:
    """Return a model of the same weights with other reference energies of the elements.

    Args:
        model: built from a configuration or loaded from a file.
        shifts: eV by symbol; what is added to every energy of an atom of that element.

    Raises:
        ModelFileError: the configuration has no reference energies.
    """
    if not has_reference_energies(model):
        raise ModelFileError(
            f"The configuration of this {type(model).__name__} has no '{ENERGIES}' that could be fitted to the new "
            "energies."
        )
    shifted = build_model(_shifted(model.config, shifts), dtype=model.dtype)
    shifted.load_state_dict(model.state_dict())
    shifted.metadata = model.metadata
    return shifted.to(model.device).train(model.training)


def has_reference_energies(model: AtomisticModel) -> bool:
    """Return whether the configuration of a model has reference energies of the elements."""
    return _mentions(model.config)


def nearest_element(symbol: str, known: Sequence[str]) -> str:
    """Return which of the known elements is nearest in the periodic table.

    The same group comes first, the next period before others; without one, the fewest columns, then the fewest
    periods away. Hydrogen is of no group, the lanthanides and actinides are of group 3.

    >>> nearest_element("Ge", ["H", "Ga", "As", "C", "Si"])
    'Si'
    >>> nearest_element("N", ["H", "C", "Cl"])
    'C'
    """
    column, period = _place(symbol)
    number = atomic_numbers[symbol]

    def distance(other: str) -> tuple[int, int, int, int]:
        other_column, other_period = _place(other)
        away = abs(atomic_numbers[other] - number)
        return abs(other_column - column), abs(other_period - period), away, atomic_numbers[other]

    return min(known, key=distance)


def _place(symbol: str) -> tuple[int, int]:
    """Return (column, period) of an element; hydrogen's column is 0."""
    number = atomic_numbers[symbol]
    if number <= 2:
        return (0, 1) if number == 1 else (_COLUMNS, 1)
    period = sum(number >= first for first in _PERIODS)
    index = number - _PERIODS[period - 1] + 1
    if index <= 2:
        return index, period
    if period <= 3:
        return index + 10, period
    if period <= 5:
        return index, period
    # The 15 lanthanides or actinides share the third column.
    return (3, period) if index <= 17 else (index - 14, period)


class _Rows:
    """Which rows of the known elements each row of a grown table is made of."""

    def __init__(self, known: Sequence[str], wanted: Sequence[str], origins: Mapping[str, Sequence[str]]) -> None:
        self.count = len(known)
        self.sources = [[known.index(s) for s in origins.get(symbol, (symbol,))] for symbol in wanted]

    def fit(self, name: str, value: Tensor, shape: torch.Size) -> Tensor:
        if value.ndim != len(shape):
            raise self._odd(name, value, shape)
        for dim, (old, new) in enumerate(zip(value.shape, shape)):
            if old == new:
                continue
            if (old, new) != (self.count, len(self.sources)):
                raise self._odd(name, value, shape)
            rows = [value.index_select(dim, torch.tensor(s, device=value.device)) for s in self.sources]
            # A mean of one row is that row to the bit.
            value = torch.cat([row if row.shape[dim] == 1 else row.mean(dim, keepdim=True) for row in rows], dim)
        return value

    def _odd(self, name: str, value: Tensor, shape: torch.Size) -> ModelFileError:
        return ModelFileError(
            f"The model cannot get new elements: its weight '{name}' of shape {tuple(value.shape)} for {self.count} "
            f"elements has the shape {tuple(shape)} for {len(self.sources)}; a dimension should count the elements."
        )


def _with_elements(config: Any, known: Sequence[str], origins: Mapping[str, Sequence[str]], name: str = "") -> Any:
    """Return a configuration whose lists of the elements and values by element have the new ones, too."""
    if isinstance(config, Mapping):
        if not _by_element(config, known):
            return {key: _with_elements(value, known, origins, key) for key, value in config.items()}
        # The energies of two elements have nothing to do with each other.
        made = {
            symbol: 0.0 if name == ENERGIES else sum(config[s] for s in sources) / len(sources)
            for symbol, sources in origins.items()
        }
        return made | dict(config)
    if isinstance(config, list | tuple):
        if config and all(isinstance(x, str) for x in config) and set(config) == set(known):
            return [*config, *origins]
        return [_with_elements(value, known, origins) for value in config]
    return config


def _by_element(config: Mapping[Any, Any], known: Sequence[str]) -> bool:
    """Whether a mapping has a number for every known element."""
    return set(known) <= set(config) and all(
        key in chemical_symbols and isinstance(value, int | float) for key, value in config.items()
    )


def _shifted(config: Any, shifts: Mapping[str, float]) -> Any:
    """Return a configuration with other reference energies."""
    if isinstance(config, Mapping):
        return {
            key: {symbol: energy + shifts.get(symbol, 0.0) for symbol, energy in value.items()}
            if key == ENERGIES and isinstance(value, Mapping)
            else _shifted(value, shifts)
            for key, value in config.items()
        }
    return [_shifted(value, shifts) for value in config] if isinstance(config, list | tuple) else config


def _mentions(config: Any) -> bool:
    """Whether a configuration has reference energies."""
    if isinstance(config, Mapping):
        return isinstance(config.get(ENERGIES), Mapping) or any(_mentions(value) for value in config.values())
    return isinstance(config, list | tuple) and any(_mentions(value) for value in config)
