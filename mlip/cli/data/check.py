"""``mlip data check``: what is wrong with data, before a training learns it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from mlip.cli.data.source import Source
    from mlip.data.checks.report import Report

COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}


def check(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH",
            help="File, folder or 'pattern' in a format that is recognised; or data=NAME data.path=… and settings.",
        ),
    ],
    cutoff: Annotated[float, typer.Option(min=0.1, help="Of the graphs that will be trained on, Å.")] = 5.0,
    out: Annotated[
        Path | None, typer.Option(help="Folder for report.json, outliers.csv and check.png, made if needed.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the report to this file as JSON.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Look at about so many structures, spread over the data.")
    ] = None,
    skip: Annotated[list[str] | None, typer.Option(help="Leave out a check by its name; may be repeated.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with status 1 for warnings, too.")] = False,
) -> None:
    """Look for what would make a training silently wrong.

    \b
    mlip data check my.xyz
    mlip data check data=mptrj data.path=MPtrj_2022.9_full.json data.dataset.energy=uncorrected --limit 20000

    Missing and misspelt labels, units and signs (from the data themselves: energies against forces and stress,
    pressure against volume), forces zeroed by constraints, NaN, duplicates, contradictions, leakage between the
    parts of the split, undetermined reference energies, periodic axes, overlapping and lonely atoms, outliers.

    Exit status: 0 no error found, 1 errors (with --strict: or warnings).
    """
    from rich.console import Console

    from mlip.cli.data.source import find_source
    from mlip.core.files import write_text_atomically

    source = find_source(words)
    console = Console()
    report = _run(source, cutoff, limit, skip or [], console)
    if json_file is not None:
        write_text_atomically(json_file, _as_json(report, source))
    if out is not None:
        _write(out, report, source)
    show(report, source, console)
    if out is not None:
        console.print(f"Results are in {out}", soft_wrap=True, highlight=False)
    if report.count("error") or (strict and report.count("warning")):
        raise typer.Exit(1)


def _run(source: Source, cutoff: float, limit: int | None, skip: list[str], console: Console) -> Report:
    from mlip.cli.progress import ProgressBar
    from mlip.core.errors import DataError
    from mlip.data.checks.base import Settings
    from mlip.data.checks.run import run_checks, unreadable
    from mlip.data.parts import load_dataset

    config = source.config
    settings = Settings(cutoff, config.get("split"), limit is None)
    try:
        parts = [load_dataset(config)]
        for name in ("valid_path", "test_path"):
            parts.append(load_dataset(config, config[name]) if config.get(name) else None)
    except DataError as error:
        return unreadable(error, settings)
    settings = Settings(cutoff, config.get("split"), limit is None, parts[0].units, parts[0].official_split)
    with ProgressBar("checking", console) as report:
        return run_checks(parts, settings, skip, limit, report)


def show(report: Report, source: Source, console: Console) -> None:
    """Print the findings, the worst first, what was confirmed, and the verdict."""
    from rich.table import Table
    from rich.text import Text

    from mlip.data.checks.base import structures

    number = structures(report.overview.num_structures)
    if report.findings:
        table = Table(title=Text(f"{_title(source)}: {number}"), title_justify="left", show_lines=True)
        table.add_column("", no_wrap=True)
        table.add_column("check", no_wrap=True)
        table.add_column("found", overflow="fold")
        for finding in report.findings:
            text = Text(finding.message)
            if finding.advice:
                text.append("\n" + finding.advice, style="dim")
            if finding.examples:
                text.append("\n" + "; ".join(finding.examples), style="italic")
            table.add_row(Text(finding.level, style=COLOURS[finding.level]), finding.check, text)
        console.print(table)
    for text in report.passed:
        console.print(Text(f"confirmed: {text}", style="green"), soft_wrap=True)
    _show_outliers(report, console)
    errors, warnings = report.count("error"), report.count("warning")
    verdict = f"{errors} error{'s' * (errors != 1)}, {warnings} warning{'s' * (warnings != 1)}"
    sample = "" if report.settings.complete else " (of a sample of the data)"
    console.print(Text(f"{verdict} in {number}{sample}.", style="red" if errors else "bold"))


def _show_outliers(report: Report, console: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    units = {"energy residual": "eV/atom", "largest force": "eV/Å", "largest stress component": "eV/Å³"}
    outliers = report.outliers(3)
    if not outliers:
        return
    table = Table(title="Largest values", title_justify="left")
    for name in ("", "value", "median", "unit", "structure"):
        table.add_column(name, justify="right" if name in ("value", "median") else "left", overflow="fold")
    for name, entries in outliers.items():
        for k, entry in enumerate(entries):
            table.add_row(
                "" if k else name,
                f"{entry['value']:.4g}",
                "" if k else f"{entry['typical']:.3g}",
                "" if k else units[name],
                Text(entry["source"]),
            )
    console.print(table)


def _title(source: Source) -> str:
    return str(source.config.get("path") or source.name)


def _as_json(report: Report, source: Source) -> str:
    import json

    from mlip import __version__

    content = {"mlip": __version__, "data": source.config, "format": source.name, **report.as_dict()}
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False, default=str) + "\n"


def _write(folder: Path, report: Report, source: Source) -> None:
    """Write the report, the list of outliers and the picture."""
    import csv
    import io

    from mlip.core.files import write_text_atomically
    from mlip.data.checks.plots import plot_check

    write_text_atomically(folder / "report.json", _as_json(report, source))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["quantity", "value", "median", "structure"])
    for name, entries in report.outliers(100).items():
        writer.writerows([name, entry["value"], entry["typical"], entry["source"]] for entry in entries)
    write_text_atomically(folder / "outliers.csv", text.getvalue())
    plot_check(folder / "check.png", report.table, _title(source))
