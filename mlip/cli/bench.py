"""``mlip bench``: how fast components are on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlip.cli.kernels import KernelChoice
from mlip.cli.tensor_products import component_factories
from mlip.cli.throughput import bench_md, bench_train

if TYPE_CHECKING:
    from rich.console import Console

    from mlip.benchmark.plan import Plan
    from mlip.benchmark.results import Measurement

bench = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Measure speed on this machine.")


QUIET_SECONDS = 5.0
"""Between two lines of progress where there is no terminal."""


@bench.callback()
def root() -> None:
    """Measure components, molecular dynamics and training on this machine."""


bench.command("md")(bench_md)
bench.command("train")(bench_train)


@bench.command("tensor-products")
def tensor_products(
    lmax: Annotated[str, typer.Option(help="Degrees: 3, 1-4 or 1,2,3.")] = "1-4",
    setting: Annotated[str | None, typer.Option(help="mimo, simo, siso, or several with commas. [mimo]")] = None,
    operator: Annotated[str, typer.Option(help="interaction, convolution or many-body.")] = "interaction",
    mode: Annotated[str | None, typer.Option(help="Channels of an interaction: uuu, uvu, uvuv or uvw. [uuu]")] = None,
    weights: Annotated[
        str | None, typer.Option(help="Weights of an interaction: none or free. [none; free in mode uvw]")
    ] = None,
    correlation: Annotated[
        int | None, typer.Option(help="Highest power of a many-body product. [3]", min=2, max=4)
    ] = None,
    channels: Annotated[int | None, typer.Option(help="Multiplicity of every irrep. [64]", min=1)] = None,
    rows: Annotated[int | None, typer.Option(help="Rows of a call. [1000]", min=1)] = None,
    dtype: Annotated[str, typer.Option(help="float32 or float64.")] = "float32",
    backends: Annotated[
        str, typer.Option(help="Backends, separated by commas, or all; NAME:option=value changes an option.")
    ] = "all",
    passes: Annotated[
        str | None, typer.Option(help="forward, backward, double-backward, or several. [all three]")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Outputs up to 2 lmax, not lmax.")] = False,
    antisymmetric: Annotated[bool, typer.Option("--antisymmetric", help="Outputs of both parities.")] = False,
    threads: Annotated[int, typer.Option(help="Threads of PyTorch.", min=1)] = 1,
    device: Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1.")] = "cpu",
    kernels: Annotated[KernelChoice, typer.Option(help="Generated kernels, or plain torch.")] = KernelChoice.auto,
    rounds: Annotated[int | None, typer.Option(help="Turns of every candidate. [7]", min=1)] = None,
    paper: Annotated[
        bool,
        typer.Option(
            "--paper",
            help="Protocol of The Price of Freedom: 10 000 rows, 1 channel, all outputs, all settings, forward, "
            "10 calls before and 100 timed one by one.",
        ),
    ] = False,
    max_memory: Annotated[float, typer.Option(help="GB; calls that need more are left out.", min=0.001)] = 4.0,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("bench_tensor_products"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Throw away the results that are there.")] = False,
) -> None:
    """Time every tensor-product backend next to e3nn's.

    All form the same product. Candidates take turns, so that other work on the machine hits all of them alike.
    Writes results.csv, run.json and plots to a folder; a run that was stopped goes on with the next degree. Where
    the backends include one that chooses by measurement, its cache is filled for the irreps of the run.

    Example: mlip bench tensor-products --lmax 1-4 --out bench
    """
    from mlip.benchmark.options import parse_degrees, plan_of, several_of
    from mlip.ops.tensor_product.settings import SETTINGS

    everything = paper and operator != "many-body"
    settings = several_of("setting", setting or ("all" if everything else "mimo"), SETTINGS[::-1])
    plan = plan_of(
        operator=operator,
        mode=mode,
        weights=weights,
        correlation=correlation,
        channels=channels,
        rows=rows,
        rounds=rounds,
        passes=passes,
        paper=paper,
        full=full,
        antisymmetric=antisymmetric,
        dtype=dtype,
        device=device,
        threads=threads,
        kernels=kernels.value,
        max_memory=max_memory,
    )
    degrees = parse_degrees(lmax)
    group = "many_body" if plan.operator == "many-body" else "tensor_product"
    factories = component_factories(group, backends)
    _run(plan, settings, degrees, factories, out, overwrite)


def _run(
    plan: Plan,
    settings: Sequence[str],
    degrees: Sequence[int],
    factories: dict[str, Callable[..., Any]],
    out: Path,
    overwrite: bool,
) -> None:
    """Measure group by group, print each, and draw the plots at the end."""
    import torch
    from rich.console import Console

    from mlip.benchmark.results import ResultFolder
    from mlip.core.errors import ConfigError

    errors, console = Console(stderr=True), Console()
    cases = _cases(plan, settings, degrees, errors)
    folder = ResultFolder(out, plan, list(factories), overwrite)
    threads = torch.get_num_threads()
    torch.set_num_threads(plan.threads)
    why = ""
    try:
        for setting, degree in list(cases):
            title = f"{setting.upper()} L={degree}"
            # Its inputs are freed with it.
            case = cases.pop((setting, degree))
            if folder.has(setting, degree):
                errors.print(f"{title}: taken from {out}", highlight=False)
            else:
                with errors.status(title) as status:
                    report = _reporter(errors, status.update, title)
                    measured = _measure(case, plan, setting, degree, factories, report)
                _show(console, title, measured)
                mine = [row for row in measured if row.backend in factories]
                if any(row.wall_ms is not None for row in mine):
                    folder.add(measured)
                else:
                    why = f" {mine[0].backend}: {mine[0].note}"
            if setting not in (left for left, _ in cases):
                _draw(folder.rows, setting, plan, out)
        if not folder.rows:
            raise ConfigError(f"No backend could be measured.{why}")
    finally:
        torch.set_num_threads(threads)
    console.print(f"Results are in {out}", soft_wrap=True, highlight=False)


def _cases(plan: Plan, settings: Sequence[str], degrees: Sequence[int], errors: Console) -> dict[tuple[str, int], Any]:
    """Return what can be measured by setting and degree, and say what cannot; refuse if that is all."""
    from mlip.benchmark.many_body import ManyBodyCase
    from mlip.benchmark.products import ProductCase
    from mlip.core.errors import ConfigError

    kind = ManyBodyCase if plan.operator == "many-body" else ProductCase
    cases: dict[tuple[str, int], Any] = {}
    refusals = []
    for setting in settings:
        for degree in degrees:
            try:
                cases[setting, degree] = kind(plan, setting, degree)
            except ConfigError as error:
                refusals.append(f"{setting.upper()} L={degree}: {error}")
    if not cases:
        raise ConfigError(f"Nothing can be measured. {refusals[0]}")
    for text in refusals:
        errors.print(text, highlight=False)
    return cases


def _reporter(console: Any, update: Callable[[str], None], title: str) -> Callable[[str], None]:
    """Say what runs: a line that changes on a terminal, elsewhere a line now and then."""
    if console.is_terminal:
        return lambda text: update(f"{title}: {text}")
    last = -QUIET_SECONDS

    def report(text: str) -> None:
        nonlocal last
        if time.monotonic() - last >= QUIET_SECONDS:
            last = time.monotonic()
            console.print(f"{title}: {text}", highlight=False, soft_wrap=True)

    return report


def _measure(
    case: Any,
    plan: Plan,
    setting: str,
    degree: int,
    factories: dict[str, Callable[..., Any]],
    report: Callable[[str], None],
) -> list[Measurement]:
    from mlip.benchmark.products import reachable_dimensions
    from mlip.benchmark.run import Group

    dimensions = {}
    if plan.operator != "many-body":
        report("measuring expressivity")
        dimensions = reachable_dimensions(plan, setting, degree, factories)
    return Group(case, plan, factories, dimensions, report).measure(setting, degree)


def _show(console: Any, title: str, rows: Sequence[Measurement]) -> None:
    """Print a table for each pass, and the notes below."""
    for step in dict.fromkeys(row.step for row in rows):
        console.print(_table(f"{title}, {step}", [row for row in rows if row.step == step]))
    _notes(console, rows)


def _table(title: str, rows: Sequence[Measurement]) -> Any:
    """Return times and ratios of one pass, a line for each candidate."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    # Columns next to each other, and numbers of seven characters at most: it fits a terminal of 80, and where it
    # does not, names of backends are folded and numbers stay whole.
    table = Table(title=Text(title, style="bold"), title_justify="left", box=box.SIMPLE, padding=0)
    table.add_column("backend", overflow="fold")
    for name in ("ms", "CPU ms", "faster than e3nn", "GFLOP/s", "MB", "error"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.backend,
            _digits(row.wall_ms),
            _digits(row.cpu_ms),
            "–" if row.speedup is None else f"{_two(row.speedup)} ({_two(row.speedup_low)}–{_two(row.speedup_high)})",
            *(_digits(value) for value in (row.gflops_per_second, row.peak_mb)),
            "–" if row.error is None else f"{row.error:.0e}",
        )
    return table


def _notes(console: Any, rows: Sequence[Measurement]) -> None:
    from rich.text import Text

    for backend, note in dict.fromkeys((row.backend, row.note) for row in rows if row.note):
        console.print(Text(f"{backend}: {note}", style="dim"), soft_wrap=True)
    console.print()


def _draw(rows: Sequence[Measurement], setting: str, plan: Plan, out: Path) -> None:
    from mlip.benchmark.plots import plot_times, plot_times_per_dimension, plot_times_per_path
    from mlip.benchmark.results import PLOTS

    of_setting = [row for row in rows if row.setting == setting]
    title = (
        f"{plan.operator}, {setting.upper()}, {plan.rows} rows, {plan.channels} channels, {plan.dtype}, {plan.device}"
    )
    for name, plot in zip(PLOTS, (plot_times, plot_times_per_path, plot_times_per_dimension)):
        plot(out / f"{setting}_{name}", of_setting, title)


def _digits(value: float | None) -> str:
    if value is None:
        return "–"
    if value >= 1e5 or 0 < value < 0.001:
        return f"{value:.0e}"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _two(value: float) -> str:
    """Return two significant digits: ratios of timings have no more."""
    return f"{value:.2g}" if value < 100 else f"{value:.0f}"
