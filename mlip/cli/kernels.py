"""``mlip kernels``: generated kernels, built before they are needed."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console


class KernelChoice(StrEnum):
    """Whether generated kernels are used."""

    auto = "auto"
    on = "on"
    off = "off"


CHOICE_HELP = (
    "Generated kernels: auto (where there are any and it pays), on (an error where there are none) or off (plain "
    "torch).  [default: as the model was trained]"
)
"""Of ``--kernels`` where a trained model is used."""

kernels = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@kernels.callback()
def root() -> None:
    """Build the kernels of a model, or list what there is.

    Convolutions and many-body products run as C++ that is generated for the irreps of a model, compiled once and kept
    in the cache (MLIP_CACHE). That happens by itself at the first large structure; here it happens now, e.g. before
    many processes start on a cluster, or where the compute nodes have no compiler.
    """


@kernels.command()
def build(
    models: Annotated[list[Path], typer.Argument(help="Model files, or names of imported models.")],
    dtype: Annotated[str | None, typer.Option(help="float32 or float64.  [default: the models' own]")] = None,
) -> None:
    """Build what models need in inference and training.

    Example: mlip kernels build sevennet-0 runs/my/model.safetensors
    """
    from mlip.models.names import existing_model

    # Before torch is imported, which takes seconds.
    for name in models:
        existing_model(name)

    from rich.console import Console

    from mlip.models.model_file import load_model
    from mlip.ops.kernels.choice import kernel_sources

    console = Console()
    for name in models:
        model = load_model(name, dtype=dtype)
        if model.kernels == "off":
            # What the model was trained with says nothing of what it will be used with.
            model.use_kernels("auto")
        sources = kernel_sources(model, model.dtype)
        text = _build(f"building {name}", sources, console) if sources else "none of its products has a kernel"
        console.print(f"{name}, {str(model.dtype).removeprefix('torch.')}: {text}", highlight=False, soft_wrap=True)


@kernels.command()
def info() -> None:
    """Say what there is: the compiler, the cache, prebuilt kernels.

    Example: mlip kernels info
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from mlip.ops.kernels.library import PREBUILT, kernels_folder
    from mlip.ops.kernels.processor import portable_levels

    table = Table(show_header=False)
    levels = ", ".join(portable_levels())
    rows = {
        "compiler": describe_compiler(),
        "cache": f"{_count(kernels_folder())} in {kernels_folder()}",
        "prebuilt": f"{_count(PREBUILT)}; this processor runs those for {levels or 'none of the levels'}",
    }
    for name, value in rows.items():
        table.add_row(Text(name, style="cyan"), Text(value))
    Console().print(table)


def describe_compiler() -> str:
    """Return the C++ compiler of this machine in words, and whether its kernels use several threads."""
    from mlip.ops.kernels.compiler import NoCompiler, compiler, has_threads

    try:
        path, version = compiler()
        threads = "with OpenMP" if has_threads() else "without OpenMP: kernels run on one thread"
    except NoCompiler as error:
        return f"{error}: prebuilt kernels where there are any, else plain torch"
    return f"{path} ({version}), {threads}"


def _build(title: str, sources: Sequence[str], console: Console) -> str:
    """Build libraries that are not there; return what was done, in words."""
    import time

    from mlip.cli.progress import ProgressBar
    from mlip.core.errors import MlipError
    from mlip.ops.kernels.compiler import NoCompiler
    from mlip.ops.kernels.library import build_library, find_library

    start = time.perf_counter()
    missing = [source for source in sources if find_library(source) is None]
    with ProgressBar(title, console) as progress:
        for number, source in enumerate(missing):
            try:
                build_library(source)
            except NoCompiler as error:
                raise MlipError(f"No kernel can be built: {error}. Install g++ or clang, or set CXX.") from error
            progress((number + 1) / len(missing), number + 1)
    seconds, there = time.perf_counter() - start, len(sources) - len(missing)
    total = f"{len(sources)} kernel{'s' * (len(sources) > 1)}"
    return f"{total}: {len(missing)} built in {seconds:.1f} s, {there} in the cache already"


def _count(folder: Path) -> str:
    sizes = [file.stat().st_size for file in folder.glob("*.so")]
    return f"{len(sizes)} kernel{'s' * (len(sizes) != 1)}, {sum(sizes) / 1e6:.2f} MB"
