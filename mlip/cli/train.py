"""``mlip train``: compose the configuration, prepare the data, train, and leave plots and a record."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from rich.console import Console

    from mlip.data.loading import GraphDataset
    from mlip.data.parts import Parts
    from mlip.models.base import AtomisticModel

CONFIG = "config.yaml"


def train(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Hydra overrides: experiment=3bpa data.path=FOLDER max_epochs=50 optimizer.lr=0.002 …"),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Run folder to continue exactly where it stopped. Takes no overrides.")
    ] = None,
    config_dir: Annotated[
        Path | None, typer.Option(help="Folder with configuration groups and experiments of your own.")
    ] = None,
    print_config: Annotated[bool, typer.Option(help="Print the composed configuration and exit.")] = False,
) -> None:
    """Train a potential.

    \b
    mlip train experiment=ethanol                                  # the bundled data
    mlip train experiment=3bpa data.path=FOLDER                    # a tested recipe on your copy of 3BPA
    mlip train data.path=my.xyz name=my cutoff=6.0 max_epochs=200  # your own extxyz file
    mlip train data.path=my.xyz 'loss=[energy,forces,stress]'      # crystals with stress
    mlip train model=facet model/radial=bessel trainer=gpu …       # other components
    mlip train --resume runs/my                                    # after Ctrl-C or a crash

    The run folder gets model.safetensors (for mlip relax, mlip md, ASE), run.json, log.csv, plots and
    checkpoints.
    """
    from omegaconf import OmegaConf
    from rich.console import Console

    from mlip.cli.compose import compose
    from mlip.core.errors import ConfigError

    # With several processes the first one started the others, and is the one that speaks and writes.
    leads = int(os.environ.get("LOCAL_RANK", 0)) == 0
    console = Console(quiet=not leads)
    if resume is not None:
        if overrides:
            raise ConfigError(
                f"--resume continues a run with its own configuration and takes no overrides, got '{overrides[0]}'."
            )
        config = _load_config(resume)
    else:
        config = compose("train", overrides or [], config_dir)
        _choose_losses(config, overrides or [])
        if print_config:
            console.print(OmegaConf.to_yaml(config), markup=False, highlight=False)
            return
        if leads:
            _refuse_existing(Path(config.run_dir))
    run(config, console, resume is not None, leads)


def run(config: DictConfig, console: Console, resume: bool, leads: bool = True) -> None:
    """Train with a composed configuration; only the leading process writes the records."""
    from omegaconf import OmegaConf

    from mlip.cli.compose import require_complete, to_plain
    from mlip.cli.progress import ProgressBar
    from mlip.core.build import build
    from mlip.core.files import write_text_atomically
    from mlip.data.parts import load_parts
    from mlip.models.build import build_model, parse_dtype
    from mlip.training.record import fingerprint, finish, provenance
    from mlip.training.run import Run
    from mlip.training.run import train as train_model

    require_complete(config)
    folder = Path(config.run_dir)
    dtype = parse_dtype(config.dtype)
    losses = _build_losses(config)
    with ProgressBar("reading the data", console) as report:
        parts = load_parts(OmegaConf.to_container(config.data, resolve=True), report)
    _check_labels(parts, losses)
    stated = config.statistics.elements is not None
    _fill_statistics(config, parts, console)
    settings = to_plain(config)
    model = build_model(settings["model"], seed=settings["seed"], dtype=dtype)
    _check_predictions(model, losses)
    # The energy is evaluated where there is one, trained or not.
    fields = {"energy"} | {field for loss in losses.values() for field in loss.required}
    train_set, valid_set = _build_graphs(parts, model, fields, stated, resume, console)
    _check_shapes(model, train_set, losses)
    if leads and not resume:
        folder.mkdir(parents=True, exist_ok=True)
        write_text_atomically(folder / CONFIG, OmegaConf.to_yaml(OmegaConf.create(settings)))
    _describe(console, model, parts, settings, folder)
    card = provenance(settings, parts)
    described = Run(
        folder=folder,
        losses=losses,
        optimizer=build(settings["optimizer"]),
        schedule=build(settings["schedule"]),
        trainer=settings["trainer"],
        resume=resume,
        fingerprint=fingerprint(settings, parts),
        card=card,
        resume_hint=f"mlip train --resume {folder}",
        **{name: settings[name] for name in _RUN_SETTINGS if name in settings},
    )
    with _forgotten_if_nothing_came(folder, leads and not resume):
        outcome = train_model(model, train_set, valid_set, described, console)
    if leads:
        finish(folder, card, outcome, parts, console)


@contextmanager
def _forgotten_if_nothing_came(folder: Path, new: bool) -> Iterator[None]:
    """Free the folder of a new run that was refused before its first checkpoint: the corrected command may use it."""
    from mlip.core.errors import MlipError, TrainingInterrupted
    from mlip.training.checkpoints import LAST

    try:
        yield
    except MlipError as error:
        if new and not isinstance(error, TrainingInterrupted) and not (folder / LAST).exists():
            (folder / CONFIG).unlink(missing_ok=True)
        raise


_RUN_SETTINGS = (
    "max_epochs", "batch_edges", "batch_graphs", "batch_atoms", "bucket", "validate_every", "checkpoint_every",
    "ema_decay", "patience", "seed", "num_workers",
)  # fmt: skip


def _load_config(folder: Path) -> DictConfig:
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


def _refuse_existing(folder: Path) -> None:
    from mlip.core.errors import ConfigError

    if (folder / CONFIG).exists():
        raise ConfigError(
            f"'{folder}' holds a run already. Continue it with: mlip train --resume {folder}, "
            "or choose another name=… or run_dir=…."
        )


def _choose_losses(config: DictConfig, overrides: list[str]) -> None:
    """Leave out what an experiment sets for losses that are not chosen; the user's own settings are refused."""
    from omegaconf import DictConfig, OmegaConf

    from mlip.cli.config_dir import config_dir
    from mlip.core.errors import ConfigError

    losses = config.get("loss") or {}
    chosen = [name for name, loss in losses.items() if isinstance(loss, DictConfig) and "_target_" in loss]
    OmegaConf.set_struct(config, False)
    for name in [name for name in losses if name not in chosen]:
        for text in overrides:
            if re.match(rf"\+*loss\.{re.escape(name)}\b", text):
                choice = ",".join([*chosen, name])
                raise ConfigError(f"'{text}' is about the loss '{name}', which is not chosen: add 'loss=[{choice}]'.")
        del losses[name]
    OmegaConf.set_struct(config, True)
    if not chosen:
        known = sorted(path.stem for path in (config_dir() / "loss").glob("*.yaml"))
        raise ConfigError(f"No loss is chosen. Choose from {', '.join(known)}, e.g. 'loss=[energy,forces]'.")


