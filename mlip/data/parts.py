"""The training, validation and test structures that a ``data`` configuration describes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlip.core.build import build
from mlip.core.errors import ConfigError, did_you_mean
from mlip.data.content_hash import content_hash
from mlip.data.datasets.base import Dataset
from mlip.data.sample import Sample
from mlip.data.splits import PARTS, check_duplicates, split_indices
from mlip.data.statistics import cached_statistics

_KEYS = ("dataset", "path", "valid_path", "test_path", "split")


@dataclass(frozen=True)
class Parts:
    """Samples by purpose, and where they come from.

    Attributes:
        train, valid, test: samples, disjoint.
        indices: which samples of the data set each part is; parts read from files of their own say so.
        isolated: energies of isolated atoms by symbol, eV.
        provides: labels that every sample has.
        citation, licence: of the data set.
    """

    train: list[Sample]
    valid: list[Sample]
    test: list[Sample]
    indices: dict[str, list[int] | str]
    isolated: dict[str, float]
    provides: tuple[str, ...]
    citation: str
    licence: str

    @property
    def train_hash(self) -> str:
        """Content hash of the training part."""
        return content_hash(self.train)

    @property
    def valid_hash(self) -> str:
        """Content hash of the validation part."""
        return content_hash(self.valid)

    def statistics(self, cutoff: float) -> dict[str, Any]:
        """Return the statistics of the training part, see :func:`mlip.data.statistics.compute_statistics`."""
        return cached_statistics(self.train, cutoff, self.isolated)


def load_dataset(config: Mapping[str, Any], path: Any = None) -> Dataset:
    """Build the data set of a ``data`` configuration, optionally from another path.

    Raises:
        ConfigError: unknown entries, or something that is not a data set.
    """
    unknown = [key for key in config if key not in _KEYS]
    if unknown:
        raise ConfigError(f"data has no setting '{unknown[0]}'.{did_you_mean(unknown[0], _KEYS)}")
    options = dict(config["dataset"])
    if path is not None:
        options["path"] = path
    dataset = build(options)
    if not isinstance(dataset, Dataset):
        raise ConfigError(f"data.dataset._target_ must be a data set of mlip, got '{options.get('_target_')}'.")
    return dataset


def load_parts(config: Mapping[str, Any]) -> Parts:
    """Read and split the data.

    A part with a file of its own (``valid_path``, ``test_path``) is all of that file; with ``valid_path``
    all of ``path`` that is not for testing trains. Otherwise ``split`` divides ``path``.

    Args:
        config: plain containers: ``dataset``, ``split``, and optionally ``valid_path``, ``test_path``.

    Raises:
        DataError: unreadable data, or a geometry in two parts.
        ConfigError: a split that does not fit.
    """
    dataset = load_dataset(config)
    split = dict(config.get("split") or {})
    allow = split.pop("allow_duplicates", False)
    unknown = [key for key in split if key not in (*PARTS, "seed")]
    if unknown:
        raise ConfigError(f"data.split has no setting '{unknown[0]}'.{did_you_mean(unknown[0], (*PARTS, 'seed'))}")
    files = {name: config.get(f"{name}_path") for name in ("valid", "test")}
    for name, path in files.items():
        if path is not None:
            split[name] = 0
    if files["valid"] is not None:
        test = split.get("test", 0)
        split["train"] = 1.0 - test if isinstance(test, float) else (len(dataset) - test if test else 1.0)
    indices: dict[str, list[int] | str] = dict(split_indices(len(dataset), **split))
    samples = {name: [dataset[i] for i in indices[name]] for name in PARTS}
    for name, path in files.items():
        if path is not None:
            samples[name] = list(load_dataset(config, path))
            indices[name] = f"all of {path}"
    check_duplicates(samples, allow)
    return Parts(
        **samples,
        indices=indices,
        isolated=dataset.isolated_atom_energies(),
        provides=tuple(dataset.provides),
        citation=dataset.citation,
        licence=dataset.licence,
    )
