"""``mlip import``: potentials of other packages as model files of ours."""

from pathlib import Path
from typing import Annotated

import typer


def import_model(
    name: Annotated[
        str | None, typer.Argument(help="Published name, or with --checkpoint one of your own.  [default: list them]")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="The checkpoint file.  [default: the one in the installed package]")
    ] = None,
    modality: Annotated[
        str | None, typer.Option(help="Level of theory of a multi-fidelity checkpoint of your own.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Write the model file here.  [default: the folder of named models]")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
) -> None:
    """Turn a potential of another package into a model file.

    \b
    mlip import                                        the names, and what is here
    mlip import sevennet-0                             needs: pip install sevenn
    mlip import my-model --checkpoint checkpoint.pth   a SevenNet checkpoint of your own

    Afterwards the name stands for the file: mlip relax quartz.cif --model sevennet-0, MLIPCalculator("sevennet-0").
    Nothing of the package or of the checkpoint is run. Where named models are kept: MLIP_MODELS.
    """
    from mlip.core.errors import MlipError, ModelFileError, did_you_mean
    from mlip.models.foreign.catalogue import PUBLISHED, SEVERAL_LEVELS
    from mlip.models.names import model_path

    if name is None:
        if checkpoint is not None:
            raise ModelFileError("Give the model a name: mlip import NAME --checkpoint FILE.")
        _list()
        return
    if name in SEVERAL_LEVELS:
        raise ModelFileError(
            f"'{name}' holds several levels of theory: import one of {', '.join(SEVERAL_LEVELS[name])}."
        )
    published = name in PUBLISHED
    if not published and checkpoint is None:
        raise ModelFileError(
            f"'{name}' is no published potential.{did_you_mean(name, PUBLISHED)} Known: {', '.join(PUBLISHED)}; or "
            "give a SevenNet checkpoint of your own with --checkpoint."
        )
    if published and modality is not None:
        raise ModelFileError(f"'{name}' names its level of theory already: leave --modality out.")
    path = output or model_path(name)
    if path.exists() and not overwrite:
        raise MlipError(f"'{path}' is there already: replace it with --overwrite.")
    from mlip.models.foreign.published import read_own, read_published
    from mlip.models.model_file import save_model

    model, card = read_published(name, checkpoint) if published else read_own(name, checkpoint, modality)
    save_model(path, model, card)
    typer.echo(f"Wrote {path} ({model.num_parameters:,} parameters, {len(model.elements)} elements).")
    if published:
        typer.echo(f"Licence: {card['licence']}. Please cite {card['citation']}.")
    typer.echo(f"Use it as --model {path if output else name}; mlip info {path if output else name} prints its card.")


def _list() -> None:
    """Print the published names, where they are, and the user's own."""
    from rich.console import Console
    from rich.table import Table

    from mlip.core.errors import ModelFileError
    from mlip.models.foreign.catalogue import PUBLISHED, installed_file
    from mlip.models.names import SUFFIX, model_path, models_folder

    table = Table("name", "here", "training data", "level of theory")
    # Names are there to be typed: the other columns give way on a narrow terminal.
    table.columns[0].no_wrap = True
    for name, entry in PUBLISHED.items():
        status = "imported"
        if not model_path(name).is_file():
            try:
                installed_file(name)
                status = "in the installed package"
            except ModelFileError:
                status = f"pip install {entry.package}"
        table.add_row(name, status, entry.training_data.partition(":")[0], entry.level_of_theory.partition(";")[0])
    for file in sorted(models_folder().glob(f"*{SUFFIX}")):
        if file.stem not in PUBLISHED:
            table.add_row(file.stem, "imported", "", "")
    Console().print(table)
    typer.echo(f"Models that have a name are kept in {models_folder()}.")