def _build_losses(config: DictConfig) -> dict[str, Any]:
    from omegaconf import OmegaConf

    from mlip.core.build import build
    from mlip.core.errors import ConfigError
    from mlip.training.losses.base import Loss

    losses = build(OmegaConf.to_container(config.loss, resolve=True))
    for name, loss in losses.items():
        if not isinstance(loss, Loss):
            raise ConfigError(f"loss.{name} must be a loss of mlip, with a _target_, got {loss!r}.")
    return losses


def _check_labels(parts: Parts, losses: dict[str, Any]) -> None:
    from mlip.core.errors import ConfigError

    for name, loss in losses.items():
        for field in loss.required:
            if field not in parts.provides:
                raise ConfigError(
                    f"The loss '{name}' needs the label '{field}', all structures to train and validate on have "
                    f"{', '.join(parts.provides)}. Add it to data.dataset.labels, or leave the loss out."
                )


def _check_predictions(model: AtomisticModel, losses: dict[str, Any]) -> None:
    from mlip.core.errors import ConfigError
    from mlip.nn.derivatives import predictable

    for name, loss in losses.items():
        for field in loss.required:
            if field not in predictable(model):
                raise ConfigError(
                    f"The loss '{name}' needs a model that predicts '{field}', {type(model).__name__} predicts "
                    f"{', '.join(predictable(model))}. Choose another model=… or loss=[…]."
                )


def _build_graphs(
    parts: Parts, model: AtomisticModel, labels: set[str], elements_stated: bool, resume: bool, console: Console
) -> tuple[GraphDataset, GraphDataset]:
    """Build or count the graphs to train and to validate on, and look for elements that the model does not know."""
    from mlip.cli.progress import ProgressBar
    from mlip.data.loading import GraphDataset

    # Elements that were measured are those of the training structures; a run that is resumed has been through this.
    known = {"train": model.elements if elements_stated and not resume else None}
    known["valid"] = None if resume else model.elements
    found = []
    for part, elements in known.items():
        with ProgressBar(f"graphs to {part}", console) as report:
            found.append(GraphDataset(getattr(parts, part), model.graph_builder, report.count, labels, elements))
    return found[0], found[1]


def _check_shapes(model: AtomisticModel, graphs: GraphDataset, losses: dict[str, Any]) -> None:
    """Evaluate one structure before the run folder is made: the losses refuse predictions that do not fit."""
    from mlip.nn.derivatives import predict

    if not len(graphs):
        # Training refuses this in a sentence of its own.
        return
    smallest = graphs[int(graphs.num_edges.argmin())]
    found = predict(model, smallest, {field for loss in losses.values() for field in loss.required})
    for loss in losses.values():
        loss(found, smallest)


def _fill_statistics(config: DictConfig, parts: Parts, console: Console) -> None:
    """Put measured statistics where the user has set nothing."""
    from omegaconf import OmegaConf

    from mlip.cli.progress import ProgressBar
    from mlip.models.build import build_graph_builder

    unset = [name for name in config.statistics if config.statistics[name] is None]
    if not unset:
        return
    # The rest of the model refers to these statistics, so that it cannot be resolved yet.
    graph = {
        name: OmegaConf.to_container(config.model[name], resolve=True)
        if OmegaConf.is_config(config.model[name])
        else config.model[name]
        for name in ("graph", "cutoff")
        if config.model.get(name) is not None
    }
    builder = build_graph_builder({"cutoff": config.cutoff} | graph)
    # A run folder of an earlier version does not have these settings.
    source, regularisation = config.get("atomic_energy_source", "auto"), config.get("atomic_energy_regularisation", 0.0)
    with ProgressBar("statistics", console) as report:
        measured = parts.statistics(builder, source, regularisation, report.count)
    for name in unset:
        config.statistics[name] = measured[name]
    if "atomic_energies" in unset:
        console.print(
            f"Reference energies of the elements: {measured['atomic_energies_source']}", highlight=False, soft_wrap=True
        )


def _describe(console: Console, model: Any, parts: Parts, settings: dict[str, Any], folder: Path) -> None:
    console.print(
        f"{type(model).__name__} with {model.num_parameters:,} parameters for {', '.join(model.elements)}, "
        f"cutoff {model.cutoff} Å, {settings['dtype']}; {len(parts.train)} structures to train, "
        f"{len(parts.valid)} to validate; run folder {folder}",
        highlight=False,
        soft_wrap=True,
    )
    # Components that choose by measurement say what they chose.
    choices = Counter(str(part.choice) for part in model.modules() if hasattr(part, "choice"))
    if choices:
        listing = ", ".join(f"{name} ({count}x)" for name, count in choices.items())
        console.print(f"Fastest of the candidates here: {listing}", highlight=False)
