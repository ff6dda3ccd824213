"""Reference energies for labels of another level of theory, from what a model gets wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
from ase.data import atomic_numbers

from mlip.core.errors import ConfigError, DataError, did_you_mean
from mlip.data.graph_dataset import GraphDataset
from mlip.data.least_squares import StreamedLeastSquares
from mlip.data.subset import Subset
from mlip.evaluation.predict import predict_each
from mlip.models.base import AtomisticModel

Choice = Literal["auto", "keep", "refit"]
"""Which reference energies are fitted to new labels: those of new elements only, all, or all if it matters."""

SAMPLED = 2000
"""Structures that the fit sees; more would not change an energy of an element."""

ABSURD = 1e7
"""eV an atom; no atom has an energy like that, whatever is counted."""

OUTLIER = 20.0
"""Times the median error after a first fit, and 1 eV an atom at least, beyond which a label is not fitted to."""

SAME_LEVEL = 0.1
"""eV an atom; labels that are further from a model's predictions, in the median, count as of another level."""


@dataclass(frozen=True)
class EnergyShifts:
    """What is added to the reference energies of elements.

    Attributes:
        shifts: eV by symbol; those that stay are not there.
        before, after: root mean square of the model's errors without and with them, eV an atom; NaN without energies.
        note: why, in words.
        outliers: sources of structures whose labels are far from all others; nothing was fitted to them.
    """

    shifts: dict[str, float]
    before: float
    after: float
    note: str
    outliers: tuple[str, ...] = ()


def fit_energy_shifts(
    model: AtomisticModel,
    samples: Subset,
    new: Mapping[str, Sequence[int]] | None = None,
    choice: Choice = "auto",
    seed: int = 0,
    regularisation: float = 0.0,
    progress: Callable[[int, int], None] | None = None,
) -> EnergyShifts:
    """Fit ``E_label - E_model = Σ_z n_z shift_z`` by least squares, both sides divided by the number of atoms.

    Two codes, functionals or sets of pseudopotentials differ mostly by a constant for each element. Taken from the
    labels directly it would hold their binding energies, too; the model knows these.

    Args:
        model: predicts ``energy``.
        samples: with the new labels.
        new: elements whose reference energies mean nothing yet, which are always fitted, with the numbers of the
            samples that have them.
        choice: ``keep`` the others, ``refit`` them, or ``auto``: refit if the median error is above `SAME_LEVEL`.
        seed: of the structures that are drawn where there are more than `SAMPLED`.
        regularisation: see `StreamedLeastSquares.solve`; 0 gives the smallest shifts that fit where the compositions
            leave something open.
        progress: called with (done, total).

    Raises:
        ConfigError: an unknown choice.
        DataError: a prediction is not finite, or a label absurd.
    """
    if choice not in get_args(Choice):
        hint = did_you_mean(str(choice), get_args(Choice))
        raise ConfigError(f"finetune.atomic_energies must be auto, keep or refit, got {choice!r}.{hint}")
    new = dict(new or {})
    errors = _residuals(model, _drawn(samples, new, seed), progress)
    if not len(errors.values):
        return EnergyShifts({}, np.nan, np.nan, "kept (the new structures have no energies)")
    numbers = {symbol: atomic_numbers[symbol] for symbol in model.elements}
    # Labels of new elements are far from everything before their energies are known.
    fresh = [numbers[symbol] for symbol in new]
    left = errors.values - errors.shares[:, fresh] @ _solve(errors.shares[:, fresh], errors.values, 0.0)
    known = ~errors.shares[:, fresh].any(axis=1)
    away = float(np.median(np.abs(left[known] if known.any() else left)))
    another = choice == "refit" or (choice == "auto" and away > SAME_LEVEL)
    fitted = [symbol for symbol in model.elements if another or symbol in new]
    columns = [numbers[symbol] for symbol in fitted if errors.shares[:, numbers[symbol]].any()]
    rows = errors.shares[:, columns]
    found = _solve(rows, errors.values, regularisation)
    rest = np.abs(errors.values - rows @ found)
    good = rest <= max(OUTLIER * float(np.median(rest)), 1.0)
    if columns and not good.all():
        found = _solve(rows[good], errors.values[good], regularisation)
    symbols = {number: symbol for symbol, number in numbers.items()}
    reason = "as asked" if choice == "refit" else f"the labels are {away:.3g} eV/atom from the predictions"
    return EnergyShifts(
        {symbols[number]: float(shift) for number, shift in zip(columns, found)},
        _rms(errors.values),
        _rms(errors.values - rows @ found),
        f"fitted to the new energies ({reason})" if another else "kept",
        tuple(errors.sources[k] for k in np.flatnonzero(~good)) if columns else (),
    )


def _drawn(samples: Subset, new: Mapping[str, Sequence[int]], seed: int) -> Subset:
    """Return all samples, or `SAMPLED` of them and some with each new element."""
    if len(samples) <= SAMPLED:
        return samples
    generator = np.random.default_rng(seed)
    drawn = generator.choice(len(samples), SAMPLED, replace=False)
    each = [generator.permutation(members)[: SAMPLED // 20] for members in new.values()]
    return Subset(samples.dataset, samples.indices[np.unique(np.concatenate([drawn, *each]))])


class _Errors(NamedTuple):
    """Of the structures with energies: shares of each atomic number (structures, 119), eV an atom, and sources."""

    shares: np.ndarray
    values: np.ndarray
    sources: list[str]


def _residuals(model: AtomisticModel, part: Subset, progress: Callable[[int, int], None] | None) -> _Errors:
    """Return what the model gets wrong."""
    graphs = GraphDataset(part, model.graph_builder, labels=("energy",), once=True, inputs=model.inputs)
    shares: list[np.ndarray] = []
    values: list[float] = []
    sources: list[str] = []
    each = predict_each(model, graphs, ("energy",)) if "energy" in graphs.labels else ()
    for done, (sample, (graph, found)) in enumerate(zip(part, each), start=1):
        atoms = np.bincount(sample.atoms.numbers, minlength=119)
        label = float(graph.energy) / atoms.sum()
        if abs(label) > ABSURD:
            raise DataError(
                f"{sample.source}: an energy of {float(graph.energy):.4g} eV for {atoms.sum()} atoms cannot be right."
            )
        if np.isfinite(label):
            shares.append(atoms / atoms.sum())
            values.append(label - float(found["energy"]) / atoms.sum())
            sources.append(sample.source)
        if progress is not None:
            progress(done, len(part))
    return _Errors(np.array(shares).reshape(-1, 119), np.array(values), sources)


def _solve(rows: np.ndarray, targets: np.ndarray, regularisation: float) -> np.ndarray:
    if not rows.shape[1]:
        return np.zeros(0)
    equations = StreamedLeastSquares(rows.shape[1])
    equations.add(rows, targets)
    return equations.solve(regularisation)


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))
