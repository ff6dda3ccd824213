"""``mlip train``: compose the configuration, prepare the data, train, and leave plots and a record."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlip.cli.training.checks import (
    build_losses,
    check_labels,
    check_level,
    check_orbitals,
    check_predictions,
    check_shapes,
    check_trained,
    choose_losses,
)
from mlip.cli.training.description import describe, describe_groups
from mlip.cli.training.finetune import check_start, write_parent
from mlip.cli.training.folder import CONFIG, forgotten_if_nothing_came, load_config, make_folder, refuse_existing
from mlip.cli.training.numbers import check_numbers
from mlip.cli.training.preparation import build_graphs, make_model
from mlip.cli.training.replay import load_replay

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from rich.console import Console


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
    multirun: Annotated[
        bool, typer.Option("--multirun", "-m", help="Train every combination of settings with several values.")
    ] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Runs of a --multirun that train at the same time.")] = 1,
) -> None:
    """Train a potential.

    \b
    mlip train experiment=ethanol                                  # the bundled data
    mlip train experiment=3bpa data.path=FOLDER                    # a tested recipe on your copy of 3BPA
    mlip train data.path=my.xyz name=my cutoff=6.0 max_epochs=200  # your own extxyz file
    mlip train data.path=my.xyz 'loss=[energy,forces,stress]'      # crystals with stress
    mlip train model=facet model/radial=bessel trainer=gpu …       # other components
    mlip train --resume runs/my                                    # after Ctrl-C or a crash
    mlip train finetune.model=runs/my/model.safetensors data.path=new.xyz name=new   # from trained weights
    mlip train -m name=my model/radial=bessel,bspline seed=0,1 …   # four runs, for mlip compare runs/my

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
    if multirun or jobs > 1:
        from mlip.cli.multirun import train_many

        if resume is not None or not multirun:
            raise ConfigError("--jobs goes with -m, and -m without --resume: repeating the same command goes on.")
        train_many(overrides or [], config_dir, jobs, print_config, console)
        return
    if resume is not None:
        if overrides:
            raise ConfigError(
                f"--resume continues a run with its own configuration and takes no overrides, got '{overrides[0]}'."
            )
        config = load_config(resume)
    else:
        config = compose("train", overrides or [], config_dir)
        choose_losses(config, overrides or [])
        check_start(config, overrides or [])
        check_numbers(config)
        if print_config:
            console.print(OmegaConf.to_yaml(config), markup=False, highlight=False)
            return
        if leads:
            refuse_existing(Path(config.run_dir))
    run(config, console, resume is not None, leads)


def run(config: DictConfig, console: Console, resume: bool, leads: bool = True) -> None:
    """Train with a composed configuration; only the leading process writes the records."""
    from omegaconf import OmegaConf

    from mlip.cli.compose import require_complete
    from mlip.cli.progress import ProgressBar
    from mlip.core.build import build
    from mlip.core.files import write_text_atomically
    from mlip.data.parts import load_parts
    from mlip.models.build import parse_dtype
    from mlip.training.record import fingerprint, finish, provenance
    from mlip.training.run import Run
    from mlip.training.run import train as train_model
    from mlip.training.time_limit import time_limit

    require_complete(config)
    limit = time_limit(config.get("max_minutes"), config.get("clock", "wall"))
    folder = Path(config.run_dir)
    parse_dtype(config.dtype)
    losses = build_losses(config)
    check_orbitals(config, losses)
    with ProgressBar("reading the data", console) as report:
        parts = load_parts(OmegaConf.to_container(config.data, resolve=True), report)
    check_labels(parts, losses)
    stated = config.statistics.elements is not None
    model, settings, parent = make_model(config, parts, console, resume)
    check_predictions(model, losses)
    check_level(parts, model)
    check_trained(model, losses, None if parent is None else console)
    # The energy is evaluated where there is one, trained or not.
    fields = {"energy", *model.needs} | {field for loss in losses.values() for field in (*loss.required, *loss.needs)}
    replay = load_replay(config, parts, fields, console)
    graphs = build_graphs(parts, replay, model, fields, stated, resume, console)
    check_shapes(model, graphs["train"], losses)
    optimizer = build(settings["optimizer"])
    describe(console, model, parts, settings, folder)
    describe_groups(console, model, optimizer)
    if leads and not resume:
        make_folder(folder)
        if parent is not None:
            write_parent(folder, parent)
        write_text_atomically(folder / CONFIG, OmegaConf.to_yaml(OmegaConf.create(settings)))
    card = provenance(settings, parts, parent, replay and replay.card)
    described = Run(
        folder=folder,
        losses=losses,
        optimizer=optimizer,
        schedule=build(settings["schedule"]),
        trainer=settings["trainer"],
        resume=resume,
        fingerprint=fingerprint(settings, parts, replay and replay.train.content_hash),
        card=card,
        resume_hint=f"mlip train --resume {folder}",
        limit=limit,
        reservoir=replay and replay.reservoir,
        **{name: settings[name] for name in _RUN_SETTINGS if name in settings},
    )
    with forgotten_if_nothing_came(folder, leads and not resume):
        further = {name: graphs[name] for name in graphs if name not in ("train", "valid")}
        outcome = train_model(model, graphs["train"], graphs["valid"], described, console, further)
    if leads:
        finish(folder, card, outcome, parts, console)


_RUN_SETTINGS = (
    "max_epochs", "batch_edges", "batch_graphs", "batch_atoms", "bucket", "validate_every", "checkpoint_every",
    "ema_decay", "patience", "seed", "num_workers",
)  # fmt: skip
