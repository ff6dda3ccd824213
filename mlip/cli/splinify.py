"""``mlip splinify``: radial MLPs of a trained model become splines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from mlip.data.sample import Sample
    from mlip.evaluation.changes import Changes
    from mlip.models.base import AtomisticModel
    from mlip.models.splinify import LayerFit


def splinify(
    model: Annotated[Path, typer.Argument(help="Model file with radial MLPs.")],
    structures: Annotated[
        list[Path] | None,
        typer.Argument(help="Files with typical structures, any that ASE reads; labels are not looked at."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The new model.  [default: MODEL_spline.safetensors]")
    ] = None,
    radial: Annotated[str, typer.Option(help="The new radial basis, an option of model/radial.")] = "bspline",
    num_basis: Annotated[int, typer.Option(min=1, help="Its size.")] = 24,
    rank: Annotated[
        int,
        typer.Option(min=0, help="Functions a layer that the weights combine; 0: each weight has one of its own."),
    ] = 9,
    finetune: Annotated[
        float, typer.Option(min=0, help="Passes over the structures to train on the old model's energies and forces.")
    ] = 0.0,
    lr: Annotated[float, typer.Option(help="Highest learning rate of --finetune.")] = 1e-3,
    limit: Annotated[int, typer.Option(min=1, help="Use at most so many of the structures, evenly chosen.")] = 200,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output of an earlier run.")] = False,
) -> None:
    """Replace the radial MLPs of a model by fitted splines.

    Fewer parameters and less arithmetic:

    \b
    mlip splinify runs/nequip/model.safetensors train.xyz
    mlip splinify sevennet-0 crystals.xyz --rank 12 --finetune 5

    Reports R² of each layer and, with structures, the largest change of energies and forces on them. Writes the new
    model and a picture of the functions. All other weights stay as they are, unless --finetune trains on.
    """
    from rich.console import Console

    from mlip.core.errors import ConfigError
    from mlip.models.names import existing_model

    console = Console()
    target = output or Path(f"{model.with_suffix('').name}_spline.safetensors")
    if target.exists() and not overwrite:
        raise ConfigError(f"'{target}' exists: choose another --output, or replace it with --overwrite.")
    if finetune and not structures:
        raise ConfigError("--finetune needs structures to train on: name a file of them.")
    if finetune and lr <= 0:
        raise ConfigError(f"--lr must be positive, got {lr}.")
    # Before torch is imported, which takes seconds.
    existing_model(model)
    samples = _read(structures or [], limit)

    from mlip.evaluation.radial_plot import plot_fits
    from mlip.models.model_file import load_model, save_model
    from mlip.models.splinify import splinify as fit

    original = load_model(model)
    if "energy" not in original.fields:
        raise ConfigError(f"Potentials can be splinified, and '{model}' predicts {', '.join(original.fields)}.")
    weights = _option("radial_weights", "low_rank", rank=rank) if rank else _option("radial_weights", "linear")
    new, fits = fit(original, _option("radial", radial, num_basis=num_basis), weights, _distances(original, samples))
    _show_fits(original, new, fits, console)
    if samples:
        _show_changes("the fit", original, new, samples, console)
    if finetune:
        from mlip.training.distill import distill

        folder = target.with_suffix("")
        new = distill(new, original, samples, folder, finetune, lr, console)
        _show_changes("fine-tuning", original, new, samples, console)
    record = {
        "basis": radial, "num_basis": num_basis, "rank": rank, "r2": [layer.r2 for layer in fits], "finetune": finetune,
        "model": str(model), "parameters_before": original.num_parameters,
    }  # fmt: skip
    save_model(target, new, {**original.metadata, "splinified": record})
    picture = target.with_suffix(".png")
    plot_fits(picture, fits, f"{model.name}: radial functions")
    console.print(f"The model is {target}, the picture {picture}.", soft_wrap=True, highlight=False)


def _option(group: str, name: str, **options: Any) -> dict[str, Any]:
    """Return the configuration of an option of a group of ``model``, some values changed."""
    from omegaconf import OmegaConf

    from mlip.cli.config_dir import config_dir
    from mlip.core.errors import ConfigError, did_you_mean

    folder = config_dir() / "model" / group
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    if name not in known:
        raise ConfigError(f"There is no {group} '{name}'.{did_you_mean(name, known)} Known: {', '.join(known)}.")
    return {**OmegaConf.to_container(OmegaConf.load(folder / f"{name}.yaml")), **options}


def _read(files: Sequence[Path], limit: int) -> list[Sample]:
    """Return at most ``limit`` structures, evenly chosen, with the inputs they state."""
    import numpy as np

    from mlip.core.fields import INPUTS
    from mlip.data.sample import Sample
    from mlip.simulate.structures import read_structures

    found = []
    for path in files:
        for number, atoms in enumerate(read_structures(path)):
            stated = {name: np.asarray(atoms.info[name]) for name in INPUTS if name in atoms.info}
            stated |= {name: atoms.arrays[name] for name in INPUTS if name in atoms.arrays}
            plain = type(atoms)(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
            found.append(Sample(plain, stated, {"source": f"{path}:{number}"}))
    count = min(limit, len(found))
    return [found[k * len(found) // count] for k in range(count)]


def _distances(model: AtomisticModel, samples: Sequence[Sample]) -> Any:
    """Return the lengths of the edges of all structures, or None without structures."""
    import torch

    from mlip.data.build_graph import graph_of
    from mlip.nn.edge_vectors import edge_vectors

    if not samples:
        return None
    found = []
    for sample in samples:
        graph = graph_of(sample, model.graph_builder)
        first = torch.zeros_like(graph.senders)
        vectors = edge_vectors(graph.positions, graph.cell, graph.cell_shifts, graph.senders, graph.receivers, first)
        found.append(vectors.norm(dim=1))
    return torch.cat(found)


def _show_fits(original: AtomisticModel, new: AtomisticModel, fits: Sequence[LayerFit], console: Console) -> None:
    from rich.table import Table

    table = Table(title="Radial functions", title_justify="left")
    for name in ("module", "R²", "parameters before", "after"):
        table.add_column(name, justify="left" if name == "module" else "right")
    for fit in fits:
        table.add_row(fit.name, f"{fit.r2:.5f}", f"{fit.parameters_before:,}", f"{fit.parameters_after:,}")
    console.print(table)
    before, after = original.num_parameters, new.num_parameters
    share = 100 * (after - before) / before
    console.print(f"Parameters of the model: {before:,} before, {after:,} after ({share:+.1f} %)", highlight=False)


def _show_changes(
    what: str, original: AtomisticModel, new: AtomisticModel, samples: Sequence[Sample], console: Console
) -> Changes:
    from mlip.cli.progress import ProgressBar
    from mlip.evaluation.changes import changes

    with ProgressBar("comparing the models", console) as report:
        found = changes(original, new, samples, report.count)
    console.print(
        f"After {what}, on {found.structures} structures: energies change by {1000 * found.energy_max:.3g} meV/atom at "
        f"most ({1000 * found.energy_mean:.3g} on average), force components by {1000 * found.forces_max:.3g} meV/Å "
        f"({1000 * found.forces_mean:.3g}); the RMS force is {1000 * found.force_scale:.4g} meV/Å.",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    return found
