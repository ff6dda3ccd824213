"""Fixtures of the tests of the command line."""

from __future__ import annotations

from importlib import import_module

import pytest

DRAWING = (
    *("evaluation.plots", "evaluation.learning_curve", "evaluation.radial_plot"),
    *("benchmark.plots", "benchmark.throughput"),
)
"""Modules that write pictures."""


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave empty files for pictures: to draw them takes longer than a short run, and they have tests of their own."""
    # All are imported first, or they would keep the function that is put in its place.
    for module in [import_module(f"mlip.{name}") for name in DRAWING]:
        monkeypatch.setattr(module, "save_png", lambda figure, path: open(path, "wb").close())
