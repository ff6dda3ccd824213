"""``mlip bench``: how fast components are on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlip.cli.tensor_products import component_factories, tensor_product_factories

if TYPE_CHECKING:
    from mlip.benchmark.plan import Plan
    from mlip.benchmark.results import Measurement

bench = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Measure components on this machine.")


QUIET_SECONDS = 5.0
"""Between two lines of progress where there is no terminal."""


@bench.callback()
def root() -> None:
    """Measure components on this machine."""


@bench.command("tensor-products")
def tensor_products(
    lmax: Annotated[str, typer.Option(help="Degrees: 3, 1-4 or 1,2,3.")] = "1-4",
    setting: Annotated[str | None, typer.Option(help="mimo, simo, siso, or several with commas. [mimo]")] = None,
    operator: Annotated[str, typer.Option(help="interaction, convolution or many-body.")] = "interaction",
    mode: Annotated[str, typer.Option(help="Channels of an interaction: uuu, uvu, uvuv or uvw.")] = "uuu",
    weights: Annotated[str, typer.Option(help="Weights of an interaction: none or free.")] = "none",
    correlation: Annotated[int, typer.Option(help="Highest power of a many-body product.", min=2, max=4)] = 3,
    channels: Annotated[int | None, typer.Option(help="Multiplicity of every irrep. [64]", min=1)] = None,
    rows: Annotated[int | None, typer.Option(help="Rows of a call. [1000]", min=1)] = None,
    dtype: Annotated[str, typer.Option(help="float32 or float64.")] = "float32",
    backends: Annotated[str, typer.Option(help="Backends, separated by commas, or all.")] = "all",
    passes: Annotated[
        str | None, typer.Option(help="forward, backward, double-backward, or several. [all three]")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Outputs up to 2 lmax, not lmax.")] = False,
    antisymmetric: Annotated[bool, typer.Option("--antisymmetric", help="Outputs of both parities.")] = False,
    threads: Annotated[int, typer.Option(help="Threads of PyTorch.", min=1)] = 1,
    device: Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1.")] = "cpu",
    rounds: Annotated[int, typer.Option(help="Turns of every candidate.", min=1)] = 7,
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
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Throw away results that are there.")] = False,
) -> None:
    """Time every tensor-product backend next to the same product in e3nn.

    Candidates take turns, so that other work on the machine hits all of them alike. Writes results.csv, run.json
    and plots to a folder; a run that was stopped goes on with the next degree. Where the backends include one that
    chooses by measurement, its cache is filled for the irreps of the run.

    Example: mlip bench tensor-products --lmax 1-4 --out bench
    """
    from mlip.benchmark.plan import Plan

    settings = _several("setting", setting or ("mimo,simo,siso" if paper else "mimo"), ("mimo", "simo", "siso"))
    steps = _several("pass", passes or ("forward" if paper else "all"), ("forward", "backward", "double-backward"))
    protocol: dict[str, Any] = {"rounds": rounds}
    if paper:
        protocol = {"rounds": 100, "round_seconds": 0.0, "warmup": 10}
    plan = Plan(
        operator=_one("operator", operator, ("interaction", "convolution", "many-body")),
        mode=_one("mode", mode, ("uuu", "uvu", "uvuv", "uvw")),
        weights=_one("weights", weights, ("none", "free")),
        channels=channels or (1 if paper else 64),
        rows=rows or (10_000 if paper else 1000),
        correlation=correlation,
        truncated=not (full or paper),
        antisymmetric=antisymmetric,
        dtype=_one("dtype", dtype, ("float32", "float64")),
        device=_device(device),
        threads=threads,
        passes=tuple(steps),
        max_memory=max_memory * 1e9,
        **protocol,
    )
    degrees = parse_degrees(lmax)
    group = "many_body" if plan.operator == "many-body" else "tensor_product"
    factories = (
        tensor_product_factories(backends) if group == "tensor_product" else component_factories(group, backends)
    )
    _run(plan, settings, degrees, factories, out, overwrite)


def parse_degrees(text: str) -> list[int]:
    """Read ``3``, ``1-4`` or ``1,2,5``.

    Raises:
        ConfigError: something else, or degrees out of range.
    """
    from mlip.core.errors import ConfigError
    from mlip.ops.tensor_product.base import LARGEST_DEGREE

    degrees: list[int] = []
    try:
        for part in text.split(","):
            first, dash, last = part.partition("-")
            degrees += range(int(first), int(last if dash else first) + 1)
    except ValueError as error:
        raise ConfigError(f"--lmax takes a degree, a range or a list such as 3, 1-4 or 1,2,5; got '{text}'.") from error
    if not degrees or min(degrees) < 0 or max(degrees) > LARGEST_DEGREE:
        raise ConfigError(f"--lmax takes degrees from 0 to {LARGEST_DEGREE}, in rising ranges; got '{text}'.")
    return sorted(set(degrees))


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

    folder = ResultFolder(out, plan, list(factories), overwrite)
    errors, console = Console(stderr=True), Console()
    threads = torch.get_num_threads()
    torch.set_num_threads(plan.threads)
    try:
        for setting in settings:
            for degree in degrees:
                title = f"{setting.upper()} L={degree}"
                if folder.has(setting, degree):
                    errors.print(f"{title}: taken from {out}", highlight=False)
                    continue
                try:
                    with errors.status(title) as status:
                        report = _reporter(errors, status.update, title)
                        measured = _measure(plan, setting, degree, factories, report)
                except ConfigError as error:
                    errors.print(f"{title}: {error}", highlight=False)
                    continue
                folder.add(measured)
                for step in plan.passes:
                    console.print(_table(f"{title}, {step}", [row for row in measured if row.step == step]))
                _notes(console, measured)
            _draw(folder.rows, setting, plan, out)
    finally:
        torch.set_num_threads(threads)
    console.print(f"Results are in {out}", soft_wrap=True, highlight=False)


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
    plan: Plan, setting: str, degree: int, factories: dict[str, Callable[..., Any]], report: Callable[[str], None]
) -> list[Measurement]:
    from mlip.benchmark.many_body import ManyBodyCase
    from mlip.benchmark.products import ProductCase, reachable_dimensions
    from mlip.benchmark.run import Group

    if plan.operator == "many-body":
        return Group(ManyBodyCase(plan, setting, degree), plan, factories, {}, report).measure(setting, degree)
    case = ProductCase(plan, setting, degree)
    report("measuring expressivity")
    dimensions = reachable_dimensions(plan, setting, degree, factories)
    return Group(case, plan, factories, dimensions, report).measure(setting, degree)


def _table(title: str, rows: Sequence[Measurement]) -> Any:
    """Return times and ratios of one pass, a line for each candidate."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    # A simple box and narrow columns: it fits a terminal of 80.
    table = Table(title=Text(title, style="bold"), title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("backend", overflow="fold", min_width=21)
    for name, width in (
        ("ms", 5),
        ("CPU ms", 6),
        ("faster than e3nn", 15),
        ("GFLOP/s", 5),
        ("MB", 4),
        ("error", 5),
    ):
        table.add_column(name, justify="right", no_wrap=True, min_width=width)
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

    of_setting = [row for row in rows if row.setting == setting]
    title = (
        f"{plan.operator}, {setting.upper()}, {plan.rows} rows, {plan.channels} channels, {plan.dtype}, {plan.device}"
    )
    plot_times(out / f"{setting}_time.png", of_setting, title)
    plot_times_per_path(out / f"{setting}_time_per_path.png", of_setting, title)
    plot_times_per_dimension(out / f"{setting}_time_per_dimension.png", of_setting, title)


def _digits(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _two(value: float) -> str:
    """Return two significant digits: ratios of timings have no more."""
    return f"{value:.2g}" if value < 100 else f"{value:.0f}"


def _one(what: str, value: str, known: Sequence[str]) -> str:
    from mlip.core.errors import ConfigError, did_you_mean

    if value not in known:
        raise ConfigError(f"--{what} is one of {', '.join(known)}, got '{value}'.{did_you_mean(value, known)}")
    return value


def _several(what: str, text: str, known: Sequence[str]) -> list[str]:
    """Read a list with commas, ``all`` for every known name, in the order of ``known``."""
    if text.strip() == "all":
        return list(known)
    chosen = {_one(what, part.strip(), known) for part in text.split(",")}
    return [name for name in known if name in chosen]


def _device(name: str) -> str:
    import torch

    from mlip.core.errors import ConfigError

    try:
        kind = torch.device(name).type
    except RuntimeError as error:
        raise ConfigError(f"--device is cpu or cuda, got '{name}'.") from error
    if kind not in ("cpu", "cuda"):
        raise ConfigError(f"--device is cpu or cuda, got '{name}'.")
    if kind == "cuda" and not torch.cuda.is_available():
        raise ConfigError("There is no CUDA device here, or this PyTorch is built without CUDA: use --device cpu.")
    return name
