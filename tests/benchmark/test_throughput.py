"""Throughput from steps of a known length."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from torch import nn

from mlip.benchmark.profile_steps import Step
from mlip.benchmark.throughput import (
    Throughput,
    default_sizes,
    measure_throughput,
    parse_sizes,
    plot_throughput,
    write_throughput,
)
from mlip.core.errors import ConfigError

ROW = Throughput(2, 16, 400, 3, 20.0, 19.0, 22.0, 19.5, 800.0, 4.32, 512.0)


def test_numbers_of_a_step_of_known_length() -> None:
    told: list[float] = []
    step = Step("nap", lambda: time.sleep(0.01), nn.Module(), num_atoms=50, num_edges=7, passes=1)
    row = measure_throughput(step, 3, seconds=0.05, timestep=2.0, report=told.append)
    assert (row.size, row.atoms, row.edges) == (3, 50, 7)
    assert row.steps >= 3
    assert 10 <= row.ms_low <= row.ms <= row.ms_high
    assert row.atom_steps_per_second == pytest.approx(50 * 1000 / row.ms)
    # A day has 86.4 million ms, a nanosecond half a million steps of 2 fs.
    assert row.ns_per_day == pytest.approx(86.4e6 / row.ms / 0.5e6)
    assert told[-1] == 1.0
    assert row.cpu_ms < row.ms
    assert row.peak_mb is None or 50 < row.peak_mb < 1e6
    assert measure_throughput(step, 1, seconds=0.0).ns_per_day is None


@pytest.mark.parametrize(
    ("text", "sizes"), [("3", [3]), ("1-4", [1, 2, 3, 4]), ("4,1,2", [1, 2, 4]), ("1-2, 5", [1, 2, 5])]
)
def test_sizes(text: str, sizes: list[int]) -> None:
    assert parse_sizes("--sizes", text) == sizes


@pytest.mark.parametrize("text", ["", ",", "0", "4-2", "a", "1.5", "-3", "1-", "99999"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(ConfigError, match="--sizes takes sizes such as"):
        parse_sizes("--sizes", text)


def test_default_sizes() -> None:
    assert default_sizes(8, 3) == [1, 2, 3, 4, 5]
    assert default_sizes(2000, 3) == [1]
    assert default_sizes(9, 0) == [1]
    assert default_sizes(500, 2) == [1]
    assert default_sizes(100, 1, 300) == [1, 2, 3]


def test_table(tmp_path: Path) -> None:
    write_throughput(tmp_path / "table.csv", [ROW, replace(ROW, ns_per_day=None)])
    lines = (tmp_path / "table.csv").read_text().splitlines()
    assert lines[0] == "size,atoms,edges,steps,ms,ms_low,ms_high,cpu_ms,atom_steps_per_second,ns_per_day,peak_mb"
    assert lines[1] == "2,16,400,3,20,19,22,19.5,800,4.32,512"
    assert lines[2] == "2,16,400,3,20,19,22,19.5,800,,512"


@pytest.mark.slow
@pytest.mark.parametrize("peak", [None, 600.0])
def test_plot(tmp_path: Path, peak: float | None) -> None:
    rows = [replace(ROW, peak_mb=peak), replace(ROW, atoms=128, peak_mb=peak)]
    plot_throughput(tmp_path / "plot.png", rows, "title")
    assert (tmp_path / "plot.png").stat().st_size > 5000
