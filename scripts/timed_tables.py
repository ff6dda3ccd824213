"""Tables and pictures of the timing scripts of Hamiltonian networks."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot  # the backend has to be chosen before
from timed_parts import PARTS

Row = dict[str, Any]


def write(path: Path, columns: Sequence[str], rows: Sequence[Row]) -> None:
    """Write a CSV file, numbers with four digits."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for row in rows:
            values = [row.get(column, "") for column in columns]
            writer.writerow([f"{value:.4g}" if isinstance(value, float) else value for value in values])


def print_times(rows: Sequence[Row]) -> None:
    """Print times and memory of one molecule."""
    print("| variant | parameters | gates keep, % | step | ms | faster | lowest-highest | MB | less memory |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['variant']} | {row['parameters']:,} | {row['kept']} | {row['way']} | {row['ms']:.0f} | "
            f"{row['faster']:.2f} | {row['lowest']:.2f}-{row['highest']:.2f} | {row['MB']:.0f} | "
            f"{row['MB_less']:.2f} |"
        )


def print_shares(parts: dict[str, dict[str, float]]) -> None:
    """Print where the time of a training step goes, in percent."""
    print(f"\n| of a training step, % | {' | '.join(PARTS)} |")
    print(f"|---|{'---|' * len(PARTS)}")
    for variant, row in parts.items():
        print(f"| {variant} | {' | '.join(f'{100 * row[part]:.0f}' for part in PARTS)} |")


def plot_networks(path: Path, rows: Sequence[Row], parts: Sequence[Row]) -> None:
    """Draw for every molecule how much faster and smaller each variant is, and where a training step's time goes."""
    molecules = list(dict.fromkeys(row["molecule"] for row in rows))
    figure, axes = pyplot.subplots(len(molecules), 2, figsize=(11, 3.2 * len(molecules)), squeeze=False)
    for (left, right), molecule in zip(axes, molecules):
        own = [row for row in rows if row["molecule"] == molecule]
        variants = list(dict.fromkeys(row["variant"] for row in own))
        places = range(len(variants))
        series = [
            ("training, times faster", "training", "faster"),
            ("training, times less memory", "training", "MB_less"),
        ]
        series.append(("inference, times faster", "inference", "faster"))
        for number, (label, way, column) in enumerate(series):
            values = [row[column] for row in own if row["way"] == way]
            bars = left.barh([place + 0.27 * (number - 1) for place in places], values, height=0.25, label=label)
            left.bar_label(bars, fmt="%.1f", fontsize=6, padding=1)
        left.axvline(1.0, color="0.3", linewidth=0.8)
        left.set_yticks(places, variants, fontsize=8)
        left.set_xlabel(f"{molecule}: compared with {variants[0]}")
        left.legend(fontsize=7)
        # Shares of each step, as long as the step is.
        length = {row["variant"]: row["ms"] for row in own if row["way"] == "training"}
        start = [0.0] * len(variants)
        shares = {row["variant"]: row for row in parts if row["molecule"] == molecule}
        for part, color in zip(PARTS, pyplot.get_cmap("tab20").colors):
            widths = [shares[variant][part] * length[variant] for variant in variants]
            right.barh(places, widths, left=start, label=part, color=color)
            start = [a + b for a, b in zip(start, widths)]
        right.set_yticks(places, [])
        right.set_xlabel(f"{molecule}: ms of CPU time of a training step")
        right.legend(fontsize=6)
        for axis in (left, right):
            axis.invert_yaxis()
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    pyplot.close(figure)


def print_scf(rows: Sequence[Row], models: Sequence[str]) -> None:
    """Print the times of predictions and calculations, s, and their ratios; ~ are estimates."""
    heads = [*models, "guess", "overlap", "SCF", "default", "cycles", "3 cycles"]
    heads += [f"SCF / {model}" for model in models] + [f"SCF / (guess + {model})" for model in models]
    print(f"\n| CPU s of one thread | atoms | orbitals | {' | '.join(heads)} |")
    print(f"|---|---|---|{'---|' * len(heads)}")
    for row in rows:
        sign = "~" if row["estimated"] else ""
        cells = [f"{row[name]:.3g}" for name in (*models, "guess", "overlap")]
        cells += [f"{sign}{_number(row.get('scf'))}", f"{sign}{_number(row.get('default'))}", f"{sign}{row['cycles']}"]
        cells.append(_number(row.get("after_3"), ".2f"))
        cells += [f"{sign}{_number(row.get(f'scf/{model}'))}" for model in models]
        cells += [f"{sign}{_number(row.get(f'scf/(guess+{model})'))}" for model in models]
        print(f"| {row['molecule']} | {row['atoms']} | {row['orbitals']} | {' | '.join(cells)} |")


def plot_scf(path: Path, rows: Sequence[Row], models: Sequence[str]) -> None:
    """Draw times against numbers of atoms, a panel for each series; estimates are open circles."""
    names = list(dict.fromkeys(row["series"] for row in rows))
    figure, axes = pyplot.subplots(1, len(names), figsize=(5 * len(names), 4), sharey=True, squeeze=False)
    labels = {"scf": "SCF, 1e-13 Eh", "default": "SCF, 1e-9 Eh", "guess": "minao guess", "overlap": "overlap"}
    for axis, name in zip(axes[0], names):
        own = [row for row in rows if row["series"] == name]
        for number, column in enumerate(["scf", "default", *models, "guess", "overlap"]):
            points = [(row["atoms"], row[column], row["estimated"]) for row in own if row.get(column)]
            if not points:
                continue
            dashed = column in ("default", "guess", "overlap")
            line = axis.plot(
                *zip(*[point[:2] for point in points]), "--" if dashed else "-", color=f"C{number}", linewidth=1
            )
            for atoms, seconds, estimated in points:
                open_circle = bool(estimated) and column in ("scf", "default")
                axis.plot(atoms, seconds, "o", color=f"C{number}", mfc="white" if open_circle else None, markersize=5)
            line[0].set_label(labels.get(column, f"{column}, prediction"))
        axis.set(xscale="log", yscale="log", xlabel="atoms", title=" … ".join(own[k]["molecule"] for k in (0, -1)))
        axis.set_xticks([row["atoms"] for row in own], [str(row["atoms"]) for row in own])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("s of CPU time, one thread (open: estimated)")
    axes[0][0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    pyplot.close(figure)


def _number(value: float | None, form: str = ".3g") -> str:
    return "" if value is None else f"{value:{form}}"
