"""What is found out before a training starts: losses, labels and predictions that do not fit."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from rich.console import Console

    from mlip.data.loading import GraphDataset
    from mlip.data.parts import Parts
    from mlip.models.base import AtomisticModel

MATRICES_COMPUTED = ("initial_guess", "overlap")
"""Settings of data sets that may be ``compute``, which takes PySCF up to seconds a structure."""


def choose_losses(config: DictConfig, overrides: list[str]) -> None:
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


def build_losses(config: DictConfig) -> dict[str, Any]:
    """Build the losses that are chosen.

    Raises:
        ConfigError: one sentence.
    """
    from omegaconf import OmegaConf

    from mlip.core.build import build
    from mlip.core.errors import ConfigError
    from mlip.training.losses.base import Loss

    losses = build(OmegaConf.to_container(config.loss, resolve=True))
    for name, loss in losses.items():
        if not isinstance(loss, Loss):
            raise ConfigError(f"loss.{name} must be a loss of mlip, with a _target_, got {loss!r}.")
    return losses


def check_labels(parts: Parts, losses: dict[str, Any]) -> None:
    """Refuse losses of labels, or of other fields, that some structure does not have.

    Raises:
        ConfigError: one sentence.
    """
    from mlip.core.errors import ConfigError

    for name, loss in losses.items():
        for field in loss.required:
            some = not loss.everywhere and all(field in part.fields() for part in (parts.train, parts.valid))
            if field not in parts.provides and not some:
                raise ConfigError(
                    f"The loss '{name}' needs the label '{field}', all structures to train and validate on have "
                    f"{', '.join(parts.provides)}. Add it to data.dataset.labels, or leave the loss out."
                )
        for field in loss.needs:
            if not all(field in part.fields() for part in (parts.train, parts.valid)):
                raise ConfigError(
                    f"The loss '{name}' needs '{field}' of every structure, which the data do not have. Have it "
                    f"computed once by mlip data prepare … data.dataset.{field}=compute out=STORE, train on the store."
                )


def check_predictions(model: AtomisticModel, losses: dict[str, Any]) -> None:
    """Refuse losses of fields that the model does not predict.

    Raises:
        ConfigError: one sentence.
    """
    from mlip.core.errors import ConfigError
    from mlip.nn.derivatives import predictable

    for name, loss in losses.items():
        for field in loss.required:
            if field not in predictable(model):
                raise ConfigError(
                    f"The loss '{name}' needs a model that predicts '{field}', {type(model).__name__} predicts "
                    f"{', '.join(predictable(model))}. Choose another model=… or loss=[…]."
                )


def check_orbitals(config: DictConfig, losses: dict[str, Any]) -> None:
    """Refuse, before data are read, what would be computed anew in every pass, and losses for models without orbitals.

    Raises:
        ConfigError: one sentence.
    """
    from mlip.core.errors import ConfigError
    from mlip.core.fields import MATRICES

    dataset = (config.get("data") or {}).get("dataset") or {}
    computed = [name for name in MATRICES_COMPUTED if dataset.get(name) == "compute"]
    if computed:
        options = " ".join(f"data.dataset.{name}=compute" for name in computed)
        raise ConfigError(
            f"A training with {options} would run PySCF for every structure in every pass. Run it once, 'mlip data "
            f"prepare data=… data.path=… {options} out=STORE', and train with data=store data.path=STORE."
        )
    if "shells" in (config.get("model") or {}) or (config.get("finetune") or {}).get("model"):
        return
    for name, loss in losses.items():
        if set(loss.required) & set(MATRICES):
            target = str((config.get("model") or {}).get("_target_", "?")).rpartition(".")[2]
            raise ConfigError(
                f"The loss '{name}' needs a model of Hamiltonians, {target} is none: choose model=qhnet or sphnet, "
                "or other losses, e.g. loss=[energy,forces]."
            )


def check_level(parts: Parts, model: AtomisticModel) -> None:
    """Refuse Hamiltonians in another basis, or of another functional, than those of the model.

    Only the first structures are looked at; the statistics look at all.

    Raises:
        ConfigError: one sentence.
        DataError: initial Hamiltonians of another functional, for a model that adds to them.
    """
    from mlip.core.errors import ConfigError
    from mlip.data.orbital_statistics import check_initial_guess
    from mlip.data.orbitals import basis_key

    if "hamiltonian" not in model.fields:
        return
    for sample in (part[0] for part in (parts.train, parts.valid) if len(part)):
        for name, key in (("basis", basis_key), ("functional", str)):
            stated, own = sample.info.get(name), getattr(model, name)
            if stated is not None and own is not None and key(stated) != key(own):
                raise ConfigError(
                    f"The model's {name} is {own}, {sample.source} has Hamiltonians of {stated}: one model learns one "
                    "level of theory. Take other data, or train a new model."
                )
        if "initial_hamiltonian" in model.needs:
            check_initial_guess(sample, model.functional)


def check_trained(model: AtomisticModel, losses: dict[str, Any], console: Console | None = None) -> None:
    """Refuse a new model that predicts what no loss trains: its numbers would be those of random weights.

    Args:
        model: what is trained.
        losses: by name.
        console: where to warn instead, of a model that was trained before: it has learned such a field once, but the
            features that it is read from change.

    Raises:
        ConfigError: one sentence.
    """
    from mlip.core.errors import ConfigError

    for field in _untrained(model, losses):
        if console is None:
            raise ConfigError(
                f"The model predicts '{field}', which no loss trains: add a loss for it, such as loss=[…,{field}], or "
                "leave out what predicts it (model/head=[…])."
            )
        console.print(
            f"[yellow]Warning:[/yellow] no loss trains '{field}', which this model predicts: its error will grow. Add "
            "a loss for it, or do not use it afterwards.",
            highlight=False,
            soft_wrap=True,
        )


def _untrained(model: AtomisticModel, losses: dict[str, Any]) -> list[str]:
    """Return what a model predicts and no loss trains."""
    from mlip.core.fields import DERIVED, MEMBERS, TOTALS

    required = {field for loss in losses.values() for field in loss.required}
    derived = {name: source for name, source in DERIVED.items() if name not in model.fields}

    def reached(field: str) -> bool:
        after = [TOTALS[field]] if field in TOTALS else [name for name, source in derived.items() if source == field]
        return field in required or any(reached(name) for name in after)

    # The members of a committee are trained with their mean.
    return [field for field in model.fields if field not in MEMBERS.values() and not reached(field)]


def check_shapes(model: AtomisticModel, graphs: GraphDataset, losses: dict[str, Any]) -> None:
    """Evaluate one structure before the run folder is made: the losses refuse predictions that do not fit."""
    from mlip.nn.derivatives import predict

    if not len(graphs):
        # Training refuses this in a sentence of its own.
        return
    smallest = graphs[int(graphs.num_edges.argmin())]
    found = predict(model, smallest, {field for loss in losses.values() for field in loss.required})
    for loss in losses.values():
        loss(found, smallest)
