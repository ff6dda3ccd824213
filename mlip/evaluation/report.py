"""What an evaluation leaves behind: numbers, structures with both values, a picture."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from ase.stress import full_3x3_to_voigt_6_stress

from mlip.core.files import write_atomically, write_text_atomically
from mlip.data.graph import AtomGraph
from mlip.data.sample import Sample
from mlip.evaluation.metrics import ErrorStatistics
from mlip.evaluation.plots import parity_plot
from mlip.evaluation.predict import Prediction


def write_report(
    folder: str | os.PathLike[str],
    samples: Sequence[Sample],
    graphs: Sequence[AtomGraph],
    predictions: Sequence[Prediction],
    statistics: ErrorStatistics,
    record: Mapping[str, Any],
    title: str,
) -> None:
    """Write ``predictions.xyz``, ``parity.png`` and, last, ``metrics.json``.

    Args:
        folder: is made if needed.
        samples, graphs, predictions: the same structures in the same order.
        statistics: errors of the predictions.
        record: further entries of ``metrics.json``: model, data, ….
        title: of the plot.

    Raises:
        MlipError: a file cannot be written.
        DataError: there is nothing to plot.
    """
    folder = Path(folder)
    frames = [predicted_frame(sample, prediction) for sample, prediction in zip(samples, predictions, strict=True)]
    write_atomically(folder / "predictions.xyz", lambda path: write(path, frames, format="extxyz"))
    parity_plot(folder / "parity.png", graphs, predictions, title)
    content = {**record, "errors": statistics.compute(), "counts": statistics.counts()}
    write_text_atomically(folder / "metrics.json", json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def predicted_frame(sample: Sample, prediction: Prediction) -> Atoms:
    """Return a structure with predictions as its results and labels as ``reference_…``."""
    atoms = sample.atoms.copy()
    results = {name: value for name, value in prediction.items() if name != "stress"}
    if "energy" in results:
        results["energy"] = float(results["energy"])
    if "stress" in prediction and atoms.pbc.any():
        results["stress"] = full_3x3_to_voigt_6_stress(prediction["stress"])
    atoms.calc = SinglePointCalculator(atoms, **results)
    for name, value in sample.labels.items():
        if name == "forces":
            atoms.arrays["reference_forces"] = value
        else:
            atoms.info[f"reference_{name}"] = float(value) if name == "energy" else value
    atoms.info.update({name: value for name, value in sample.info.items() if name in ("source", "config_type")})
    return atoms
