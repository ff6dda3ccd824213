"""The replay set: structures of an earlier training that are mixed into a new one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlip.core.errors import ConfigError, did_you_mean
from mlip.core.numbers import is_number

if TYPE_CHECKING:
    from collections.abc import Collection

    from omegaconf import DictConfig
    from rich.console import Console

    from mlip.data.parts import Parts
    from mlip.data.sampling import Reservoir
    from mlip.data.subset import Subset

_KEYS = ("path", "data", "fraction", "valid")


@dataclass(frozen=True)
class Replay:
    """Structures of the earlier training.

    Attributes:
        train, valid: samples; energies are on the scale of the new reference energies.
        reservoir: how many a pass draws.
        card: where they come from, for the card of the model.
    """

    train: Subset
    valid: Subset
    reservoir: Reservoir
    card: dict[str, Any]


def load_replay(config: DictConfig, parts: Parts, fields: Collection[str], console: Console) -> Replay | None:
    """Read the replay set that a configuration names.

    Args:
        config: complete, with the shifts of the energies.
        parts: the new data.
        fields: labels that the losses need; a structure of the replay set may lack some.
        console: for the progress.

    Returns:
        None where there is none.

    Raises:
        ConfigError, DataError: one sentence.
    """
    from omegaconf import OmegaConf

    from mlip.cli.progress import ProgressBar
    from mlip.data.joined import ShiftedEnergies
    from mlip.data.parts import load_parts
    from mlip.data.sampling import Reservoir
    from mlip.data.subset import as_subset

    settings = OmegaConf.to_container((config.get("finetune") or {}).get("replay") or OmegaConf.create(), resolve=True)
    for key in settings:
        if key not in _KEYS:
            raise ConfigError(f"finetune.replay has no setting '{key}'.{did_you_mean(key, _KEYS)}")
    source = _source(settings, OmegaConf.to_container(config.data, resolve=True), config.seed)
    if source is None:
        return None
    with ProgressBar("reading the replay set", console) as report:
        found = load_parts(source, report)
    if not set(fields) & set(found.provides):
        raise ConfigError(
            f"The replay set has the labels {', '.join(found.provides) or 'none'}, the losses need "
            f"{', '.join(sorted(fields))}: it would teach nothing."
        )
    _check_apart(parts, found)
    shifts = dict(config.finetune.energy_shifts or {})
    train, valid = (as_subset(ShiftedEnergies(part, shifts)) if shifts else part for part in (found.train, found.valid))
    reservoir = Reservoir(len(train), _drawn(settings["fraction"], len(parts.train)))
    card = {
        "citation": found.citation,
        "licence": found.licence,
        "fraction": settings["fraction"],
        "train": {"structures": len(train), "sha256": train.content_hash},
        "valid": {"structures": len(valid), "sha256": valid.content_hash},
    }
    console.print(
        f"Replay: {reservoir.drawn} of {len(train)} structures in every pass, {len(valid)} to validate on",
        highlight=False,
        soft_wrap=True,
    )
    return Replay(train, valid, reservoir, card)


def _check_apart(parts: Parts, replay: Parts) -> None:
    """Refuse geometries that are trained on, new or replayed, and measured on in the other of the two sets."""
    from mlip.data.leakage import check_duplicates

    allow = bool(parts.rule.get("allow_duplicates", False))
    # Each set has been checked on its own when it was divided.
    for one, other in (("train", "valid"), ("train", "test"), ("valid", "train"), ("test", "train")):
        check_duplicates({one: getattr(parts, one), f"replay {other}": getattr(replay, other)}, allow)


def _source(settings: dict[str, Any], data: dict[str, Any], seed: int) -> dict[str, Any] | None:
    """Return the ``data`` configuration of the replay set; None where there is none."""
    path, own = settings.get("path"), settings.get("data")
    if own is not None:
        if path is not None:
            raise ConfigError("Give either finetune.replay.path or finetune.replay.data.path, not both.")
        # In its file the path of a data set refers to data.path, which is that of the new data.
        return own | {"dataset": own["dataset"] | {"path": own["path"]}}
    if path is None:
        return None
    valid = settings.get("valid")
    if not is_number(valid) or not 0 <= valid < 1:
        raise ConfigError(f"finetune.replay.valid is a fraction of the structures, at least 0, got {valid!r}.")
    split = {"by": "auto", "train": 1.0 - valid, "valid": float(valid), "test": 0, "seed": seed}
    return {
        "dataset": data["dataset"] | {"path": path},
        "path": path,
        "split": split | {"allow_duplicates": data["split"].get("allow_duplicates", False)},
    }


def _drawn(fraction: float, new: int) -> int:
    """Return how many structures make a fraction of a pass beside ``new`` others."""
    if not is_number(fraction) or not 0 < fraction < 1:
        raise ConfigError(
            f"finetune.replay.fraction is the share of a pass that is replayed, between 0 and 1, got {fraction!r}."
        )
    return max(1, round(fraction / (1 - fraction) * new))
