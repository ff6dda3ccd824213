"""What computes the labels of ``mlip data label``: a program of quantum chemistry, a calculator of ASE, or a model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from mlip.cli.config_dir import config_dir
from mlip.core.build import build
from mlip.core.errors import ConfigError, did_you_mean
from mlip.data.labelling.base import Labeller


def build_labeller(method: str, settings: Mapping[str, Any], fields: Sequence[str]) -> Labeller:
    """Return the labeller of ``configs/label/METHOD.yaml``, or of a yaml file of the user's.

    Args:
        method: name or path.
        settings: that replace those of the file; None for those that nobody has named.
        fields: what to compute.

    Raises:
        MlipError: no such method, or it refuses a setting.
    """
    own = Path(method)
    shipped = {path.stem: path for path in sorted((config_dir() / "label").glob("*.yaml"))}
    path = own if own.suffix == ".yaml" else shipped.get(method)
    if path is None or not path.is_file():
        hint = did_you_mean(method, shipped)
        raise ConfigError(f"There is no method '{method}' to compute with.{hint} Known: {', '.join(shipped)}.")
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"'{path}' cannot be read as a method: {' '.join(str(error).split())}.") from error
    config = config if isinstance(config, dict) else {}
    given = {name: value for name, value in settings.items() if value is not None}
    labeller = build({**config, **given}, fields=list(fields)) if "_target_" in config else None
    if not isinstance(labeller, Labeller):
        raise ConfigError(f"'{path}' must have a _target_ that is a Labeller, see configs/label/pyscf.yaml.")
    return labeller


def build_ase_labeller(name: str, arguments: str | None, free_energy: bool, target: Path) -> Labeller:
    """Return the labeller of a calculator of ASE.

    Args:
        name: of the calculator.
        arguments: JSON, or the path of a file with it; None for none.
        free_energy: which energy.
        target: file of the labels; what is left of calculations that fail is beside it.

    Raises:
        ConfigError: no such calculator, or not its arguments.
    """
    from mlip.simulate.labelling.calculators import AseLabeller

    text = (arguments or "{}").strip()
    if not text.startswith("{"):
        try:
            text = Path(text).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"--ase-args must be JSON, or a file with it, got '{arguments}' ({error}).") from error
    try:
        values = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"--ase-args is not JSON: {error}.") from error
    if not isinstance(values, dict):
        raise ConfigError('--ase-args must be an object, such as {"encut": 520}.')
    folder = target.with_name(target.name + ".failed").resolve()
    return AseLabeller(name, values, free_energy, folder)


def refuse_unused(given: Mapping[str, Any], why: str) -> None:
    """Refuse options that the user has named and that have no effect.

    Raises:
        ConfigError: which ones.
    """
    unused = [f"--{name.replace('_', '-')}" for name, value in given.items() if value not in (None, False)]
    if unused:
        raise ConfigError(f"{', '.join(unused)} {why}: leave {'it' if len(unused) == 1 else 'them'} out.")
