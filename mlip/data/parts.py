"""The training, validation and test structures that a ``data`` configuration describes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlip.core.build import build
from mlip.core.errors import ConfigError, did_you_mean
from mlip.data.content_hash import combined_hash
from mlip.data.datasets.base import Dataset
from mlip.data.graphs.base import GraphBuilder
from mlip.data.leakage import check_duplicates
from mlip.data.splits import PARTS, group_split, split_indices
from mlip.data.statistics import cached_statistics
from mlip.data.subset import Subset, as_subset

_KEYS = ("dataset", "path", "valid_path", "test_path", "split")
_SPLIT_KEYS = (*PARTS, "seed", "by", "official")

LISTED = 20_000
"""Samples up to which a model's card lists them one by one."""


@dataclass(frozen=True)
class Parts:
    """Samples by purpose, and where they come from.

    Attributes:
        train, valid, test: samples, disjoint.
        indices: which samples of the data set each part is; parts read from files of their own say so.
        isolated: energies of isolated atoms by symbol, eV.
        provides: labels that every sample has.
        citation, licence: of the data set.
        rule: how the parts were made, plain values.
    """

    train: Subset
    valid: Subset
    test: Subset
    indices: dict[str, list[int] | str]
    isolated: dict[str, float]
    provides: tuple[str, ...]
    citation: str
    licence: str
    rule: Mapping[str, Any]

    @property
    def train_hash(self) -> str:
        """Content hash of the training part."""
        return self.train.content_hash

    @property
    def valid_hash(self) -> str:
        """Content hash of the validation part."""
        return self.valid.content_hash

    def record(self) -> dict[str, Any]:
        """Return which samples each part is, for the card of a model: indices, or the rule where they are many."""
        if sum(len(part) for part in self.indices.values() if not isinstance(part, str)) <= LISTED:
            return dict(self.indices)
        hashes = {
            name: part if isinstance(part, str) else {"structures": len(part), "sha256_of_indices": combined_hash(part)}
            for name, part in self.indices.items()
        }
        return {"rule": dict(self.rule), **hashes}

    def statistics(self, graph: GraphBuilder | float) -> dict[str, Any]:
        """Return the statistics of the training part, see :func:`mlip.data.statistics.compute_statistics`."""
        return cached_statistics(self.train, graph, self.isolated)


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
    all of ``path`` that is not for testing trains. Otherwise ``split`` divides ``path``: at random, whole groups at a
    time (``by: group``), or as published (``official: NAME``).

    Args:
        config: plain containers: ``dataset``, ``split``, and optionally ``valid_path``, ``test_path``.

    Raises:
        DataError: unreadable data, or a geometry in two parts.
        ConfigError: a split that does not fit.
    """
    dataset = load_dataset(config)
    rule = dict(config.get("split") or {})
    split = dict(rule)
    allow = split.pop("allow_duplicates", False)
    unknown = [key for key in split if key not in _SPLIT_KEYS]
    if unknown:
        raise ConfigError(f"data.split has no setting '{unknown[0]}'.{did_you_mean(unknown[0], _SPLIT_KEYS)}")
    files = {name: config.get(f"{name}_path") for name in ("valid", "test")}
    parts = _divide(dataset, split, {name: path for name, path in files.items() if path is not None})
    indices: dict[str, list[int] | str] = {name: [int(index) for index in parts[name]] for name in PARTS}
    samples = {name: Subset(dataset, parts[name]) for name in PARTS}
    for name, path in files.items():
        if path is not None:
            samples[name] = as_subset(load_dataset(config, path))
            indices[name] = f"all of {path}"
    check_duplicates(samples, allow)
    return Parts(
        **samples,
        indices=indices,
        isolated=dataset.isolated_atom_energies(),
        provides=tuple(dataset.provides),
        citation=dataset.citation,
        licence=dataset.licence,
        rule=rule,
    )


def _divide(dataset: Dataset, split: dict[str, Any], files: Mapping[str, Any]) -> dict[str, Sequence[int]]:
    """Return the indices of each part by the rule of the configuration."""
    official, by = split.pop("official", None), split.pop("by", "random")
    if by not in ("random", "group"):
        raise ConfigError(
            f"data.split.by must be random or group, got {by!r}.{did_you_mean(str(by), ('random', 'group'))}"
        )
    if official is not None:
        if files:
            raise ConfigError(f"data.split.official divides one data set: leave {next(iter(files))}_path out.")
        parts = dataset.official_split(official)
        return {name: parts.get(name, ()) for name in PARTS}
    for name in files:
        split[name] = 0
    if "valid" in files:
        test = split.get("test", 0)
        split["train"] = 1.0 - test if isinstance(test, float) else (len(dataset) - test if test else 1.0)
    if by == "random" or not any(isinstance(split.get(name), int | float) and split[name] for name in PARTS):
        return split_indices(len(dataset), **split)
    groups = dataset.groups()
    if groups is None:
        raise ConfigError("data.split.by=group needs a group for every structure, these data have none: use by=random.")
    return group_split(groups, **split)
