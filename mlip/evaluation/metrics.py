"""Errors of predictions against labels, accumulated batch by batch in float64.

Sums are kept, never means of means, so the result does not depend on how the structures were batched, and
the sums of several processes can be merged.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from ase.data import chemical_symbols
from torch import Tensor

from mlip.core.errors import ConfigError, DataError, did_you_mean
from mlip.core.fields import FIELDS, TARGETS
from mlip.core.units import MEV
from mlip.data.graph import AtomGraph
from mlip.models.base import graph_index

PER_ATOM = "_per_atom"
"""End of the groups of extensive fields that are divided by the number of atoms."""


@dataclass
class Moments:
    """Sums of the errors of one group of values.

    Attributes:
        absolute: Σ|error|, in the unit of the field.
        squared: Σ error².
        count: number of values that have a label.
        missing: number of values whose label is NaN or absent.
    """

    absolute: float = 0.0
    squared: float = 0.0
    count: int = 0
    missing: int = 0

    def add(self, absolute: float, squared: float, count: int, missing: int) -> None:
        """Add further sums."""
        self.absolute += absolute
        self.squared += squared
        self.count += int(count)
        self.missing += int(missing)


class ErrorStatistics:
    """Mean absolute and root-mean-square errors of the labels.

    Energies count once a structure, forces once a Cartesian component, stress once each of the nine components, a
    Hamiltonian once, with the mean over its entries, any other field once a component. A NaN label, and the stress of a
    structure without periodicity, is skipped and counted as missing; a NaN prediction is not skipped: it makes the
    error NaN. Of magnetic moments the sizes are compared.

    Args:
        fields: labels to compare, out of :data:`mlip.core.fields.TARGETS`.

    Raises:
        ConfigError: an unknown field.
    """

    def __init__(self, fields: Iterable[str] = TARGETS) -> None:
        self.fields = tuple(fields)
        for field in self.fields:
            if field not in TARGETS:
                raise ConfigError(f"There is no label '{field}'.{did_you_mean(field, TARGETS)} Known: {TARGETS}.")
        self._moments: dict[str, Moments] = {}

    def update(self, predictions: Mapping[str, Tensor], graph: AtomGraph) -> None:
        """Add one graph or batch.

        Args:
            predictions: ``energy`` (graphs,) eV, ``forces`` (atoms, 3) eV/Å, ``stress`` (graphs, 3, 3) eV/Å³, …
                as far as they are to be compared; a field without prediction is left out.
            graph: the same graph or batch, with its labels.

        Raises:
            DataError: prediction and label differ in shape.
        """
        for field in self.fields:
            if field not in predictions:
                continue
            predicted = predictions[field].detach().double()
            label = graph.get(field)
            if label is None:
                label = torch.full_like(predicted, math.nan)
            if label.shape != predicted.shape:
                raise DataError(
                    f"The label '{field}' has shape {tuple(label.shape)}, its prediction {tuple(predicted.shape)}."
                )
            if FIELDS[field].unsigned:
                label = label.abs()
            error = predicted - label.to(predicted)
            if FIELDS[field].level == "orbital_pair":
                self._add_matrices(field, error, graph)
                continue
            missing = label.isnan()
            if field == "forces":
                self._add_forces(error, missing, graph.atomic_numbers)
                continue
            if field == "stress":
                # Molecules have no stress, whatever a file says: zero equal to zero is no success.
                missing = missing | ~graph.pbc.any(dim=1)[:, None, None]
            self._add(field, error, missing)
            if headline(field) != field:
                atoms = torch.bincount(graph_index(graph), minlength=graph.cell.shape[0])
                self._add(headline(field), error / atoms, missing)

    def _add_matrices(self, field: str, error: Tensor, graph: AtomGraph) -> None:
        """Add the mean over the entries of each matrix: every molecule counts the same (QH9)."""
        sizes = graph.num_orbitals
        molecule = torch.repeat_interleave(torch.arange(len(sizes), device=error.device), sizes.square())
        mean = torch.stack([error.abs(), error.square()]).new_zeros(2, len(sizes))
        mean.index_add_(1, molecule, torch.stack([error.abs(), error.square()]))
        absolute, squared = (mean / sizes.square()).sum(dim=1).tolist()
        self._moments.setdefault(field, Moments()).add(absolute, squared, len(sizes), 0)

    def _add(self, group: str, error: Tensor, missing: Tensor) -> None:
        kept = torch.where(missing, 0.0, error)
        sums = [kept.abs().sum(), kept.square().sum(), (~missing).sum(), missing.sum()]
        self._moments.setdefault(group, Moments()).add(*(value.item() for value in sums))

    def _add_forces(self, error: Tensor, missing: Tensor, numbers: Tensor) -> None:
        kept = torch.where(missing, 0.0, error)
        columns = (kept.abs().sum(1), kept.square().sum(1), (~missing).sum(1), missing.sum(1))
        sums = torch.stack([torch.bincount(numbers, column.double()) for column in columns], dim=1).cpu()
        for number in numbers.unique().tolist():
            values = sums[number].tolist()
            self._moments.setdefault("forces", Moments()).add(*values)
            self._moments.setdefault(f"forces/{chemical_symbols[number]}", Moments()).add(*values)

    def compute(self) -> dict[str, float]:
        """Return the errors by name; groups without a single label are absent.

        ``energy_{mae,rmse}_meV_per_atom``, ``energy_{mae,rmse}_meV`` (per structure),
        ``forces_{mae,rmse}_meV_per_A``, ``forces_{mae,rmse}_meV_per_A/<element>``,
        ``stress_{mae,rmse}_meV_per_A3``, ``magmoms_{mae,rmse}_muB``; ``<field>_{mae,rmse}`` for what has no unit.
        """
        errors: dict[str, float] = {}
        for group in sorted(self._moments):
            moments = self._moments[group]
            if moments.count:
                mae, rmse = error_keys(group)
                _, size = error_unit(group)
                errors[mae] = moments.absolute / moments.count / size
                errors[rmse] = math.sqrt(moments.squared / moments.count) / size
        return errors

    def counts(self) -> dict[str, dict[str, int]]:
        """Return ``{"labelled": …, "missing": …}`` by field, in structures or Cartesian components."""
        return {
            field: {"labelled": self._moments[field].count, "missing": self._moments[field].missing}
            for field in self.fields
            if field in self._moments
        }

    def elements(self) -> list[str]:
        """Return the chemical symbols that have labelled forces, sorted by name."""
        return sorted(
            group.removeprefix("forces/")
            for group, moments in self._moments.items()
            if group.startswith("forces/") and moments.count
        )

    def state(self) -> dict[str, list[float]]:
        """Return all sums as plain numbers, for `merge` in another process."""
        return {
            group: [moments.absolute, moments.squared, moments.count, moments.missing]
            for group, moments in self._moments.items()
        }

    def merge(self, state: Mapping[str, Sequence[float]]) -> None:
        """Add the sums of another `ErrorStatistics`."""
        for group, (absolute, squared, count, missing) in state.items():
            self._moments.setdefault(group, Moments()).add(absolute, squared, int(count), int(missing))

    def reset(self) -> None:
        """Forget everything that was added."""
        self._moments.clear()


def headline(field: str) -> str:
    """Return the group that speaks for a field: energies are compared an atom."""
    return f"{field}{PER_ATOM}" if FIELDS[field].extensive else field


def quoted_error(field: str) -> tuple[str, str]:
    """Return the word and the key of the error that is quoted for a field: MAE of Hamiltonians (QH9), else RMSE."""
    mae, rmse = error_keys(headline(field))
    return ("MAE", mae) if FIELDS[field].level == "orbital_pair" else ("RMSE", rmse)


def error_unit(group: str) -> tuple[str, float]:
    """Return the unit in which errors of a group are reported, "" for none, and its size in that of the field."""
    name = group.partition("/")[0]
    unit = FIELDS[name.removesuffix(PER_ATOM)].unit + ("/atom" if name.endswith(PER_ATOM) else "")
    if unit.startswith("eV"):
        return f"m{unit}", MEV
    if unit == "Hartree":
        return "µEh", 1e-6
    return "" if unit == "1" else unit, 1.0


def error_keys(group: str) -> tuple[str, str]:
    """Return the keys (MAE, RMSE) of a group such as ``energy_per_atom`` or ``forces/C``."""
    name, _, element = group.partition("/")
    field = name.removesuffix(PER_ATOM)
    unit = error_unit(group)[0]
    # The moment of magnetism has the Greek letter, micro- the sign.
    for sign, letters in (("/", "_per_"), ("Å³", "A3"), ("Å", "A"), ("μ", "mu"), ("µ", "u")):
        unit = unit.replace(sign, letters)
    tail = (f"_{unit}" if unit else "") + (f"/{element}" if element else "")
    return f"{field}_mae{tail}", f"{field}_rmse{tail}"
