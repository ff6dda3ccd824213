"""Which command writes which files into its folder, so that none replaces the results of another."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

_OVERVIEW = ("results.csv", "summary.json", "summary.png")
_RELAXED = ("relaxed.xyz", "relaxed.cif", "relaxed.vasp")
_FINAL = ("trajectory.traj", "final.xyz", "final.cif", "final.vasp")


def _named(stem: str, *more: str) -> tuple[str, ...]:
    return (f"{stem}.json", f"{stem}.csv", f"{stem}.png", *more)


RESULTS: Mapping[str, tuple[str, ...]] = {
    "relax": (*_OVERVIEW, *_FINAL, "relaxation.png", "relaxed.jsonl", "relaxed.xyz"),
    "screen": (*_OVERVIEW, "screened.jsonl", "results.h5"),
    "md": (
        *_FINAL, "summary.json", "thermo.csv", "md.png", "checkpoint.npz", "checkpoint_before.npz",
        "selected.extxyz", "trajectory.xyz", "trajectory.h5",
    ),
    "eos": _named("eos", "eos.xyz"),
    "elastic": _named("elastic", *_RELAXED),
    "phonons": (
        "phonons.json", "band.csv", "band.png", "dos.csv", "thermo.csv", "thermo.png", "phonopy_params.yaml",
        *_RELAXED,
    ),
    "neb": _named("neb", "images.xyz"),
    "hull": _named("hull"),
    "defects vacancy": _named("vacancies", "vacancies.xyz"),
    "defects surface": _named("surfaces", "surfaces.xyz"),
    "defects adsorption": _named("adsorption", "adsorption.xyz"),
}  # fmt: skip
"""Names in the folder of the results, by command."""


def command_of(marker: str) -> str:
    """Return the only command that writes a file of this name; "" if there is none, or several."""
    found = [command for command, names in RESULTS.items() if marker in names]
    return found[0] if len(found) == 1 else ""


def present(folder: Path, command: str) -> list[str]:
    """Return the names that a command would write and that are there."""
    return [name for name in RESULTS.get(command, ()) if (folder / name).exists()]


def threatened(folder: Path, command: str) -> tuple[str, str] | None:
    """Return another command whose results are there and which file of them this one would replace; None if none is.

    Whose results they are is told by the files that only one command writes.
    """
    for other, names in RESULTS.items():
        if other == command or not any(command_of(name) == other for name in present(folder, other)):
            continue
        for name in present(folder, command):
            if name in names:
                return other, name
    return None
