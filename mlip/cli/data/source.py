"""Which data a command of ``mlip data`` is about: a path whose format is recognised, or Hydra overrides."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os.path import exists, isfile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mlip.data.datasets.base import Dataset, Recognition


@dataclass(frozen=True)
class Source:
    """A ``data`` configuration, and how it was found.

    Attributes:
        name: of the configuration, e.g. ``mptrj``.
        config: plain containers.
        recognition: what the class said of the path; None if the user named the configuration.
        words: the same as overrides, for the next command.
        assumed: settings that are the user's choice and got a value only to look at the data; not in ``words``.
    """

    name: str
    config: dict[str, Any]
    recognition: Recognition | None
    words: tuple[str, ...]
    assumed: Mapping[str, Any] = field(default_factory=dict)


def open_data(words: Sequence[str]) -> tuple[Dataset, dict[str, Any]]:
    """Return the data set that ``data=mptrj data.path=… data.dataset.energy=…``, or a path alone, describes.

    Returns:
        The data set and its ``data`` configuration as plain containers.

    Raises:
        ConfigError: unknown names or settings, or a choice that is the user's.
        DataError: no such file, or unreadable data.
    """
    from mlip.data.parts import load_dataset

    source = find_source(words)
    return load_dataset(source.config), source.config


def find_source(words: Sequence[str], preview: bool = False) -> Source:
    """Return the configuration that some words describe, without opening the data.

    Args:
        words: overrides as in Hydra, with at most one path among them (a file, a folder, a pattern), alone or as
            ``data=PATH``. Without ``data=NAME`` the format of the path is recognised.
        preview: give choices that are the user's a value that is good enough to look at the data, see `Recognition`.

    Raises:
        ConfigError, DataError: as `open_data`, and a path that nobody recognises, or several equally well.
    """
    from omegaconf import OmegaConf

    from mlip.cli.compose import compose, to_plain
    from mlip.core.errors import ConfigError

    path, name, overrides = _sort(words)
    recognition = None
    if path is not None and name is None:
        name, recognition = _recognise(path)
    chosen = [f"data={name}"] if name is not None else []
    chosen += [f"data.path={_quoted(path)}"] if path is not None else []
    config = compose("data_source", [*chosen, *overrides])
    given = {word.lstrip("+").partition("=")[0] for word in overrides}
    for key, value in (recognition.options if recognition else {}).items():
        if f"data.dataset.{key}" not in given:
            OmegaConf.update(config, f"data.dataset.{key}", value)
            chosen.append(f"data.dataset.{key}={_quoted(value)}")
    likely = recognition.preview if recognition and preview else {}
    assumed = {key: value for key, value in likely.items() if f"data.dataset.{key}" not in given}
    for key, value in assumed.items():
        OmegaConf.update(config, f"data.dataset.{key}", value)
    missing = _missing(config)
    if missing:
        raise ConfigError(f"data={name} leaves a choice to you:{_choices(name or 'extxyz', missing)}.")
    if name is None:
        name = "extxyz"
    return Source(name, to_plain(config)["data"], recognition, (*chosen, *overrides), assumed)


def dataset_classes() -> dict[str, type[Dataset]]:
    """Return the class of every ``configs/data/NAME.yaml`` that reads a path of the user's, by name."""
    import yaml

    from mlip.cli.config_dir import config_dir
    from mlip.core.build import TARGET, locate

    classes: dict[str, type[Dataset]] = {}
    for file in sorted((config_dir() / "data").glob("*.yaml")):
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
        target = (config.get("dataset") or {}).get(TARGET)
        # Bundled sets have a path of their own, and their class is that of a general format.
        if target and config.get("path") == "???":
            classes[file.stem] = locate(target)  # type: ignore[assignment]
    return classes


