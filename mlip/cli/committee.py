"""``mlip committee``: several models as one file."""

import hashlib
from pathlib import Path
from typing import Annotated

import typer


def committee(
    models: Annotated[
        list[Path], typer.Argument(help="Model files, or names of imported models; at least two.", show_default=False)
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The model file to write.")] = Path(
        "committee.safetensors"
    ),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
) -> None:
    """Put several models into one file: a committee.

    Their mean is the prediction, their spread its uncertainty.

    Example: mlip committee runs/seed*/model.safetensors --output committee.safetensors

    The file is a model like any other, for evaluate, relax, md, doctor and MLIPCalculator.
    """
    from mlip.core.errors import MlipError
    from mlip.models.names import existing_model

    if output.exists() and not overwrite:
        raise MlipError(f"'{output}' is there already: choose another file with --output, or replace it: --overwrite.")
    # Before torch is imported, which takes seconds.
    known: dict[str, Path] = {}
    for path in models:
        with existing_model(path).open("rb") as file:
            twin = known.setdefault(hashlib.file_digest(file, "sha256").hexdigest(), path)
        if twin is not path:
            raise MlipError(f"'{twin}' and '{path}' are the same model, which would agree with itself: name it once.")

    from mlip.data.elements import list_elements
    from mlip.models.committee import committee_of
    from mlip.models.model_file import load_model, save_model

    together = committee_of([load_model(path) for path in models])
    save_model(output, together)
    typer.echo(
        f"Wrote {output}: {len(together.members)} members, {together.num_parameters:,} parameters, for "
        f"{list_elements(together.elements)}."
    )
