"""What an evaluation leaves behind: numbers, structures with both values, a picture."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import all_properties
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from ase.stress import full_3x3_to_voigt_6_stress

from mlip.core.fields import FIELDS, INPUTS, MATRICES
from mlip.core.files import write_atomically, write_text_atomically
from mlip.data.graph import AtomGraph
from mlip.data.sample import Sample
from mlip.evaluation.accuracy import Accuracy, AccuracyCount
from mlip.evaluation.calibration import Calibration
from mlip.evaluation.metrics import ErrorStatistics
from mlip.evaluation.one_pass import OnePass
from mlip.evaluation.orbital_report import FILES, OrbitalReport
from mlip.evaluation.parity_points import ParityPoints
from mlip.evaluation.plots import draw_parity
from mlip.evaluation.predict import Prediction


def write_report(
    folder: str | os.PathLike[str],
    samples: OnePass,
    results: Iterable[tuple[AtomGraph, Prediction]],
    statistics: ErrorStatistics,
    record: Mapping[str, Any],
    title: str,
    calibration: Calibration | None = None,
    orbitals: OrbitalReport | None = None,
) -> Accuracy | None:
    """Write ``predictions.xyz``, ``parity.png`` and, last, ``metrics.json``, in memory that does not grow.

    Args:
        folder: is made if needed.
        samples: structures, of which none was taken before.
        results: their graphs and predictions, in the same order, from :func:`mlip.evaluation.predict.predict_each`.
        statistics: gets the errors while the results are gone through.
        record: further entries of ``metrics.json``: model, data, ….
        title: of the plot.
        calibration: gets errors and spreads of a committee.
        orbitals: gets the Hamiltonians, and writes ``orbitals.csv`` and ``matrices.png``.

    Returns:
        How many are classified correctly, where there are classes.

    Raises:
        MlipError: a file cannot be written.
        DataError: there is nothing to plot.
    """
    folder = Path(folder)
    points, count, calibration = ParityPoints(), AccuracyCount(), calibration or Calibration()

    def write_all(path: Path) -> None:
        with path.open("w", encoding="utf-8") as handle:
            for sample, (graph, prediction) in zip(samples.taken(), results, strict=True):
                write(handle, predicted_frame(sample, prediction), format="extxyz")
                points.add(graph, prediction)
                calibration.add(graph, prediction)
                count.add(sample, prediction)
                if orbitals is not None:
                    orbitals.add(sample, prediction)

    write_atomically(folder / "predictions.xyz", write_all)
    panels, errors = points.panels(), statistics.compute()
    content = {**record, "structures": len(samples), "sha256": samples.content_hash}
    content |= {"errors": errors, "counts": statistics.counts()}
    if orbitals is not None:
        panels += orbitals.panels()
        errors |= orbitals.errors()
        content["orbitals"] = orbitals.record()
        orbitals.write(folder)
    else:
        # Of an earlier model in the same folder.
        for name in FILES:
            (folder / name).unlink(missing_ok=True)
    draw_parity(folder / "parity.png", panels, title)
    agreement = {name: asdict(found) for name, found in calibration.result().items()}
    if agreement:
        content["uncertainty"] = agreement
    right = count.result()
    if right is not None:
        content["accuracy"] = right.as_dict()
    write_text_atomically(folder / "metrics.json", json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return right


def predicted_frame(sample: Sample, prediction: Prediction) -> Atoms:
    """Return a structure with predictions as its results and labels as ``reference_…``."""
    atoms = sample.atoms.copy()
    results = {name: value for name, value in prediction.items() if name in all_properties and name != "stress"}
    if "energy" in results:
        results["energy"] = float(results["energy"])
    if "stress" in prediction and atoms.pbc.any():
        results["stress"] = full_3x3_to_voigt_6_stress(prediction["stress"])
    atoms.calc = SinglePointCalculator(atoms, **results)
    # ASE has a place for the properties it knows only; matrices are too large for a text.
    for name in prediction.keys() - set(all_properties) - set(MATRICES):
        (atoms.arrays if FIELDS[name].level == "atom" else atoms.info)[name] = prediction[name]
    for name, value in sample.labels.items():
        if name in MATRICES:
            continue
        if name in INPUTS:
            # Whoever evaluates the file again needs the charge of a molecule as much as its atoms.
            if FIELDS[name].level == "graph":
                atoms.info[name] = int(value)
            continue
        holder = atoms.arrays if FIELDS[name].level == "atom" else atoms.info
        holder[f"reference_{name}"] = value if np.ndim(value) else float(value)
    atoms.info.update({name: value for name, value in sample.info.items() if name in ("source", "config_type")})
    return atoms
