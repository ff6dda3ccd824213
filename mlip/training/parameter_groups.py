"""Parts of a model by the names of its modules: which keep their weights, and which learn how fast."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from mlip.core.errors import ConfigError, did_you_mean
from mlip.core.numbers import is_number

OTHERS = "all others"
"""Name of the group of the parameters that no prefix is about."""


def freeze(model: nn.Module, prefixes: Sequence[str]) -> list[str]:
    """Make parameters keep their values.

    Args:
        model: changed in place.
        prefixes: dotted names of modules or parameters, e.g. ``["embedding", "layers.0"]``.

    Returns:
        Names of the frozen parameters.

    Raises:
        ConfigError: a prefix that no parameter has, or nothing is left to learn.
    """
    if isinstance(prefixes, str):
        raise ConfigError(f"finetune.freeze is a list of names, got '{prefixes}': write finetune.freeze=[{prefixes}].")
    _check_names("finetune.freeze", prefixes, model)
    frozen = [name for name, _ in model.named_parameters() if any(_belongs(name, prefix) for prefix in prefixes)]
    for name in frozen:
        model.get_parameter(name).requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError(
            f"finetune.freeze=[{','.join(prefixes)}] freezes all parameters, nothing is left to learn: leave some out."
        )
    return frozen


def parameter_groups(
    model: nn.Module, lr: float, weight_decay: float, lr_factors: Mapping[str, float] | None = None
) -> list[dict[str, Any]]:
    """Return the groups of an optimiser: one for each learning rate and weight decay, frozen parameters in none.

    The longest prefix decides: ``{"layers": 0.1, "layers.1": 1.0}`` lets the second layer learn at the full rate.
    Weight decay acts on matrices only, never on scales and shifts.

    Args:
        model: whose parameters they are.
        lr: learning rate.
        weight_decay: of parameters with two dimensions or more.
        lr_factors: by the dotted name of a module or parameter, what its learning rate is multiplied by.

    Returns:
        ``params``, ``lr`` and ``weight_decay`` of each group, the name of its ``part`` and its ``lr_factor``.

    Raises:
        ConfigError: a prefix that no parameter has, or a factor that is not positive.
    """
    if lr_factors is not None and not isinstance(lr_factors, Mapping):
        raise ConfigError(f"optimizer.lr_factors is a mapping such as {{embedding: 0.1}}, got {lr_factors!r}.")
    factors = dict(lr_factors or {})
    _check_names("optimizer.lr_factors", factors, model)
    for name, factor in factors.items():
        if not is_number(factor) or factor <= 0:
            raise ConfigError(
                f"optimizer.lr_factors needs a positive number for '{name}', got {factor!r}; finetune.freeze=[{name}] "
                "keeps its weights."
            )
    members: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            part = max((prefix for prefix in factors if _belongs(name, prefix)), key=len, default=OTHERS)
            members.setdefault((part, parameter.ndim >= 2), []).append(parameter)
    # In the order of the prefixes, not of the model: what a checkpoint holds stays where it was.
    order = [(part, decays) for part in (*factors, OTHERS) for decays in (True, False)]
    return [
        {
            "params": members[key],
            "lr": lr * factors.get(key[0], 1.0),
            "weight_decay": weight_decay if key[1] else 0.0,
            "part": key[0],
            "lr_factor": float(factors.get(key[0], 1.0)),
        }
        for key in order
        if key in members
    ]


def _belongs(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")


def _check_names(setting: str, prefixes: Iterable[str], model: nn.Module) -> None:
    names = [name for name, _ in model.named_parameters()]
    known = {".".join(name.split(".")[:depth]) for name in names for depth in range(1, name.count(".") + 2)}
    for prefix in prefixes:
        if prefix not in known:
            tops = sorted({name.split(".")[0] for name in names})
            raise ConfigError(
                f"{setting} names '{prefix}', which is no part of the model.{did_you_mean(str(prefix), known)} "
                f"Its parts are {', '.join(tops)}, and what is inside them, such as '{max(names, key=len)}'."
            )
