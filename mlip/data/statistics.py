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

from mlip.core.errors import DataError, MlipError
from mlip.core.files import cache_folder, write_text_atomically
from mlip.data.atomic_energies import atomic_energies, composition, sample_energies
from mlip.data.content_hash import content_hash
from mlip.data.neighbours import neighbour_list
from mlip.data.sample import Sample

VERSION = 1
"""Raised when the numbers below are computed differently, so that old cache files are not used."""

Progress = Callable[[int, int], None]
"""Called with (done, total) during long work."""


def compute_statistics(
    samples: Sequence[Sample],
    cutoff: float,
    isolated: Mapping[str, float] | None = None,
    atomic_energy_source: str = "auto",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Compute the statistics of the training samples.

    Args:
        samples: the training part, nothing else.
        cutoff: Å.
        isolated: energies of isolated atoms by symbol, eV.
        atomic_energy_source: ``auto``, ``isolated`` or ``least_squares``, see `atomic_energies`.
        progress: called with (done, total).

    Returns:
        Plain values: ``elements`` (symbols by atomic number), ``num_neighbors`` (average number of edges per
        atom), ``atomic_energies`` (eV by symbol), ``atomic_energies_source``, ``force_rms`` (eV/Å, over
        components; None without forces), ``energy_per_atom_mean`` and ``energy_per_atom_std`` (eV/atom, after
        the atomic energies; None without energies), ``num_samples``, ``num_atoms``, ``num_edges``,
        ``min_distance`` and ``max_distance`` of the edges (Å; None without edges), ``cutoff``.

    Raises:
        DataError: no samples, or atomic energies that do not fit.
    """
    if len(samples) == 0:
        raise DataError("Statistics need at least one training sample, there are none.")
    reference, source = atomic_energies(samples, isolated, atomic_energy_source)
    elements, counts = composition(samples)
    num_atoms = int(counts.sum())
    shifts = np.array([reference[symbol] for symbol in elements])
    binding = (sample_energies(samples) - counts @ shifts) / counts.sum(axis=1)
    binding = binding[np.isfinite(binding)]
    forces = [sample.labels["forces"].ravel() for sample in samples if "forces" in sample.labels]
    components = np.concatenate(forces) if forces else np.zeros(0)
    components = components[np.isfinite(components)]
    edges = _edge_statistics(samples, cutoff, progress)
    return {
        "elements": elements,
        "num_neighbors": edges["num_edges"] / num_atoms,
        "atomic_energies": reference,
        "atomic_energies_source": source,
        "force_rms": float(np.sqrt(np.mean(components**2))) if components.size else None,
        "energy_per_atom_mean": float(binding.mean()) if binding.size else None,
        "energy_per_atom_std": float(binding.std()) if binding.size else None,
        "num_samples": len(samples),
        "num_atoms": num_atoms,
        **edges,
        "cutoff": float(cutoff),
    }


def _edge_statistics(samples: Sequence[Sample], cutoff: float, progress: Progress | None) -> dict[str, Any]:
    num_edges, shortest, longest = 0, np.inf, 0.0
    for done, sample in enumerate(samples, start=1):
        atoms = sample.atoms
        senders, receivers, shifts = neighbour_list(atoms.positions, atoms.cell.array, atoms.pbc, cutoff)
        vectors = atoms.positions[senders] - atoms.positions[receivers] + shifts @ atoms.cell.array
        lengths = np.linalg.norm(vectors, axis=1)
        num_edges += len(senders)
        shortest = min(shortest, lengths.min(initial=np.inf))
        longest = max(longest, lengths.max(initial=0.0))
        if progress is not None:
            progress(done, len(samples))
    return {
        "num_edges": num_edges,
        "min_distance": float(shortest) if num_edges else None,
        "max_distance": float(longest) if num_edges else None,
    }


def cached_statistics(
    samples: Sequence[Sample],
    cutoff: float,
    isolated: Mapping[str, float] | None = None,
    atomic_energy_source: str = "auto",
    progress: Progress | None = None,
    folder: str | os.PathLike[str] | None = None,
) -> dict[str, Any]:
    """Return `compute_statistics`, from the cache if these very data were seen before.

    The file's name is a hash of structures, labels, cutoff and version. A damaged file is computed anew, and
    a folder that cannot be written to only costs the time.

    Args:
        samples, cutoff, isolated, atomic_energy_source, progress: as `compute_statistics`.
        folder: of the cache; None for ``MLIP_CACHE``, else ``~/.cache/mlip``.

    Raises:
        DataError: as `compute_statistics`.
    """
    settings = {
        "version": VERSION,
        "cutoff": float(cutoff),
        "isolated": dict(sorted((isolated or {}).items())),
        "source": atomic_energy_source,
        "data": content_hash(samples),
    }
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    path = (Path(folder) if folder is not None else cache_folder()) / f"statistics-{key[:32]}.json"
    kept = _read_cache(path, key)
    if kept is not None:
        return kept
    statistics = compute_statistics(samples, cutoff, isolated, atomic_energy_source, progress)
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
