"""``mlip data download``: fetch published data sets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from mlip.data.download import Fetched
    from mlip.data.download_sources import RemoteFile, Source


def download(
    name: Annotated[str | None, typer.Argument(help="Data set; without it they are listed.")] = None,
    files: Annotated[list[str] | None, typer.Argument(help="Files of the data set.  [default: the usual ones]")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder for the files.  [default: NAME]")] = None,
) -> None:
    """Fetch a published data set from its official place.

    \b
    mlip data download
    mlip data download 3bpa --output data/3bpa
    mlip data download oc20 s2ef_val_id.tar

    Licence and citation are shown first. An interrupted download goes on where it stopped when the command is run
    again; sizes and published checksums are compared. Where a data set needs an account or a browser, or there is no
    network, the steps by hand are shown.
    """
    from rich.console import Console

    from mlip.data.download import UnreachableError, fetch

    console = Console()
    sources = load_sources()
    if name is None:
        _list(sources, console)
        return
    source = _find(sources, name)
    _describe(source, console)
    folder = output or Path(source.name)
    if not source.files:
        _say(console, f"\n{source.name} cannot be fetched by a command. By hand:\n{source.manual}")
        raise typer.Exit(1)
    for file in source.select(list(files or [])):
        try:
            with _bar(file.name, console) as progress:
                fetched = fetch(file, folder, progress)
        except UnreachableError:
            _say(console, f"\nBy hand:\n{_by_hand(source, file, folder)}\n")
            raise
        _report(file, fetched, console)
    if source.afterwards:
        _say(console, f"\n{source.afterwards}")


def load_sources() -> dict[str, Source]:
    """Return the table of downloads, ``configs/download``, by name.

    Raises:
        ConfigError: an entry is wrong.
    """
    from omegaconf import OmegaConf

    from mlip.cli.config_dir import config_dir
    from mlip.data.download_sources import parse_source

    paths = sorted((config_dir() / "download").glob("*.yaml"))
    return {path.stem: parse_source(path.stem, OmegaConf.to_container(OmegaConf.load(path))) for path in paths}


def _find(sources: dict[str, Source], name: str) -> Source:
    from mlip.core.errors import ConfigError, did_you_mean

    if name not in sources:
        raise ConfigError(f"There is no data set '{name}'.{did_you_mean(name, sources)} There: {', '.join(sources)}.")
    return sources[name]


def _list(sources: dict[str, Source], console: Console) -> None:
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("name", "what", "licence", "files"):
        table.add_column(title, overflow="fold")
    for source in sources.values():
        fetched = [f"{file.name} ({file.about})" for file in source.files if file.default]
        table.add_row(source.name, source.title, source.licence, ", ".join(fetched) or "by hand")
    console.print(table)
    _say(console, "\nmlip data download NAME shows a data set's licence and fetches its files.")


def _describe(source: Source, console: Console) -> None:
    _say(console, f"{source.name}: {source.title}")
    for title, text in (("licence", source.licence), ("citation", source.citation), ("page", source.page)):
        _say(console, f"  {title}: {text}")
    for file in source.files:
        note = f" - {file.note}" if file.note else ""
        _say(console, f"  {'*' if file.default else ' '} {file.name} ({file.about}){note}")
    if source.files:
        _say(console, "  (* fetched unless files are named)")


def _by_hand(source: Source, file: RemoteFile, folder: Path) -> str:
    checksum = next((f"{kind} {value}" for kind, value in (("sha256", file.sha256), ("md5", file.md5)) if value), "")
    check = f", compare its checksum ({checksum})" if checksum else ""
    usual = f"On a machine with a network, fetch {file.url}{check}, and copy it to {folder / file.name}."
    return f"{usual}\n{source.manual}".strip() + f"\nThe data set's page: {source.page}"


def _report(file: RemoteFile, fetched: Fetched, console: Console) -> None:
    unknown = f"no checksum is published; its sha256 is {fetched.sha256}"
    check = "checksum as published" if fetched.verified else unknown
    _say(console, f"{fetched.path}: {'there already, ' if fetched.was_there else ''}{check}")


def _say(console: Console, text: str) -> None:
    console.print(text, soft_wrap=True, highlight=False, markup=False)


class _bar:
    """A progress bar of bytes with rate and remaining time; gives the function that moves it."""

    def __init__(self, name: str, console: Console) -> None:
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
        from rich.progress import TransferSpeedColumn as Speed

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), Speed(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=console, transient=True)
        self._task = self._progress.add_task(name, total=None)

    def __enter__(self) -> _bar:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def __call__(self, done: int, total: int | None) -> None:
        self._progress.update(self._task, completed=done, total=total)
