"""What ``mlip evaluate`` does for a model of Hamiltonians: orbitals, their table, and pictures of matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from mlip.data.sample import Sample
    from mlip.evaluation.one_pass import OnePass
    from mlip.evaluation.orbital_report import OrbitalReport
    from mlip.evaluation.predict import Prediction
    from mlip.models.base import AtomisticModel

_SHOWN = 3
"""Structures that are named of those without orbitals."""


def check_energies(model: AtomisticModel, energies: bool) -> None:
    """Refuse ``--energies``, before the data are read, where it cannot be done.

    Raises:
        ConfigError: the model predicts no Hamiltonians.
        DataError: PySCF is not installed.
    """
    from mlip.core.errors import ConfigError
    from mlip.data.pyscf_extra import require_pyscf

    if energies and "hamiltonian" not in model.fields:
        raise ConfigError(f"--energies is for models of Hamiltonians, this one predicts {', '.join(model.fields)}.")
    if energies:
        require_pyscf("--energies")


def orbital_report(
    model: AtomisticModel, samples: OnePass, energies: bool, max_edges: int, console: Console
) -> OrbitalReport | None:
    """Return what collects the errors of Hamiltonians; None for a model that predicts none.

    Raises:
        DataError: the first structure's matrices are in another basis, or its initial guess is of another functional.
    """
    from mlip.core.errors import DataError
    from mlip.data.orbital_statistics import check_initial_guess
    from mlip.evaluation.orbital_report import OrbitalReport, check_basis

    if "hamiltonian" not in model.fields:
        return None
    first = samples[0]
    try:
        check_basis(first, model.basis)
    except DataError as error:
        raise DataError(f"{first.source}: {error}") from error
    if "initial_hamiltonian" in model.needs:
        check_initial_guess(first, model.functional)
    functional = first.info.get("functional")
    if None not in (functional, model.functional) and functional != model.functional:
        console.print(
            f"[yellow]Warning:[/yellow] the data were made with {functional}, the model was trained on "
            f"{model.functional}: functionals differ by millihartrees."
        )
    return OrbitalReport(
        model.basis,
        model.functional,
        energies,
        look_again=lambda indices: predicted_again(model, samples, indices, max_edges),
    )


def predicted_again(
    model: AtomisticModel, samples: OnePass, indices: Sequence[int], max_edges: int
) -> list[tuple[Sample, Prediction]]:
    """Return some samples with their predicted Hamiltonians."""
    from mlip.data.loading import GraphDataset
    from mlip.data.subset import as_subset
    from mlip.evaluation.predict import predict_dataset

    chosen = [samples[index] for index in indices]
    graphs = GraphDataset(as_subset(chosen), model.graph_builder, labels=model.needs, once=True, inputs=model.inputs)
    return list(zip(chosen, predict_dataset(model, graphs, ("hamiltonian",), max_edges=max_edges), strict=True))


def show_orbitals(report: OrbitalReport, title: str, console: Console) -> None:
    """Print the table of errors of matrices and orbitals, and which molecules have none of these."""
    import numpy as np
    from rich.table import Table
    from rich.text import Text

    from mlip.core.units import HARTREE
    from mlip.evaluation.orbital_report import COLUMNS
    from mlip.evaluation.plots import short

    table = Table(title=Text(f"{title}: {len(report.molecules)} molecules"), title_justify="left")
    table.add_column("error of")
    for name in ("mean", "median", "worst"):
        table.add_column(name, justify="right")
    table.add_column("unit")
    table.add_column("mean in meV", justify="right")
    for column in COLUMNS:
        values = report.values(column)
        if not len(values):
            continue
        percent = column.unit == "%"
        three = [values.mean(), np.median(values), values.min() if percent else values.max()]
        texts = [f"{value:.3f}" if percent else short(value) for value in three]
        in_mev = short(1e-3 * HARTREE * values.mean()) if column.unit == "µEh" else ""
        table.add_row(column.title, *texts, column.unit, in_mev)
    console.print(table)
    for reason, sources in report.left_out().items():
        console.print(_sentence(reason, sources), soft_wrap=True, highlight=False)


def _sentence(reason: str, sources: Sequence[str]) -> str:
    if "PySCF" in reason:
        return (
            "Errors of matrices only: orbitals need overlaps, which the data lack, and PySCF, which computes them, is "
            "not installed: pip install 'mlip-kit\\[qm]'."
        )
    named = ", ".join(sources[:_SHOWN]) + (", …" if len(sources) > _SHOWN else "")
    return (
        f"Orbitals are compared of neutral closed-shell molecules only; {len(sources)} {reason} "
        f"{'one is' if len(sources) == 1 else 'ones are'} left out: {named}."
    )
