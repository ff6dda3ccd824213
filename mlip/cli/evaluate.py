"""``mlip evaluate``: errors of a model on a data set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlip.cli.kernels import CHOICE_HELP, KernelChoice

if TYPE_CHECKING:
    from rich.console import Console

    from mlip.data.datasets.base import Progress
    from mlip.data.graph import AtomGraph
    from mlip.data.subset import Subset as Samples
    from mlip.evaluation.calibration import Calibration
    from mlip.evaluation.metrics import ErrorStatistics
    from mlip.evaluation.one_pass import OnePass
    from mlip.evaluation.predict import Prediction
    from mlip.models.base import AtomisticModel


_ROOM = 500_000_000
"""Bytes of matrices that are kept to be drawn, so that these molecules are not computed again."""


class Subset(StrEnum):
    """Which structures of the data set are used."""

    all = "all"
    train = "train"
    valid = "valid"
    test = "test"


def evaluate(
    model: Annotated[Path, typer.Argument(help="Model file, or the name of an imported model.")],
    overrides: Annotated[
        list[str],
        typer.Argument(
            metavar="data=...",
            help="data=PATH of a file, folder or store; or data=NAME data.path=…, data.split.seed=…, …",
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
    kernels: Annotated[KernelChoice | None, typer.Option(help=CHOICE_HELP)] = None,
    energies: Annotated[
        bool,
        typer.Option(
            "--energies",
            help="Of Hamiltonians: also total energy and dipole of the density; PySCF, seconds a molecule.",
        ),
    ] = False,
) -> None:
    """Measure the errors of a model on labelled data.

    \b
    mlip evaluate runs/my/model.safetensors data=test.xyz
    mlip evaluate runs/3bpa/model.safetensors data=3bpa data.path=FOLDER --subset valid

    Writes metrics.json, predictions.xyz and parity.png into the output folder, and prints a table. For a model of
    Hamiltonians also orbitals.csv, a row for each molecule, and matrices.png.
    """
    from mlip.cli.data.source import find_source
    from mlip.models.names import existing_model

    # Before torch is imported, which takes seconds.
    existing_model(model)
    data = find_source(overrides).config

    from rich.console import Console

    from mlip.cli.evaluate_orbitals import check_energies, orbital_report, show_orbitals
    from mlip.cli.progress import ProgressBar
    from mlip.core.errors import MlipError
    from mlip.evaluation.calibration import Calibration
    from mlip.evaluation.metrics import ErrorStatistics
    from mlip.evaluation.one_pass import OnePass
    from mlip.evaluation.report import write_report
    from mlip.models.model_file import load_model

    console = Console()
    folder = _claim(output or default_folder(data, subset), overwrite)
    potential = load_model(model, device=device, dtype=dtype)
    if kernels is not None:
        potential.use_kernels(kernels.value)
    check_energies(potential, energies)
    with ProgressBar("reading the data", console) as progress:
        samples = _select(data, subset, exclude, progress)
    statistics = ErrorStatistics(_labels(samples, potential))
    # Of Hamiltonians two molecules are drawn in the end, and which ones is not known before.
    once = OnePass(samples, room=_ROOM if "hamiltonian" in potential.fields else 0)
    orbitals = orbital_report(potential, once, energies, max_edges, console)
    record = {
        "model": str(model),
        "data": data,
        "subset": subset.value,
        "excluded": str(exclude) if exclude else None,
        "dtype": str(potential.dtype).removeprefix("torch."),
        "device": str(potential.device),
        "kernels": potential.kernels,
    }
    title = f"{model.name} on {_source(data)}" + ("" if subset is Subset.all else f" ({subset.value})")
    results, calibration = _predict(potential, once, statistics, max_edges, console), Calibration()
    try:
        right = write_report(folder, once, results, statistics, record, title, calibration, orbitals)
    except MlipError:
        with suppress(OSError):
            folder.rmdir()
        raise
    _warn_if_trained_on(once.content_hash, potential, console)
    if orbitals is None:
        _show(statistics, title, len(samples), console)
    else:
        show_orbitals(orbitals, title, console)
    _show_uncertainty(calibration, console)
    if right is not None:
        console.print(f"{right} structures classified correctly", highlight=False)
    console.print(f"Results are in {folder}", soft_wrap=True, highlight=False)


def default_folder(data: dict[str, Any], subset: Subset) -> Path:
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


def _select(data: dict[str, Any], subset: Subset, exclude: Path | None, progress: Progress) -> Samples:
    """Find the structures that were asked for."""
    import numpy as np

    from mlip.core.errors import DataError
    from mlip.data.content_hash import geometry_hash
    from mlip.data.formats.extxyz_frames import read_frames
    from mlip.data.parts import load_dataset, load_parts
    from mlip.data.subset import Subset as Samples
    from mlip.data.subset import as_subset

    if subset is Subset.all:
        dataset = load_dataset(data)
        dataset.load(progress)
        samples = as_subset(dataset)
    else:
        samples = getattr(load_parts(data, progress), subset.value)
    if exclude is not None:
        unwanted = np.array([geometry_hash(atoms) for atoms in read_frames(exclude)], dtype=np.uint64)
        samples = Samples(samples.dataset, samples.indices[~np.isin(samples.geometry_digests, unwanted)])
    if not samples:
        raise DataError(f"The part '{subset.value}' of the data holds no structure: set data.split.{subset.value}.")
    return samples


def _labels(samples: Samples, model: AtomisticModel) -> list[str]:
    """Return the labels that the model predicts and some structure has."""
    from mlip.core.errors import DataError
    from mlip.core.fields import TARGETS
    from mlip.nn.derivatives import predictable

    fields = samples.fields()
    there = [label for label in TARGETS if label in fields]
    common = [label for label in there if label in predictable(model)]
    if not common:
        raise DataError(
            f"The data are labelled with {', '.join(there) or 'nothing'}, the model predicts "
            f"{', '.join(predictable(model))}: there is nothing to compare."
        )
    return common


def _warn_if_trained_on(content_hash: str, model: AtomisticModel, console: Console) -> None:
    data = model.metadata.get("data")
    trained = data.get("train") if isinstance(data, dict) else None
    if isinstance(trained, dict) and trained.get("sha256") == content_hash:
        console.print("[yellow]Warning:[/yellow] the model was trained on exactly these structures.")


def _predict(
    model: AtomisticModel, samples: OnePass, statistics: ErrorStatistics, max_edges: int, console: Console
) -> Iterator[tuple[AtomGraph, Prediction]]:
    """Yield graphs and predictions, with a progress bar on a terminal."""
    from mlip.cli.progress import ProgressBar
    from mlip.core.fields import SPREADS
    from mlip.data.loading import GraphDataset
    from mlip.evaluation.predict import predict_each
    from mlip.nn.derivatives import predictable

    graphs = GraphDataset(
        samples,
        model.graph_builder,
        labels=[*statistics.fields, *model.needs],
        elements=model.elements,
        once=True,
        inputs=model.inputs,
    )
    with ProgressBar("evaluating", console) as report:
        spreads = [SPREADS[name] for name in statistics.fields if SPREADS.get(name) in predictable(model)]
        fields = (*statistics.fields, *spreads)
        each = predict_each(model, graphs, fields, max_edges=max_edges, statistics=statistics)
        for number, result in enumerate(each):
            report(number / len(samples), number)
            yield result


def _show(statistics: ErrorStatistics, title: str, structures: int, console: Console) -> None:
    """Print the table of errors."""
    from rich.table import Table
    from rich.text import Text

    from mlip.core.fields import TARGETS
    from mlip.evaluation.metrics import error_keys, error_unit

    errors, counts = statistics.compute(), statistics.counts()
    rows = [("energy per atom", "energy_per_atom", "meV/atom"), ("energy per structure", "energy", "meV")]
    rows += [("forces", "forces", "meV/Å")]
    rows += [(f"forces on {symbol}", f"forces/{symbol}", "meV/Å") for symbol in statistics.elements()]
    others = [label for label in TARGETS if label not in ("energy", "forces")]
    rows += [(label.replace("_", " "), label, error_unit(label)[0]) for label in others]
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


def _show_uncertainty(calibration: Calibration, console: Console) -> None:
    """Print how far the spread of a committee tells its errors; nothing for a single model."""
    from rich.table import Table

    found = calibration.result()
    if not found:
        return
    table = Table(title="Spread of the committee against its errors", title_justify="left")
    table.add_column("of")
    for name in ("error", "spread", "error / spread", "correlation"):
        table.add_column(name, justify="right")
    table.add_column("unit")
    for name, one in found.items():
        numbers = [one.error, one.spread, one.ratio, one.correlation]
        unit = "meV" if name == "energy" else "meV/Å"
        table.add_row(name, *("–" if value is None else f"{value:.3g}" for value in numbers), unit)
    console.print(table)
