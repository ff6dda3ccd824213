"""The folder of a run: its configuration, and when its name is taken."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mlip.evaluation.run_files import CONFIG

if TYPE_CHECKING:
    from omegaconf import DictConfig


def load_config(folder: Path) -> DictConfig:
    """Read the configuration of a run that is to be resumed.

    Raises:
        ConfigError: one sentence.
    """
    from omegaconf import OmegaConf
    from yaml import YAMLError

    from mlip.core.errors import ConfigError

    path = folder / CONFIG
    if not path.is_file():
        raise ConfigError(f"'{folder}' is not a run folder: it has no {CONFIG}. Give the folder that mlip train made.")
    try:
        config = OmegaConf.load(path)
    except (OSError, YAMLError) as error:
        raise ConfigError(f"'{path}' cannot be read: {str(error).splitlines()[0]}.") from error
    config.run_dir = str(folder)
    return config


def refuse_existing(folder: Path) -> None:
    """Refuse a folder that holds a run.

    Raises:
        ConfigError: one sentence.
    """
    from mlip.core.errors import ConfigError

    if (folder / CONFIG).exists():
        raise ConfigError(
            f"'{folder}' holds a run already. Continue it with: mlip train --resume {folder}, "
            "or choose another name=… or run_dir=…."
        )


def make_folder(folder: Path) -> None:
    """Make the folder of a run.

    Raises:
        MlipError: it cannot be made.
    """
    from mlip.core.errors import MlipError

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MlipError(f"The run folder '{folder}' cannot be made: {error.strerror or error}.") from error


@contextmanager
def forgotten_if_nothing_came(folder: Path, new: bool) -> Iterator[None]:
    """Free the folder of a new run that was refused before its first checkpoint: the corrected command may use it."""
    from mlip.core.errors import MlipError, TrainingInterrupted
    from mlip.training.checkpoints import LAST

    try:
        yield
    except MlipError as error:
        if new and not isinstance(error, TrainingInterrupted) and not (folder / LAST).exists():
            (folder / CONFIG).unlink(missing_ok=True)
        raise
