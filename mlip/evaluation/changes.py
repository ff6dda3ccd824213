"""How much the predictions of one model differ from those of another on the same structures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mlip.data.loading import GraphDataset
from mlip.data.sample import Sample
from mlip.evaluation.predict import predict_each
from mlip.models.base import AtomisticModel


@dataclass(frozen=True)
class Changes:
    """Differences of energies an atom (eV) and of force components (eV/Å).

    Attributes:
        energy_max, energy_mean: largest and mean absolute difference, eV an atom.
        forces_max, forces_mean: largest and mean absolute difference of a component, eV/Å.
        force_scale: RMS of the first model's force components, eV/Å.
        structures: how many were compared.
    """

    energy_max: float
    energy_mean: float
    forces_max: float
    forces_mean: float
    force_scale: float
    structures: int


def changes(
    first: AtomisticModel,
    second: AtomisticModel,
    samples: Sequence[Sample],
    progress: Callable[[int, int], None] | None = None,
) -> Changes:
    """Compare energies and forces of two models with the same elements and graphs; labels are not looked at.

    Args:
        first, second: potentials.
        samples: structures; at least one.
        progress: called with (done, total).

    Raises:
        StructureError, DataError: as :func:`mlip.evaluation.predict.predict_each`.
    """
    results = [
        predict_each(
            model,
            GraphDataset(samples, model.graph_builder, labels=model.inputs, elements=model.elements, once=True),
            ("energy", "forces"),
        )
        for model in (first, second)
    ]
    energies, forces, references = [], [], []
    for number, ((_, one), (_, other)) in enumerate(zip(*results, strict=True)):
        energies.append(abs(float(one["energy"] - other["energy"])) / len(one["forces"]))
        forces.append(np.abs(one["forces"] - other["forces"]).ravel())
        references.append(one["forces"].ravel())
        if progress is not None:
            progress(number + 1, len(samples))
    every = np.concatenate(forces)
    return Changes(
        max(energies),
        float(np.mean(energies)),
        float(every.max()),
        float(every.mean()),
        float(np.sqrt(np.mean(np.concatenate(references) ** 2))),
        len(energies),
    )
