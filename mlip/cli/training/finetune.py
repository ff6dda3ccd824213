"""Fine-tuning: a run that starts from a model file."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from rich.console import Console

    from mlip.data.parts import Parts
    from mlip.models.base import AtomisticModel

PARENT = "parent.json"
"""In the folder of a run that was started from a model file: the card of that file."""

_OF_THE_FILE = ("model", "cutoff", "statistics", "atomic_energy_source")


def is_finetuning(config: DictConfig) -> bool:
    """Return whether a run starts from a model file; run folders of earlier versions do not say."""
    return (config.get("finetune") or {}).get("model") is not None


def check_start(config: DictConfig, overrides: list[str]) -> None:
    """Refuse settings that contradict the model file, or that only a start from one has; fill in the dtype.

    Raises:
        ConfigError, ModelFileError: one sentence.
    """
    from mlip.core.errors import ConfigError
    from mlip.models.header import read_header

    named = {text: re.match(r"[+~]*([\w/.@]+)", text).group(1) for text in overrides if re.match(r"[+~]*\w", text)}
    if not is_finetuning(config):
        settings = config.get("finetune") or {}
        # Whoever says that there is no model, in a sweep perhaps, means the rest for when there is one.
        keys = [] if "finetune.model" in named.values() else named.values()
        given = [key for key in keys if _is_about(key, "finetune")]
        if settings.get("freeze") or _replays(config) or given:
            what = "finetune.freeze" if settings.get("freeze") else "finetune.replay" if _replays(config) else given[0]
            raise ConfigError(f"{what} needs a model to start from: set finetune.model=RUN/model.safetensors.")
        config.dtype = config.dtype or "float32"
        return
    _check_effect(config, list(named.values()))
    for text, key in named.items():
        if re.split("[/.@]", key)[0] in _OF_THE_FILE:
            raise ConfigError(
                f"finetune.model={config.finetune.model} brings its architecture, cutoff and statistics: leave out "
                f"'{text}'."
            )
    header = read_header(config.finetune.model)
    # An experiment or an override may want another one.
    config.dtype = config.dtype or header["dtype"]


def _check_effect(config: DictConfig, keys: list[str]) -> None:
    """Refuse settings of fine-tuning that would change nothing."""
    from mlip.core.errors import ConfigError

    for key in keys:
        if _is_about(key, "finetune.energy_shifts"):
            raise ConfigError(
                "finetune.energy_shifts is what a run writes down. To choose which reference energies are fitted, set "
                "finetune.atomic_energies=refit or keep."
            )
        # A sweep over finetune.replay.path=null,old.xyz has one fraction for both.
        idle = not _replays(config) and "finetune.replay.path" not in keys
        if key in ("finetune.replay.fraction", "finetune.replay.valid") and idle:
            raise ConfigError(f"{key} does nothing without structures to replay: set finetune.replay.path=FILE.")


def _is_about(key: str, setting: str) -> bool:
    """Whether the key of an override is a setting, one inside it, or a group that is put there (``data@KEY``)."""
    return f"{key.partition('@')[2] or key}.".startswith(f"{setting}.")


def adopt(config: DictConfig, stored: DictConfig) -> None:
    """Fill in what a run took from its model file, to compare a configuration with that of a run that was started."""
    from omegaconf import OmegaConf

    if not (is_finetuning(config) and is_finetuning(stored)):
        return
    OmegaConf.set_struct(config, False)
    for name in ("model", "cutoff", "statistics"):
        config[name] = stored[name]
    config.finetune.energy_shifts = stored.finetune.energy_shifts


def start_from_file(config: DictConfig, parts: Parts, console: Console) -> tuple[AtomisticModel, dict[str, Any]]:
    """Load the model, give it the new elements and reference energies of the new labels, and write both down.

    Args:
        config: gets the model's configuration, cutoff, elements, and the shifts of the energies.
        parts: the new data.
        console: says what was done.

    Returns:
        The model and the card of its file.

    Raises:
        ConfigError, ModelFileError, DataError: one sentence.
    """
    from omegaconf import OmegaConf

    from mlip.cli.progress import ProgressBar
    from mlip.core.errors import ConfigError
    from mlip.data.elements import list_elements, new_elements
    from mlip.models.build import parse_dtype
    from mlip.models.committee import Committee
    from mlip.models.grow import add_elements
    from mlip.models.model_file import load_model

    settings = config.finetune
    model = load_model(settings.model, dtype=parse_dtype(config.dtype)).train()
    if isinstance(model, Committee):
        raise ConfigError(
            f"'{settings.model}' is a committee of {len(model.members)} models; trained on their mean, their spread "
            "would say nothing about errors any more. Fine-tune each of its models, then: mlip committee."
        )
    parent = _card(settings.model, model)
    console.print(
        f"Start: '{settings.model}', {type(model).__name__} for {list_elements(model.elements)} "
        f"(sha256 {parent['sha256'][:16]}…)",
        highlight=False,
        soft_wrap=True,
    )
    with ProgressBar("elements", console) as report:
        new = new_elements(parts.train, model.elements, report.count)
    known = model.elements
    model, origins = add_elements(model, list(new), settings.new_elements)
    if origins:
        made = ", ".join(f"{symbol} as {'the mean of all' if len(o) > 1 else o[0]}" for symbol, o in origins.items())
        console.print(f"New elements start as known ones: {made}", highlight=False, soft_wrap=True)
    model, shifts = _with_new_energies(model, config, parts, new, console)
    OmegaConf.set_struct(config, False)
    config.model = OmegaConf.create(model.config)
    config.cutoff = model.cutoff
    config.statistics.elements = list(model.elements)
    settings.energy_shifts = {symbol: shift for symbol, shift in shifts.items() if symbol in known}
    OmegaConf.set_struct(config, True)
    return model, parent


def _with_new_energies(
    model: AtomisticModel, config: DictConfig, parts: Parts, new: dict[str, list[int]], console: Console
) -> tuple[AtomisticModel, dict[str, float]]:
    """Return the model with fitted reference energies, and what was added to each."""
    from mlip.cli.progress import ProgressBar
    from mlip.core.errors import ConfigError
    from mlip.models.grow import has_reference_energies, shift_energies
    from mlip.training.energy_shifts import fit_energy_shifts

    choice = config.finetune.atomic_energies
    if "energy" not in model.fields and choice not in ("auto", "keep"):
        raise ConfigError(
            f"finetune.atomic_energies={choice} is about reference energies, and the model predicts no energy but "
            f"{', '.join(model.fields)}: leave it out."
        )
    if "energy" not in model.fields or not len(parts.train):
        return model, {}
    if not has_reference_energies(model) and choice == "auto":
        choice = "keep"
    with ProgressBar("reference energies", console) as report:
        fit = fit_energy_shifts(
            model, parts.train, new, choice, config.seed, config.get("atomic_energy_regularisation", 0.0), report.count
        )
    listing = ", ".join(f"{symbol} {shift:+.4g}" for symbol, shift in fit.shifts.items())
    change = f"; added, eV: {listing}; RMS error {fit.before:.4g} → {fit.after:.4g} eV/atom" if listing else ""
    console.print(f"Reference energies of the elements: {fit.note}{change}", highlight=False, soft_wrap=True)
    if fit.outliers:
        console.print(
            f"{len(fit.outliers)} energies are far from the fit and were left out of it, first {fit.outliers[0]}: "
            "look at these labels",
            highlight=False,
            soft_wrap=True,
        )
    return (shift_energies(model, fit.shifts) if fit.shifts else model), fit.shifts


def write_parent(folder: Path, parent: dict[str, Any]) -> None:
    """Keep the card of the model file in the run folder: the file may be gone when the run is resumed."""
    from mlip.core.files import write_text_atomically

    write_text_atomically(folder / PARENT, json.dumps(parent, indent=1, ensure_ascii=False))


def read_parent(folder: Path) -> dict[str, Any]:
    """Return what :func:`write_parent` wrote.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    from mlip.core.errors import CheckpointError

    try:
        return json.loads((folder / PARENT).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"'{folder / PARENT}' cannot be read ({error}); start a new run.") from error


def _card(path: str, model: AtomisticModel) -> dict[str, Any]:
    """Return where a model comes from: its hash, elements and card, with the cards of its own parents inside."""
    import hashlib

    from mlip.models.names import find_model

    card = dict(model.metadata)
    if isinstance(card.get("data"), dict):
        # Lists of samples are as long as the data; whoever wants them has the hash of the file.
        card["data"] = {name: value for name, value in card["data"].items() if name != "split"}
    with find_model(path).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"file": str(path), "sha256": digest, "elements": list(model.elements), "metadata": card}


def _replays(config: DictConfig) -> bool:
    replay = (config.get("finetune") or {}).get("replay") or {}
    return bool(replay.get("path") or replay.get("data"))
