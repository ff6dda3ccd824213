"""``mlip kernels``: generated kernels, built before they are needed."""

from pathlib import Path
from typing import Annotated

import typer

kernels = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@kernels.callback()
def root() -> None:
    """Build the kernels of a model.

    Convolutions run as C++ that is generated for the irreps of a model, compiled once and kept in the cache
    (MLIP_CACHE). That happens by itself at the first large structure; here it happens now, e.g. before many processes
    start on a cluster, or where the compute nodes have no compiler.
    """


@kernels.command()
def build(
    models: Annotated[list[Path], typer.Argument(help="Model files, or names of imported models.")],
    dtype: Annotated[str | None, typer.Option(help="float32 or float64.  [default: the models' own]")] = None,
) -> None:
    """Build what convolutions of models need.

    Example: mlip kernels build sevennet-0 runs/my/model.safetensors
    """
    import time

    from rich.console import Console

    from mlip.cli.progress import ProgressBar
    from mlip.core.errors import MlipError
    from mlip.models.model_file import load_model
    from mlip.models.names import existing_model
    from mlip.ops.kernels.compiler import NoCompiler
    from mlip.ops.kernels.convolution import prepare
    from mlip.ops.tensor_product.path_product import PathProduct

    console = Console()
    for name in models:
        existing_model(name)
    for name in models:
        model = load_model(name, dtype=dtype)
        forms = {
            product.form.key: product.form
            for product in model.modules()
            if isinstance(product, PathProduct) and product.has_kernels and product.form is not None
        }
        if not forms:
            console.print(f"{name}: none of its products has a kernel.", highlight=False, soft_wrap=True)
            continue
        start = time.perf_counter()
        with ProgressBar(f"building {name}", console) as progress:
            for number, form in enumerate(forms.values()):
                try:
                    prepare(form, model.dtype)
                except NoCompiler as error:
                    raise MlipError(f"No kernel can be built: {error}. Install g++ or clang, or set CXX.") from error
                progress(number + 1, len(forms))
        seconds = time.perf_counter() - start
        console.print(f"{name}: {len(forms)} kernels in {seconds:.1f} s", highlight=False, soft_wrap=True)