def _sort(words: Sequence[str]) -> tuple[str | None, str | None, list[str]]:
    """Return the path, the name of the configuration, and the other overrides."""
    from mlip.cli.config_dir import config_dir
    from mlip.core.errors import ConfigError

    paths: list[str] = []
    names: list[str] = []
    others: list[str] = []
    for word in words:
        value = word.removeprefix("data=")
        is_override = re.match(r"[+~]{0,2}[\w./@]+=", word) is not None and not word.startswith("data=")
        if (is_override or word.startswith("~")) and not exists(word):
            others.append(word)
        elif isfile(config_dir() / "data" / f"{value}.yaml") and (value != word or not exists(value)):
            # data=store is the configuration; store alone is a folder of that name, if there is one.
            names.append(value)
        elif re.fullmatch(r"\w+", value) and not exists(value):
            # A misspelt name, probably: composing says so, with the nearest one.
            names.append(value)
        else:
            paths.append(value)
    if len(paths) > 1:
        raise ConfigError(
            f"One path at a time, got {', '.join(paths[:4])}. For several files use a pattern in quotes ('runs/*.xyz') "
            "or data.path=[a.xyz,b.xyz]."
        )
    if len(names) > 1:
        raise ConfigError(f"One data set at a time, got {', '.join(names)}.")
    if not paths and not names:
        paths = _single_path(others)
    if not paths and not names and not any(word.startswith("data.path=") for word in others):
        raise ConfigError("Name a file, a folder, a pattern in quotes, or data=NAME data.path=….")
    return (paths or [None])[0], (names or [None])[0], others


def _single_path(overrides: list[str]) -> list[str]:
    """Take ``data.path=FILE`` out of the overrides, unless it is a list."""
    for word in overrides:
        value = word.removeprefix("data.path=")
        if value != word and not value.startswith(("[", "???")):
            overrides.remove(word)
            return [value[1:-1] if value[:1] in "'\"" and value[-1:] == value[:1] else value]
    return []


def _recognise(path: str) -> tuple[str, Recognition]:
    from mlip.core.errors import ConfigError, DataError
    from mlip.data.recognise import describe_file, first_match, recognise

    # A file that is not there is refused before the classes are imported, which takes seconds.
    first_match(path)
    classes = dataset_classes()
    matches = recognise(path, classes)
    if not matches:
        raise DataError(
            f"'{path}' is {describe_file(first_match(path))}, which none of the data sets recognises. Known are "
            f"{', '.join(classes)}: say which one it is, data=NAME data.path={path}"
        )
    if len(matches) > 1:
        names = " or ".join(match.name for match in matches)
        notes = " ".join(match.recognition.note for match in matches if match.recognition.note)
        raise ConfigError(
            f"'{path}' can be read as {names}. Say which one: data={matches[0].name} data.path={path}"
            + (f" ({notes})" if notes else "")
        )
    return matches[0].name, matches[0].recognition


def _quoted(value: Any) -> str:
    """Return a value in the syntax of Hydra's overrides."""
    if isinstance(value, str):
        if re.fullmatch(r"[\w./-]+", value, re.ASCII):
            return value
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_quoted(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_quoted, value)) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def _missing(config: DictConfig) -> list[str]:
    """Return the settings without a value, below ``data.dataset``."""
    from omegaconf import OmegaConf

    plain = OmegaConf.to_container(config.data.dataset, resolve=False)
    return [key for key, value in plain.items() if value == "???"]  # type: ignore[union-attr]


def _choices(name: str, missing: Sequence[str]) -> str:
    """Return what the configuration file says about the settings, in its comments."""
    from mlip.cli.config_dir import config_dir

    text = (config_dir() / "data" / f"{name}.yaml").read_text(encoding="utf-8")
    parts = []
    for key in missing:
        found = re.search(rf"^\s*{re.escape(key)}:[^#\n]*#[ \t]*(.*)$", text, re.MULTILINE)
        parts.append(f" data.dataset.{key}=…" + (f" ({found[1].strip()})" if found else ""))
    return ";".join(parts)
