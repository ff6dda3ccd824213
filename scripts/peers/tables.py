"""Markdown tables and lines of JSON of what was measured, with ratios round by round."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Sequence
from typing import Any

from peers.driver import BenchmarkError, Measured

Row = dict[str, Any]


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Return median, lowest and highest."""
    return statistics.median(values), min(values), max(values)


def rows_of(found: Sequence[Measured], workload: str, clock: str = "cpu", **more: Any) -> list[Row]:
    """Return a row for each case and step; ratios are those of the first case's time to the case's, round by round.

    Args:
        found: cases that took turns; the first one is what the others are compared with.
        workload: name of what they did.
        clock: ``cpu`` or ``wall``.
        more: to be added to each row.
    """
    rows = []
    for step in found[0].turns:
        reference = [turn[clock] for turn in found[0].turns[step]]
        for one in found:
            seconds = [turn[clock] for turn in one.turns[step]]
            rows.append({
                "workload": workload,
                "step": step,
                "case": one.case.name,
                "ms": [1000 * value for value in spread(seconds)],
                "ratio": list(spread([theirs / own for theirs, own in zip(reference, seconds)])),
                "against": found[0].case.name,
                "clock": clock,
                "threads": one.case.threads,
                "rounds": one.turns[step],
                "MB": one.memory,
                "load": os.getloadavg()[0],
                "task": one.case.task,
                **{name: value for name, value in one.facts.items() if name not in ("steps", "forces", "digest")},
                **more,
            })  # fmt: skip
    return rows


def table(rows: Sequence[Row], memory: bool = False) -> str:
    """Return a Markdown table.

    Args:
        rows: of :func:`rows_of` or of :func:`growth_of`.
        memory: with columns of the memory.
    """
    if "growth" in rows[0]:
        return _growth_table(rows)
    parameters = "parameters" in rows[0]
    clock = {"cpu": "CPU", "wall": "wall"}[rows[0]["clock"]]
    heads = [
        "workload",
        "step",
        "case",
        f"{clock} ms",
        "lowest–highest",
        "times faster than the first",
        "lowest–highest",
    ]
    heads += ["MB of a step", "peak in steps, MB", "peak of all, MB"] if memory else []
    heads += ["parameters"] if parameters else []
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for row in rows:
        median, low, high = row["ms"]
        ratio = row["ratio"]
        cells = [row["workload"], row["step"], row["case"], number(median), f"{number(low)}–{number(high)}"]
        cells += [f"{ratio[0]:.2f}", f"{ratio[1]:.2f}–{ratio[2]:.2f}"]
        if memory:
            cells += [f"{row['MB'][name]:.0f}" if row["MB"] else "" for name in ("rise", "peak", "whole")]
        if parameters:
            cells.append(f"{row['parameters']:,}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def growth_of(found: Sequence[Measured]) -> list[Row]:
    """Return a row for each size and case with the time an atom, and what it is over that of the smallest size.

    Args:
        found: cases that took turns; those of one name are the same but for their size, the smallest one first.
    """
    rows = []
    for name in dict.fromkeys(one.case.name for one in found):
        sizes = [one for one in found if one.case.name == name]
        (step,) = sizes[0].turns
        smallest = [turn["cpu"] / sizes[0].facts["atoms"] for turn in sizes[0].turns[step]]
        for one in sizes:
            atoms = one.facts["atoms"]
            seconds = [turn["cpu"] / atoms for turn in one.turns[step]]
            rows.append({
                "workload": f"growth of the {step}",
                "case": name,
                "atoms": atoms,
                "us_per_atom": 1e6 * statistics.median(seconds),
                "growth": list(spread([own / least for own, least in zip(seconds, smallest)])),
                "rounds": one.turns[step],
                "MB": one.memory,
                "load": os.getloadavg()[0],
            })  # fmt: skip
    return rows


def _growth_table(rows: Sequence[Row]) -> str:
    heads = ["case", "atoms", "CPU ms", "µs an atom", "over the smallest", "lowest–highest", "MB of a step"]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for row in rows:
        median, low, high = row["growth"]
        cells = [row["case"], str(row["atoms"]), number(row["us_per_atom"] * row["atoms"] / 1000)]
        cells += [number(row["us_per_atom"]), f"{median:.2f}", f"{low:.2f}–{high:.2f}"]
        cells.append(f"{row['MB']['rise']:.0f}" if row["MB"] else "")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def number(value: float) -> str:
    """Return a number with three digits, those before the point at least."""
    return f"{value:.{2 - min(2, len(str(int(value))) - 1)}f}" if value >= 1 else f"{value:.3f}"


def write_lines(path: str | None, command: str, rows: Sequence[Row]) -> None:
    """Append rows to a file, a line of JSON each; nothing without a path.

    Raises:
        BenchmarkError: the file cannot be written.
    """
    if path is None:
        return
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.writelines(json.dumps({"command": command, **row}) + "\n" for row in rows)
    except OSError as error:
        raise BenchmarkError(f"--out '{path}' cannot be written: {error.strerror}.") from error
