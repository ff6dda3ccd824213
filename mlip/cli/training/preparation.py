"""From the data to what the training takes: statistics, model and graphs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from rich.console import Console

    from mlip.cli.training.replay import Replay
    from mlip.data.loading import GraphDataset
    from mlip.data.parts import Parts
    from mlip.models.base import AtomisticModel


def fill_statistics(config: DictConfig, parts: Parts, console: Console) -> None:
    """Put measured statistics where the user has set nothing."""
    from omegaconf import OmegaConf

    from mlip.cli.progress import ProgressBar
    from mlip.core.fields import INPUTS
    from mlip.data.orbital_statistics import NAMES
    from mlip.models.build import build_graph_builder

    read = OmegaConf.to_yaml(config.model)
    unset = [
        name
        for name in config.statistics
        # Whole passes over the data for an input that no part of the model reads would be wasted.
        if config.statistics[name] is None and (name not in (*INPUTS, *NAMES) or f"${{statistics.{name}}}" in read)
    ]
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
    if "atomic_energies" in unset and "${statistics.atomic_energies}" in read:
        console.print(
            f"Reference energies of the elements: {measured['atomic_energies_source']}", highlight=False, soft_wrap=True
        )


def make_model(
    config: DictConfig, parts: Parts, console: Console, resume: bool
) -> tuple[AtomisticModel, dict[str, Any], dict[str, Any] | None]:
    """Build the model that is trained: a new one, that of a file, or that of a run that is resumed.

    Args:
        config: gets the statistics of the data, or what the file says.
        parts: the data.
        console: says what was measured.
        resume: the configuration is that of a run folder.

    Returns:
        The model, the complete settings, and the card of the file it comes from; None without a file.
    """
    from mlip.cli.compose import to_plain
    from mlip.cli.training.finetune import is_finetuning, read_parent, start_from_file
    from mlip.models.build import build_model, parse_dtype
    from mlip.training.parameter_groups import freeze

    model, parent = None, None
    if not is_finetuning(config):
        fill_statistics(config, parts, console)
    elif resume:
        parent = read_parent(Path(config.run_dir))
    else:
        model, parent = start_from_file(config, parts, console)
    settings = to_plain(config)
    if model is None:
        model = build_model(settings["model"], seed=settings["seed"], dtype=parse_dtype(settings["dtype"]))
    freeze(model, (settings.get("finetune") or {}).get("freeze") or [])
    return model, settings, parent


def build_graphs(
    parts: Parts,
    replay: Replay | None,
    model: AtomisticModel,
    labels: set[str],
    elements_stated: bool,
    resume: bool,
    console: Console,
) -> dict[str, GraphDataset]:
    """Build or count the graphs, and look for elements that the model does not know.

    Returns:
        Graphs to ``train`` on, new ones first; to ``valid``ate on; and those of the ``replay`` set to validate on.
    """
    from mlip.cli.progress import ProgressBar
    from mlip.data.joined import Joined
    from mlip.data.loading import GraphDataset
    from mlip.data.subset import as_subset

    samples = {"train": parts.train, "valid": parts.valid}
    if replay is not None:
        samples["train"] = as_subset(Joined([parts.train, replay.train]))
        if len(replay.valid):
            samples["replay"] = replay.valid
    found = {}
    for name, part in samples.items():
        # Elements that were measured are those of the training structures.
        checked = name != "train" or elements_stated or replay is not None
        # A run that is resumed has been through this.
        elements = model.elements if checked and not resume else None
        with ProgressBar(f"graphs to {name}", console) as report:
            found[name] = GraphDataset(part, model.graph_builder, report.count, labels, elements, inputs=model.inputs)
    return found
