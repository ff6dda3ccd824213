"""In what the configurations of several runs differ."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

TARGET = "_target_"
_NAMES = ("name", "run_dir")
"""Where a run is kept, which says nothing about it."""
_MEASURED = "statistics"
_MEASURED_ON = ("data", "cutoff", "model.cutoff", "model.graph", "atomic_energy")


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of nested mappings by dotted keys; lists are values.

    >>> flatten({"model": {"cutoff": 5.0, "radial": {"num_basis": 8}}})
    {'model.cutoff': 5.0, 'model.radial.num_basis': 8}
    """
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            found |= flatten(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def differences(configurations: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return for each of several configurations the settings in which they differ, as short texts by dotted keys.

    A component is one setting, e.g. ``model.radial: bessel``. Its options are shown if configurations that have them
    differ in them. Left out are names, what was measured on the data, and copies: ``model.cutoff`` next to ``cutoff``.
    A configuration that is empty (the run never wrote it) has blanks.
    """
    flat = [_components(_without_fitted(flatten(settings))) for settings in configurations]
    known = [values for values in flat if values]
    shown: list[str] = []
    for key in dict.fromkeys(key for values in known for key in values):
        if key in _NAMES or not _differs(key, known) or _is_measured(key, known):
            continue
        if not any(_is_copy(key, other, known) for other in shown):
            shown = [other for other in shown if not _is_copy(other, key, known)] + [key]
    short = {key: _short_targets(key, known) for key in shown}
    return [
        {key: short[key].get(values[key], _text(values[key])) if key in values else "" for key in shown}
        for values in flat
    ]


def _without_fitted(values: dict[str, Any]) -> dict[str, Any]:
    """Leave out the reference energies that a fine-tuned run has fitted to its data; others have them in statistics."""
    if values.get("finetune.model") is None:
        return values
    fitted = re.compile(r"finetune\.energy_shifts\b|model\..*\batomic_energies\.")
    return {key: value for key, value in values.items() if not fitted.match(key)}


def _components(values: dict[str, Any]) -> dict[str, Any]:
    """Rename ``model.radial._target_`` to ``model.radial``; a model's own is ``model``."""
    found = {}
    for key, value in values.items():
        # An empty mapping is a list of components without any.
        if key.rpartition(".")[2] != "_partial_" and value != {}:
            found[key.removesuffix(f".{TARGET}")] = json.dumps(value) if isinstance(value, list | dict) else value
    return found


def _differs(key: str, known: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether configurations that have a setting differ in it, or one of the same component has none."""
    having = [values for values in known if values.get(key) is not None]
    if len({_exact(values[key]) for values in having}) > 1:
        return True
    above = _ancestors(key)
    kinds = {tuple(values.get(name) for name in above) for values in having}
    return any(tuple(values.get(name) for name in above) in kinds for values in known if values.get(key) is None)


def _ancestors(key: str) -> list[str]:
    parts = key.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts))]


def _is_measured(key: str, known: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a setting follows from the data, e.g. ``statistics.num_neighbors``, ``model.num_neighbors``."""
    if _is_statistic(key):
        return not _is_stated(key, known)
    having = [values for values in known if key in values]
    names = [name for name in dict.fromkeys(name for values in known for name in values) if _is_statistic(name)]
    if any(all(_exact(values[key]) == _exact(values.get(name)) for values in having) for name in names):
        return True
    # Which statistic it is may depend on another setting: onsite blocks are those of the matrix or of a difference.
    names = [name for name in names if name.rpartition(".")[2] == key.rpartition(".")[2]]
    return all(any(_exact(values[key]) == _exact(values.get(name)) for name in names) for values in having)


def _is_statistic(name: str) -> bool:
    return name.split(".")[0] == _MEASURED


def _is_stated(key: str, known: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a statistic was set by hand: it differs although all that it is measured on is the same."""
    found: dict[tuple[Any, ...], Any] = {}
    # What the model of a run does not read was not measured.
    for values in (values for values in known if values.get(key) is not None):
        measured_on = tuple((name, _exact(value)) for name, value in values.items() if name.startswith(_MEASURED_ON))
        if found.setdefault(measured_on, _exact(values.get(key))) != _exact(values.get(key)):
            return True
    return False


def _is_copy(key: str, other: str, known: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a setting has the name and all the values of another one that is less deep."""
    if key.rpartition(".")[2] != other.rpartition(".")[2] or key.count(".") <= other.count("."):
        return False
    return all(_exact(values[key]) == _exact(values.get(other)) for values in known if key in values)


def _short_targets(key: str, known: Sequence[Mapping[str, Any]]) -> dict[Any, str]:
    """Return short names of components: that of the module, or of the class where a module has several."""
    targets = {values[key] for values in known if isinstance(values.get(key), str) and "." in values[key]}
    targets = {target for target in targets if target.startswith("mlip.")}
    short = {}
    for target in targets:
        module, name = target.split(".")[-2:]
        short[target] = module if module.replace("_", "").lower() == name.replace("_", "").lower() else name
    return short if len(set(short.values())) == len(short) else {}


def _exact(value: Any) -> tuple[str, Any]:
    # 1 and True are equal, and 1 and 1.0; the latter say the same.
    return ("bool" if isinstance(value, bool) else "", value)


def _text(value: Any) -> str:
    if value is None:
        return "null"
    return f"{value:g}" if isinstance(value, float) else str(value)
