"""``mlip doctor``: the self-test to run before a model is trusted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlip.cli.kernels import describe_compiler

if TYPE_CHECKING:
    from mlip.models.base import AtomisticModel
    from mlip.testing.measurement import Measurement


def doctor(
    model: Annotated[Path, typer.Argument(help="Model file, or the name of an imported model.")],
    structure: Annotated[
        Path | None,
        typer.Argument(help="A structure of yours, in any format ASE reads; its last frame is used."),
    ] = None,
    device: Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1.")] = "cpu",
    seed: Annotated[int, typer.Option(help="Seed of the generated structures.")] = 0,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write the table to this file, too.")] = None,
) -> None:
    """Check that a model obeys the laws of physics.

    Symmetries, derivatives, the cutoff, precision, batches: every row is a measured error next to the largest value
    that is still right. The exit status is 1 if any row fails. Checks run on generated structures of the model's
    elements and on STRUCTURE, if given.

    Example: mlip doctor runs/ethanol/model.safetensors
    """
    from mlip.models.names import existing_model

    # Before torch is imported, which takes seconds.
    existing_model(model)

    from mlip.models.model_file import load_model

    examined = load_model(model, device=device)
    own = None if structure is None else _read(structure, examined)
    rows, grids = _examine(examined, own, seed)
    failed = [row for row in rows if not row.passed]
    _show(str(model), rows, grids)
    typer.echo(f"Kernels: {describe_compiler()}")
    if json_path is not None:
        _write_json(json_path, model, rows, grids)
    if failed:
        typer.echo(f"{len(failed)} of {len(rows)} checks failed: do not trust this model before you know why.")
        raise typer.Exit(1)
    typer.echo(f"All {len(rows)} checks passed.")


def _read(path: Path, model: AtomisticModel) -> Any:
    """Read the user's structure and refuse what the model cannot evaluate."""
    from mlip.calculators.molecule_checks import check_molecule
    from mlip.calculators.structure_checks import check_structure
    from mlip.data.inputs import stated_inputs
    from mlip.simulate.structures import read_structure

    atoms = read_structure(path)
    (check_molecule if "hamiltonian" in model.fields else check_structure)(atoms, model)
    stated_inputs(atoms, model.inputs)
    return atoms


def _examine(model: AtomisticModel, structure: Any, seed: int) -> tuple[list[Measurement], dict[str, float]]:
    """Run all checks with a line that says which one is running."""
    from rich.console import Console

    from mlip.testing.report import aliasing, examine

    rows = []
    with Console(stderr=True).status("Examining the model …") as status:
        for row in examine(model, structure, seed):
            rows.append(row)
            status.update(f"{len(rows)} checks done, last: {row.name}")
        return rows, aliasing(model, structure, seed)


def _show(title: str, rows: Sequence[Measurement], grids: dict[str, float]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    table = Table(title=Text(title), title_justify="left")
    table.add_column("", no_wrap=True)
    table.add_column("check", overflow="fold")
    table.add_column("error", justify="right", no_wrap=True)
    table.add_column("allowed", justify="right", no_wrap=True)
    table.add_column("unit", overflow="fold")
    if not all(row.passed for row in rows):
        table.add_column("what it does to you", overflow="fold")
    for row in rows:
        mark = Text("pass", style="green") if row.passed else Text("FAIL", style="bold red")
        numbers = f"{row.value:.1e}", f"{row.tolerance:.0e}"
        table.add_row(mark, row.name, *numbers, row.unit, *([] if row.passed else [row.meaning]))
    console.print(table)
    if grids:
        text = ", ".join(f"{grid}: {error:.1e}" for grid, error in grids.items())
        console.print(
            Text(
                "This model is equivariant up to the grid of its mixers. Error of the forces over their RMS "
                f"by grid (latitudes x longitudes; the middle one is the model's own): {text}."
            ),
            soft_wrap=True,
        )


def _write_json(path: Path, model: Path, rows: Sequence[Measurement], grids: dict[str, float]) -> None:
    import json
    from dataclasses import asdict
    from math import isfinite

    from mlip.core.files import write_text_atomically

    # JSON knows neither NaN nor infinity: such a value becomes null, and its row has failed anyway; a tolerance that
    # is null allows everything.
    table = []
    for row in rows:
        numbers = {name: value if isfinite(value) else None for name, value in asdict(row).items() if name in _NUMBERS}
        table.append({**asdict(row), **numbers, "passed": row.passed})
    report = {
        "model": str(model),
        "passed": all(row.passed for row in rows),
        "checks": table,
        "aliasing_by_grid": grids,
    }
    write_text_atomically(path, json.dumps(report, indent=2, ensure_ascii=False) + "\n")


_NUMBERS = ("value", "tolerance")
