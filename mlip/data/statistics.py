"""Numbers that a model is scaled by, from the training samples, computed once."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from mlip.core.errors import DataError, MlipError, StructureError
from mlip.core.files import cache_folder, write_text_atomically
from mlip.data.build_graph import as_builder
from mlip.data.compositions import Compositions
from mlip.data.graphs.base import GraphBuilder, distances
from mlip.data.graphs.radius import Radius
from mlip.data.orbital_statistics import OrbitalStatistics
from mlip.data.sample import Sample
from mlip.data.subset import Subset, as_subset

VERSION = 4
"""Raised when the numbers below are computed differently, so that old cache files are not used."""

STATED = ("charge", "spin")
"""Inputs of whole structures, whose values are noted: a model knows only those that it was trained on."""

Progress = Callable[[int, int], None]
"""Called with (done, total) during long work."""


def compute_statistics(
    samples: Sequence[Sample],
    graph: GraphBuilder | float,
    isolated: Mapping[str, float] | None = None,
    atomic_energy_source: str = "auto",
    progress: Progress | None = None,
    regularisation: float = 0.0,
) -> dict[str, Any]:
    """Compute the statistics of the training samples, which are read once.

    Args:
        samples: the training part, nothing else.
        graph: draws the edges; a number is the cutoff (Å) of a radius graph.
        isolated: energies of isolated atoms by symbol, eV.
        atomic_energy_source: ``auto``, ``isolated`` or ``least_squares``, see `Compositions.atomic_energies`.
        progress: called with (done, total).
        regularisation: of least squares, see `Compositions.atomic_energies`.

    Returns:
        Plain values: ``elements`` (symbols by atomic number), ``num_neighbors`` (average number of edges per
        atom), ``atomic_energies`` (eV by symbol), ``atomic_energies_source``, ``force_rms`` (eV/Å, over
        components; None without forces), ``energy_per_atom_mean`` and ``energy_per_atom_std`` (eV/atom, after
        the atomic energies; None without energies), ``charge`` and ``spin`` (the values that occur, ascending; [] where
        none is stated), ``basis``, ``functional``, ``shells``, ``onsite``, ``onsite_difference`` of Hamiltonians (see
        `OrbitalStatistics`), ``num_samples``, ``num_atoms``, ``num_edges``,
        ``min_distance`` and ``max_distance`` of the edges (Å; None without edges, or where the data set knows the
        numbers of edges, so that nobody looks at them), ``cutoff`` (Å; None for no limit), ``graph`` in words.

    Raises:
        DataError: no samples, or atomic energies that do not fit.
    """
    if len(samples) == 0:
        raise DataError("Statistics need at least one training sample, there are none.")
    part = as_subset(samples)
    builder = as_builder(graph)
    compositions, edges, forces = Compositions(), _Edges(part, builder), _ForceSquares()
    orbitals = OrbitalStatistics()
    stated: dict[str, set[int]] = {name: set() for name in STATED}
    for done, sample in enumerate(part, start=1):
        compositions.add(sample.atoms.numbers, float(sample.labels.get("energy", np.nan)))
        edges.add(sample)
        forces.add(sample)
        orbitals.add(sample)
        for name, values in stated.items():
            if name in sample.labels:
                values.add(int(sample.labels[name]))
        if progress is not None:
            progress(done, len(samples))
    reference, source = compositions.atomic_energies(isolated, atomic_energy_source, regularisation)
    binding = compositions.binding(reference)
    binding = binding[np.isfinite(binding)]
    num_atoms = compositions.num_atoms
    return {
        "elements": compositions.elements,
        "num_neighbors": edges.num_edges / num_atoms,
        "atomic_energies": reference,
        "atomic_energies_source": source,
        "force_rms": forces.rms(),
        "energy_per_atom_mean": float(binding.mean()) if binding.size else None,
        "energy_per_atom_std": float(binding.std()) if binding.size else None,
        **{name: sorted(values) for name, values in stated.items()},
        **orbitals.result(),
        "num_samples": len(samples),
        "num_atoms": num_atoms,
        "num_edges": edges.num_edges,
        "min_distance": edges.shortest if np.isfinite(edges.shortest) else None,
        "max_distance": edges.longest or None,
        "cutoff": builder.cutoff if np.isfinite(builder.cutoff) else None,
        "graph": builder.description,
    }


class _ForceSquares:
    """The mean square of force components."""

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0

    def add(self, sample: Sample) -> None:
        forces = sample.labels.get("forces")
        if forces is not None:
            components = forces[np.isfinite(forces)]
            self.total += float(components @ components)
            self.count += components.size

    def rms(self) -> float | None:
        return float(np.sqrt(self.total / self.count)) if self.count else None


class _Edges:
    """Number and lengths of edges; counted only where the data set does not know the number."""

    def __init__(self, part: Subset, builder: GraphBuilder) -> None:
        known = part.num_edges(builder.cutoff) if isinstance(builder, Radius) else None
        self.counting = known is None
        self.num_edges = 0 if known is None else int(known.sum())
        self.shortest, self.longest = np.inf, 0.0
        self.part, self.builder = part, builder

    def add(self, sample: Sample) -> None:
        if not self.counting:
            return
        try:
            pairs = self.builder(sample.atoms, sample.labels)
        except StructureError as error:
            raise DataError(f"{sample.source}: {error}") from error
        lengths = distances(pairs, sample.atoms)
        self.num_edges += len(lengths)
        self.shortest = min(self.shortest, float(lengths.min(initial=np.inf)))
        self.longest = max(self.longest, float(lengths.max(initial=0.0)))


def cached_statistics(
    samples: Sequence[Sample],
    graph: GraphBuilder | float,
    isolated: Mapping[str, float] | None = None,
    atomic_energy_source: str = "auto",
    progress: Progress | None = None,
    folder: str | os.PathLike[str] | None = None,
    regularisation: float = 0.0,
) -> dict[str, Any]:
    """Return `compute_statistics`, from the cache if these very data were seen before.

    The file's name is a hash of structures, labels, graph and version. A damaged file is computed anew, and
    a folder that cannot be written to only costs the time.

    Args:
        samples, graph, isolated, atomic_energy_source, progress, regularisation: as `compute_statistics`.
        folder: of the cache; None for ``MLIP_CACHE``, else ``~/.cache/mlip``.

    Raises:
        DataError: as `compute_statistics`.
    """
    settings = {
        "version": VERSION,
        "graph": as_builder(graph).description,
        "isolated": dict(sorted((isolated or {}).items())),
        "source": atomic_energy_source,
        "regularisation": regularisation,
        "data": as_subset(samples).content_hash,
    }
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    path = (Path(folder) if folder is not None else cache_folder()) / f"statistics-{key[:32]}.json"
    kept = _read_cache(path, key)
    if kept is not None:
        return kept
    statistics = compute_statistics(samples, graph, isolated, atomic_energy_source, progress, regularisation)
    text = json.dumps(statistics, allow_nan=False)
    content = {"key": key, "checksum": hashlib.sha256(text.encode()).hexdigest(), "statistics": text}
    # A cache that cannot be written is no reason to stop a training.
    with suppress(MlipError):
        write_text_atomically(path, json.dumps(content))
    return statistics


def _read_cache(path: Path, key: str) -> dict[str, Any] | None:
    """Return the cached statistics; None if the file is not there or not exactly what was written."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        text = content["statistics"]
        whole = hashlib.sha256(text.encode()).hexdigest() == content["checksum"] and content["key"] == key
        return json.loads(text) if whole else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
