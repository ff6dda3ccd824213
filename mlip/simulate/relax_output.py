"""The files of many relaxations: table, structures, counts and a plot, made from the records at any time."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mlip.core.files import write_atomically, write_text_atomically
from mlip.simulate.carried import write_extxyz
from mlip.simulate.output import write_summary
from mlip.simulate.relax_records import RECORDS, Record
from mlip.simulate.relax_table import RelaxedRow, as_csv, counts
from mlip.simulate.structures import write_cif

TABLE, STRUCTURES, SUMMARY, PLOT, CIF = "results.csv", "relaxed.xyz", "summary.json", "summary.png", "cif"
ONE = ("trajectory.traj", "final.xyz", "final.cif", "final.vasp", "relaxation.png")
"""What the relaxation of one structure writes."""


def write_results(folder: Path, records: Sequence[Record], about: dict[str, Any], cif: bool = False) -> None:
    """Write ``results.csv``, ``relaxed.xyz``, ``summary.json`` and ``summary.png``, each whole or not at all.

    Args:
        folder: where to.
        records: in the order of the input; those that failed are in the table only.
        about: goes into ``summary.json`` besides the counts.
        cif: also write every crystal as ``cif/NUMBER_NAME.cif``.

    Raises:
        MlipError: the folder cannot be written to, or the disk is full.
    """
    rows = [record.row for record in records]
    write_text_atomically(folder / TABLE, as_csv(rows))
    frames = []
    for record in records:
        if record.atoms is None:
            continue
        atoms = record.atoms.copy()
        atoms.calc = record.atoms.calc
        # Not "name", which the input may have.
        atoms.info["mlip_name"] = _printable(record.row.name)
        frames.append(atoms)
        if cif and atoms.pbc.all():
            name = f"{record.row.number:06d}_{_file_name(record.row.name)}.cif"
            write_cif(folder / CIF / name, atoms)
    if frames:
        write_extxyz(folder / STRUCTURES, frames)
    write_summary(folder / SUMMARY, {**about, **counts(rows)})
    if frames:
        plot_summary(folder / PLOT, rows)


def remove_results(folder: Path, but: Collection[str] = ()) -> None:
    """Remove what an earlier run left, so that no file of it is taken for one of the next run.

    Args:
        folder: need not exist.
        but: names of files that stay.
    """
    for name in {TABLE, STRUCTURES, SUMMARY, PLOT, RECORDS, *ONE} - {*but}:
        (folder / name).unlink(missing_ok=True)
    for path in (folder / CIF).glob("[0-9][0-9][0-9][0-9][0-9][0-9]_*.cif"):
        path.unlink()


def plot_summary(path: Path, rows: Sequence[RelaxedRow]) -> None:
    """Write a PNG with histograms of volume change, energy gained and steps.

    Raises:
        MlipError: the file cannot be written.
    """
    good = [row for row in rows if row.status != "failed"]
    volumes = [100 * row.volume_change for row in good if row.volume_change is not None]
    moved = any(abs(volume) > 1e-9 for volume in volumes)
    figure = Figure(figsize=(11 if moved else 7.5, 3.4), layout="constrained")
    axes = list(figure.subplots(1, 3 if moved else 2))
    if moved:
        plot_histogram(axes.pop(0), volumes, "change of the volume / %", "C4")
    gains = [1000 * row.energy_gain for row in good if row.energy_gain is not None]
    plot_histogram(axes[0], gains, "energy gained / meV/atom", "C0")
    plot_histogram(axes[1], [float(row.steps) for row in good if row.steps is not None], "steps", "C1")
    found = counts(rows)
    figure.suptitle(
        f"{found['structures']} structures: {found['converged']} converged, {found['not_converged']} not, "
        f"{found['failed']} failed",
        fontsize=11,
    )
    write_atomically(path, lambda part: figure.savefig(str(part), format="png", dpi=130))


def plot_histogram(axes: Axes, values: Sequence[float], label: str, colour: str) -> None:
    """Draw a histogram of all but the outermost 1 % at either side; these are counted in the label."""
    finite = np.array([value for value in values if np.isfinite(value)])
    if len(finite):
        low, high = np.percentile(finite, [1, 99]) if len(finite) >= 100 else (finite.min(), finite.max())
        margin = 0.05 * (high - low) or max(abs(low), 1.0) * 0.05
        inside = finite[(finite >= low - margin) & (finite <= high + margin)]
        axes.hist(inside, bins=int(np.clip(np.sqrt(len(inside)) * 2, 5, 60)), color=colour)
        axes.axvline(float(np.median(finite)), color="0.3", linestyle="--", linewidth=1)
        outside = len(finite) - len(inside)
        label += f"\nmedian {np.median(finite):.3g}" + (f"; {outside} outside" if outside else "")
    axes.set_xlabel(label)
    axes.set_ylabel("structures")
    axes.yaxis.get_major_locator().set_params(integer=True)


def _printable(name: str) -> str:
    return name.encode(errors="replace").decode()


def _file_name(name: str) -> str:
    """Return what a file may be called after a name such as ``runs/a.xyz#3``."""
    file, _, key = name.partition("#")
    return re.sub(r"[^\w.-]+", "_", f"{Path(file).stem}_{key}".rstrip("_"), flags=re.ASCII)[:80]
