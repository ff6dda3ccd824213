"""Compose a configuration with Hydra, and say clearly what is wrong with an override."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mlip.cli.config_dir import config_dir
from mlip.core.errors import ConfigError, did_you_mean


def compose(name: str, overrides: Sequence[str], extra_dir: Path | None = None) -> DictConfig:
    """Compose ``configs/<name>.yaml`` with overrides in Hydra's syntax.

    Args:
        name: primary configuration, e.g. ``train``.
        overrides: ``key=value``, ``group=option``, ``+key=value``, ``~key``.
        extra_dir: a folder of the user's own groups and experiments, searched after the shipped ones.

    Raises:
        ConfigError: one sentence; unknown keys and options come with the nearest known ones.
    """
    for text in overrides:
        if "=" not in text and not text.startswith("~"):
            raise ConfigError(f"'{text}' is not an override; write key=value, e.g. cutoff=5.0 or experiment=3bpa.")
        group, _, option = text.lstrip("+").partition("=")
        # Hydra leaves out some groups that are null, without a word, and stumbles over others.
        if option in ("", "null") and group != "experiment" and (config_dir() / group).is_dir():
            known = ", ".join(sorted(path.stem for path in (config_dir() / group).glob("*.yaml")))
            raise ConfigError(f"'{text}' cannot be: leave it out, or choose one of {known}.")
    if extra_dir is not None and not extra_dir.is_dir():
        raise ConfigError(f"There is no configuration folder '{extra_dir}'.")
    search = [f"hydra.searchpath=[file://{extra_dir.resolve()}]"] if extra_dir else []
    try:
        with initialize_config_dir(str(config_dir()), version_base="1.3"):
            return hydra_compose(name, overrides=[*overrides, *search])
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_explain(error, name, overrides)) from error


def to_plain(config: DictConfig) -> dict[str, Any]:
    """Resolve all interpolations and return plain containers.

    Raises:
        ConfigError: a mandatory value (``???``) is missing or an interpolation has no target.
    """
    require_complete(config)
    try:
        return OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"The configuration cannot be resolved: {_first_line(error)}.") from error


def require_complete(config: DictConfig) -> None:
    """Refuse a configuration with mandatory values (``???``) that nobody has given.

    Raises:
        ConfigError: names them.
    """
    # OmegaConf.missing_keys raises where an interpolation points to a missing value.
    plain = OmegaConf.to_container(config, resolve=False)
    missing = sorted(key for key, value in _items(plain) if value == "???")
    if missing:
        listing = " ".join(f"{key}=…" for key in missing)
        raise ConfigError(f"These settings have no default, give them on the command line: {listing}")


def _explain(error: Exception, name: str, overrides: Sequence[str]) -> str:
    text = str(error)
    if found := re.search(r"Could not override '([^']+)'", text):
        key = found.group(1)
        plain = _without(key, name, overrides)
        parent, _, component = key.rpartition("/")
        if parent and (config_dir() / key).is_dir():
            has = [other for other in plain.get(parent) or {} if (config_dir() / parent / other).is_dir()]
            return f"The chosen {parent} has no component '{component}'; it has: {', '.join(has)}."
        hint = did_you_mean(key, [known for known, _ in _items(plain)])
        return f"There is no setting '{key}'.{hint} Use +{key}=… to add a new one on purpose."
    if found := re.search(r"Could not find '([^']+)'", text):
        group, _, option = found.group(1).rpartition("/")
        options = sorted(path.stem for path in (config_dir() / group).glob("*.yaml"))
        hint = did_you_mean(option, options)
        return f"There is no '{group}={option}'.{hint} Known: {', '.join(options) or 'none'}."
    if found := re.search(r"(?:Ambiguous value for argument|Sweep parameters) '(.+)'", _first_line(error)):
        train = " To train with each of them, add -m." if name == "train" else ""
        return f"'{found.group(1)}' has several values.{train} A list is written in brackets: key=[a,b]."
    if found := re.search(r"In '[^']+': Could not (?:load|find) '([^']+)'", text):
        return f"There is no configuration '{found.group(1)}'."
    return f"The overrides cannot be applied: {_first_line(error)}."


def _without(key: str, name: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Compose with the groups that are chosen, all but one: what there is to override."""
    groups = [text for text in overrides if _is_group(text) and not text.startswith(f"{key}=")]
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        try:
            return OmegaConf.to_container(hydra_compose(name, overrides=groups))
        except HydraException:
            # Another one is wrong, too; one sentence at a time.
            return OmegaConf.to_container(hydra_compose(name))


def _is_group(override: str) -> bool:
    key, _, option = override.partition("=")
    return (config_dir() / key / f"{option}.yaml").is_file()


def _items(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(config, dict):
        for key, value in config.items():
            yield f"{prefix}{key}", value
            yield from _items(value, f"{prefix}{key}.")


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".")
