"""A progress bar for work of unknown or known length, on terminals only."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

INTERVAL = 0.1
"""Seconds between two updates: reports may come for every structure."""


class ProgressBar:
    """A bar with share, structures and time left on a terminal, nothing elsewhere; it is called to report.

    >>> with ProgressBar("reading", console) as report:  # doctest: +SKIP
    ...     report(0.5, 1000)
    """

    def __init__(self, title: str, console: Console) -> None:
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn(title),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[structures]}"),
            TimeRemainingColumn(),
        )
        self._progress = Progress(
            *columns, console=console, transient=True, disable=not console.is_terminal or console.quiet
        )
        # Without a total it moves to and fro.
        self._task = self._progress.add_task(title, total=None, structures="")
        self._last = 0.0

    def __enter__(self) -> ProgressBar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, share: float, number: int) -> None:
        """Show a share from 0 to 1, and a number of structures."""
        now = time.monotonic()
        if now - self._last >= INTERVAL:
            self._last = now
            self._progress.update(self._task, total=1.0, completed=share, structures=f"{number:,} structures")

    def count(self, done: int, total: int) -> None:
        """Show how many of how many structures are done."""
        self(done / max(total, 1), done)
