"""The plain settings of ``mlip train``: what each of them may be."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mlip.core.errors import ConfigError
from mlip.core.numbers import is_number, is_whole

if TYPE_CHECKING:
    from omegaconf import DictConfig

_Rule = tuple[str, Callable[[Any], bool]]
_COUNT: _Rule = ("a whole number from 1", lambda value: is_whole(value) and value >= 1)
_LIMIT: _Rule = ("a whole number from 1, or null", lambda value: value is None or (is_whole(value) and value >= 1))
_FROM_ZERO: _Rule = ("a whole number from 0", lambda value: is_whole(value) and value >= 0)
_POSITIVE: _Rule = ("a positive number", lambda value: is_number(value) and value > 0)
_NAME: _Rule = ("a name", lambda value: isinstance(value, str) and value != "")

_RULES: dict[str, _Rule] = {
    "run_dir": _NAME,
    "name": _NAME,
    "seed": _FROM_ZERO,
    "max_epochs": _POSITIVE,
    "batch_edges": _LIMIT,
    "batch_graphs": _LIMIT,
    "batch_atoms": _LIMIT,
    "bucket": _FROM_ZERO,
    "validate_every": _POSITIVE,
    "checkpoint_every": _COUNT,
    "ema_decay": ("a number from 0, below 1", lambda value: is_number(value) and 0 <= value < 1),
    "patience": _LIMIT,
    "num_workers": _FROM_ZERO,
    "atomic_energy_regularisation": ("a number from 0", lambda value: is_number(value) and value >= 0),
}


def check_numbers(config: DictConfig) -> None:
    """Refuse plain settings that no training can have, before data are read.

    Args:
        config: of a new run.

    Raises:
        ConfigError: names the setting and what it may be.
    """
    for name, (meaning, fits) in _RULES.items():
        value = config.get(name)
        # A number is a name, too.
        if not fits(str(value) if meaning == _NAME[0] and is_whole(value) else value):
            raise ConfigError(f"{name} must be {meaning}, got {value!r}.")
