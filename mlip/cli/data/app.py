"""``mlip data``: the group of its commands, one file each."""

import typer

from mlip.cli.data.check import check
from mlip.cli.data.convert import convert
from mlip.cli.data.download import download
from mlip.cli.data.info import info
from mlip.cli.data.label import label
from mlip.cli.data.prepare import prepare
from mlip.cli.data.split import split

data = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Look at data, check, prepare, split, convert, label."
)


@data.callback()
def root() -> None:
    """Look at data, check, prepare, split, convert, fetch and compute them."""


for command in (info, check, prepare, split, convert, download, label):
    data.command()(command)
