"""``mlip evaluate``: errors of a model on a data set."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from mlip.data.loading import GraphDataset
    from mlip.data.subset import Subset as Samples
    from mlip.evaluation.metrics import ErrorStatistics
    from mlip.models.base import AtomisticModel


class Subset(StrEnum):
    """Which structures of the data set are used."""

    all = "all"
    train = "train"
    valid = "valid"
    test = "test"


def evaluate(
    model: Annotated[Path, typer.Argument(help="Model file, as training writes it.")],
    overrides: Annotated[
        list[str],
        typer.Argument(
            metavar="data=...",
            help="data=FILE, or data=NAME of a configuration with data.path=…, data.split.seed=…, …",
        ),
    ],
    subset: Annotated[
        Subset, typer.Option(help="All structures, or one part of the configuration's split.")
    ] = Subset.all,
    exclude: Annotated[
        Path | None,
        typer.Option(help="Leave out structures whose geometry is in this file, e.g. training data."),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Folder for the results.  [default: evaluate_DATA]")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the results of an earlier run.")] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, …")] = "cpu",
    dtype: Annotated[str | None, typer.Option(help="float32 or float64.  [default: the model's]")] = None,
    max_edges: Annotated[int, typer.Option(min=1, help="Edges evaluated at once; lower it to save memory.")] = 20_000,
) -> None:
    """Measure the errors of a model on labelled data.

    \b
    mlip evaluate runs/my/model.safetensors data=test.xyz
    mlip evaluate runs/3bpa/model.safetensors data=3bpa data.path=FOLDER --subset valid

    Writes metrics.json, predictions.xyz and parity.png into the output folder, and prints a table.
    """
    from rich.console import Console

    from mlip.cli.compose import compose, to_plain
    from mlip.evaluation.accuracy import accuracy
    from mlip.evaluation.metrics import ErrorStatistics
    from mlip.evaluation.report import write_report
    from mlip.models.model_file import load_model

    console = Console()
    data = to_plain(compose("evaluate", data_overrides(overrides)))["data"]
    folder = _claim(output or _default_folder(data, subset), overwrite)
    potential = load_model(model, device=device, dtype=dtype)
    with console.status("reading the data"):
        samples = _select(data, subset, exclude)
    _warn_if_trained_on(samples, potential, console)
    statistics = ErrorStatistics(_labels(samples, potential))
    graphs, predictions = _predict(potential, samples, statistics, max_edges, console)
    record = {
        "model": str(model),
        "data": data,
        "subset": subset.value,
        "excluded": str(exclude) if exclude else None,
        "structures": len(samples),
        "sha256": samples.content_hash,
        "dtype": str(potential.dtype).removeprefix("torch."),
        "device": str(potential.device),
    }
    title = f"{model.name} on {_source(data)}" + ("" if subset is Subset.all else f" ({subset.value})")
    write_report(folder, samples, graphs, predictions, statistics, record, title)
    _show(statistics, title, len(samples), console)
    right = accuracy(samples, predictions)
    if right is not None:
        console.print(f"{right} structures classified correctly", highlight=False)
    console.print(f"Results are in {folder}", soft_wrap=True, highlight=False)


def data_overrides(words: Sequence[str]) -> list[str]:
    """Return Hydra overrides; a file in ``data=FILE``, or alone, becomes ``data=extxyz data.path=FILE``.

    Raises:
        DataError: what looks like a file is not there.
    """
    from mlip.cli.config_dir import config_dir
    from mlip.core.errors import DataError

    overrides: list[str] = []
    for word in words:
        value = word.removeprefix("data=")
        if "=" in value or word.startswith("~") or (config_dir() / "data" / f"{value}.yaml").is_file():
            overrides.append(word if "=" in word else f"data={word}")
        elif Path(value).is_file() or "*" in value:
            overrides += [
                "data=extxyz",
                "data.path='" + value.replace("\\", "\\\\").replace("'", "\\'") + "'",
            ]
        elif "." in value or "/" in value:
            raise DataError(f"There is no file '{value}' to evaluate on.")
        else:
            overrides.append(f"data={value}")
    return overrides


def _default_folder(data: dict[str, Any], subset: Subset) -> Path:
    """Return ``evaluate_DATA`` or ``evaluate_DATA_SUBSET`` after the first path of the data."""
    source = _source(data)
    path = source[0] if isinstance(source, list) else source
    name = Path(str(path).replace("*", "")).stem or "data"
    return Path(f"evaluate_{name}" + ("" if subset is Subset.all else f"_{subset.value}"))


def _source(data: dict[str, Any]) -> Any:
    """Return the path of the data, or the module of a data set that reads no file."""
    return data.get("path") or data["dataset"]["_target_"].split(".")[-2]


def _claim(folder: Path, overwrite: bool) -> Path:
    from mlip.core.errors import MlipError

    if (folder / "metrics.json").exists() and not overwrite:
        raise MlipError(f"'{folder}' holds results already: choose another folder with --output, or --overwrite.")
    return folder


def _select(data: dict[str, Any], subset: Subset, exclude: Path | None) -> Samples:
    """Find the structures that were asked for."""
    import numpy as np

    from mlip.core.errors import DataError
    from mlip.data.content_hash import geometry_hash
    from mlip.data.formats.extxyz_frames import read_frames
    from mlip.data.parts import load_dataset, load_parts
    from mlip.data.subset import Subset as Samples
    from mlip.data.subset import as_subset

    samples = as_subset(load_dataset(data)) if subset is Subset.all else getattr(load_parts(data), subset.value)
    if exclude is not None:
        unwanted = np.array([geometry_hash(atoms) for atoms in read_frames(exclude)], dtype=np.uint64)
        samples = Samples(samples.dataset, samples.indices[~np.isin(samples.geometry_digests, unwanted)])
    if not samples:
        raise DataError(f"The part '{subset.value}' of the data holds no structure: set data.split.{subset.value}.")
    return samples


def _labels(samples: Samples, model: AtomisticModel) -> list[str]:
    """Return the labels that the model predicts and some structure has."""
    from mlip.core.errors import DataError
    from mlip.core.fields import LABELS
    from mlip.nn.derivatives import predictable

    fields = samples.fields()
    there = [label for label in LABELS if label in fields]
    common = [label for label in there if label in predictable(model)]
    if not common:
        raise DataError(
            f"The data are labelled with {', '.join(there) or 'nothing'}, the model predicts "
            f"{', '.join(predictable(model))}: there is nothing to compare."
        )
    return common


def _warn_if_trained_on(samples: Samples, model: AtomisticModel, console: Console) -> None:
    data = model.metadata.get("data")
    trained = data.get("train") if isinstance(data, dict) else None
    if isinstance(trained, dict) and trained.get("sha256") == samples.content_hash:
        console.print("[yellow]Warning:[/yellow] the model was trained on exactly these structures.")


def _predict(
    model: AtomisticModel,
    samples: Samples,
    statistics: ErrorStatistics,
    max_edges: int,
    console: Console,
) -> tuple[GraphDataset, list[Any]]:
    """Return graphs and predictions, with a progress bar on a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from mlip.core.errors import StructureError
    from mlip.data.loading import GraphDataset
    from mlip.evaluation.predict import predict_dataset

    for sample in samples:
        try:
            model.check_elements(sample.atoms.numbers.tolist())
        except StructureError as error:
            raise StructureError(f"{sample.source}: {error}") from error
    with console.status("building the graphs"):
        graphs = GraphDataset(samples, model.graph_builder, labels=statistics.fields)
    columns = (TextColumn("evaluating"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("evaluating", total=len(graphs))
        predictions = predict_dataset(
            model,
            graphs,
            statistics.fields,
            max_edges=max_edges,
            statistics=statistics,
            progress=lambda done: progress.advance(task, done),
        )
    return graphs, predictions


def _show(statistics: ErrorStatistics, title: str, structures: int, console: Console) -> None:
    """Print the table of errors."""
    from rich.table import Table
    from rich.text import Text

    from mlip.core.fields import FIELDS, LABELS
    from mlip.evaluation.metrics import error_keys

    errors, counts = statistics.compute(), statistics.counts()
    rows = [("energy per atom", "energy_per_atom", "meV/atom"), ("energy per structure", "energy", "meV")]
    rows += [("forces", "forces", "meV/Å")]
    rows += [(f"forces on {symbol}", f"forces/{symbol}", "meV/Å") for symbol in statistics.elements()]
    rows += [("stress", "stress", "meV/Å³")]
    rows += [(label.replace("_", " "), label, "") for label in LABELS if FIELDS[label].unit == "1"]
    table = Table(title=Text(f"{title}: {structures} structures"), title_justify="left")
    table.add_column("error of")
    for name in ("MAE", "RMSE"):
        table.add_column(name, justify="right")
    table.add_column("unit")
    for name, group, unit in rows:
        mae, rmse = error_keys(group)
        if rmse in errors:
            table.add_row(name, f"{errors[mae]:.4g}", f"{errors[rmse]:.4g}", unit)
    console.print(table)
    for field, count in counts.items():
        if count["missing"]:
            total = count["labelled"] + count["missing"]
            console.print(f"{field}: {count['missing']} of {total} values have no label and were skipped.")
