"""``mlip tensor-products``: what the tensor-product backends can represent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from mlip.benchmark.expressivity import Expressiveness

tensor_products = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Compare what the tensor-product backends can represent."
)


@tensor_products.callback()
def root() -> None:
    """Compare what the tensor-product backends can represent."""


@tensor_products.command()
def expressivity(
    lmax: Annotated[int, typer.Option(help="Largest degree of the inputs.", min=1, max=6)] = 3,
    truncate: Annotated[bool, typer.Option("--truncate", help="Outputs up to lmax only, not 2 lmax.")] = False,
    backends: Annotated[str, typer.Option(help="Backends, separated by commas, or all.")] = "all",
    csv_path: Annotated[Path | None, typer.Option("--csv", help="Write the table to this file, too.")] = None,
    plot_path: Annotated[
        Path | None, typer.Option("--plot", help="Draw dimension and cost for 1..lmax (MIMO) to this PNG file.")
    ] = None,
) -> None:
    """Print which bilinear maps every backend reaches.

    Paths (l1, l2, l3) that carry signal, even and odd sums apart; the dimension of the set of equivariant maps
    that one channel reaches with linear layers before and after, by rank in float64; weights; operations and
    bytes for a row and channel.

    Example: mlip tensor-products expressivity --lmax 3
    """
    from rich.console import Console

    from mlip.benchmark.expressivity import survey
    from mlip.ops.tensor_product.settings import SETTINGS

    factories = tensor_product_factories(backends)
    if csv_path is not None:
        _check_output("csv", csv_path)
    if plot_path is not None:
        _check_output("plot", plot_path, ".png")
    errors = Console(stderr=True)
    with errors.status("Measuring …") as status:
        rows = survey(factories, reversed(SETTINGS), lmax, truncate, status.update)
        curves = list(rows)
        if plot_path is not None:
            for smaller in range(1, lmax):
                curves += survey(factories, ["mimo"], smaller, truncate, status.update)
    show(rows)
    typer.echo("Paths with l1 + l2 + l3 even + odd; dimension of the reachable set, and in brackets the count.")
    typer.echo("FLOPs and bytes a row and channel, forward; – where they cannot be counted or a backend refuses,")
    typer.echo("as chosen: those of the backend that a measurement on this machine chooses for a size.")
    if csv_path is not None:
        _write_csv(csv_path, rows)
    if plot_path is not None:
        from mlip.benchmark.plots import plot_expressivity

        plot_expressivity(plot_path, [row for row in curves if row.setting == "mimo"])


def _check_output(option: str, path: Path, suffix: str | None = None) -> None:
    """Refuse a file that could not be written, before anything is measured."""
    from tempfile import NamedTemporaryFile

    from mlip.core.errors import ConfigError

    if suffix is not None and path.suffix.lower() != suffix:
        raise ConfigError(f"--{option} writes a {suffix} file, got '{path}': give it that ending.")
    if path.is_dir():
        raise ConfigError(f"--{option} names a file, and '{path}' is a folder.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ConfigError(f"Cannot write '{path}' (--{option}): {error.strerror or error}.") from error


def tensor_product_factories(names: str = "all") -> dict[str, Callable[..., Any]]:
    """Return the backends in ``configs/model/tensor_product`` by name.

    Args:
        names: names separated by commas, or ``all``.

    Raises:
        ConfigError: a name that does not exist.
    """
    return component_factories("tensor_product", names)


def component_factories(group: str, names: str = "all") -> dict[str, Callable[..., Any]]:
    """Return the factories of a group of components of models, built from their configurations.

    Args:
        group: below ``configs/model``.
        names: ``all``, or names with commas; a name may change options: ``NAME:option=value:option=value``.
    """
    import yaml
    from omegaconf import OmegaConf

    from mlip.cli.config_dir import config_dir
    from mlip.core.build import build
    from mlip.core.errors import ConfigError, did_you_mean

    files = {path.stem: path for path in sorted((config_dir() / "model" / group).glob("*.yaml"))}
    wanted = list(files) if names.strip() == "all" else [name.strip() for name in names.split(",") if name.strip()]
    if not wanted:
        raise ConfigError(f"Name at least one backend, or all; known: {', '.join(files)}.")
    factories = {}
    for text in wanted:
        name, *changes = text.split(":")
        if name not in files:
            raise ConfigError(f"There is no backend '{name}'.{did_you_mean(name, files)} Known: {', '.join(files)}.")
        config = OmegaConf.create(yaml.safe_load(files[name].read_text(encoding="utf-8")))
        options = OmegaConf.to_container(config, resolve=True) | dict(_option(change, text) for change in changes)
        factories[text] = build(options)
    return factories


def _option(change: str, text: str) -> tuple[str, Any]:
    import yaml

    from mlip.core.errors import ConfigError

    option, equals, value = change.partition("=")
    if not equals or not option or option.startswith("_"):
        raise ConfigError(f"Options of a backend are written NAME:option=value, got '{text}'.")
    return option, yaml.safe_load(value)


def show(rows: Sequence[Expressiveness]) -> None:
    """Print one table for each setting, and below it why a backend is not in it."""
    from rich.console import Console
    from rich.text import Text

    console = Console()
    for setting in dict.fromkeys(row.setting for row in rows):
        of_setting = [row for row in rows if row.setting == setting]
        console.print(_table(of_setting))
        notes: dict[str, list[str]] = {}
        for row in of_setting:
            if row.reason:
                notes.setdefault(row.reason, []).append(row.backend)
            elif row.as_convolution:
                text = "as a convolution: the second input is the spherical harmonics of a direction."
                notes.setdefault(text, []).append(row.backend)
        for text, backends in notes.items():
            console.print(Text(f"{', '.join(backends)}: {text}", style="dim"), soft_wrap=True)
        console.print()


def _table(rows: Sequence[Expressiveness]) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    first = rows[0]
    bound = "lmax" if first.truncated else "2 lmax"
    title = Text(f"{first.setting.upper()}, lmax = {first.lmax}, outputs up to {bound}", style="bold")
    # Columns next to each other: seven fit a terminal of 80.
    table = Table(title=title, title_justify="left", box=box.SIMPLE, padding=0)
    table.add_column("backend", overflow="fold", min_width=21)
    table.add_column("operator", overflow="ellipsis", no_wrap=True, max_width=14)
    for name in ("paths", "dim.", "weights", "FLOPs", "bytes"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        if row.reach is None:
            table.add_row(row.backend, *["–"] * 6, style="dim")
            continue
        expected = "" if row.expected is None else f" ({row.expected})"
        agrees = row.expected in (None, row.reach.dimension)
        table.add_row(
            row.backend,
            row.operator,
            f"{row.reach.natural}+{row.reach.antisymmetric}",
            Text(f"{row.reach.dimension}{expected}", style="" if agrees else "bold red"),
            str(row.reach.weights),
            *["as chosen" if row.chosen else _number(value) for value in (row.flops, row.bytes)],
        )
    return table


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value < 10_000 else f"{value / 1000:,.0f}k"


COLUMNS = (
    *("backend", "operator", "setting", "lmax", "truncated", "mode", "as_convolution", "even_paths", "odd_paths"),
    *("dimension", "expected", "weights", "flops", "bytes", "residual", "reason"),
)


def _write_csv(path: Path, rows: Sequence[Expressiveness]) -> None:
    import csv
    import io

    from mlip.core.files import write_text_atomically

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        shared = (row.backend, row.operator, row.setting, row.lmax, row.truncated, row.mode, row.as_convolution)
        reach = row.reach
        measured = [""] * 3 if reach is None else [reach.natural, reach.antisymmetric, reach.dimension]
        rest = ["", ""] if reach is None else [reach.weights, reach.residual]
        writer.writerow([*shared, *measured, row.expected, rest[0], row.flops, row.bytes, rest[1], row.reason])
    write_text_atomically(path, text.getvalue())
