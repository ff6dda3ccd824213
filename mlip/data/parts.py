"""The training, validation and test structures that a ``data`` configuration describes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlip.core.build import build
from mlip.core.errors import ConfigError, did_you_mean
from mlip.data.content_hash import combined_hash
from mlip.data.datasets.base import Dataset, Progress
from mlip.data.graphs.base import GraphBuilder
from mlip.data.leakage import check_duplicates
from mlip.data.splits import PARTS, group_split, split_indices
from mlip.data.statistics import Progress as Counted
from mlip.data.statistics import cached_statistics
from mlip.data.subset import Subset, as_subset

_KEYS = ("dataset", "path", "valid_path", "test_path", "split")
_RULES = ("random", "group", "auto")
_SPLIT_KEYS = (*PARTS, "seed", "by", "official")

LISTED = 20_000
"""Samples up to which a model's card lists them one by one."""


@dataclass(frozen=True)
class Parts:
    """Samples by purpose, and where they come from.

    Attributes:
        train, valid, test: samples, disjoint.
        indices: which samples of the data set each part is, (samples,) int64; parts read from files of their own say
            so.
        isolated: energies of isolated atoms by symbol, eV.
        provides: labels that every sample has, of the files that train and validate.
        citation, licence: of the data set.
        rule: how the parts were made, plain values.
    """

    train: Subset
    valid: Subset
    test: Subset
    indices: dict[str, np.ndarray | str]
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
            return {name: part if isinstance(part, str) else part.tolist() for name, part in self.indices.items()}
        hashes = {
            name: part if isinstance(part, str) else {"structures": len(part), "sha256_of_indices": combined_hash(part)}
            for name, part in self.indices.items()
        }
        return {"rule": dict(self.rule), **hashes}

    def statistics(
        self,
        graph: GraphBuilder | float,
        atomic_energy_source: str = "auto",
        regularisation: float = 0.0,
        progress: Counted | None = None,
    ) -> dict[str, Any]:
        """Return the statistics of the training part, see :func:`mlip.data.statistics.compute_statistics`."""
        return cached_statistics(
            self.train, graph, self.isolated, atomic_energy_source, progress, regularisation=regularisation
        )


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


def load_parts(config: Mapping[str, Any], progress: Progress | None = None) -> Parts:
    """Read and split the data.

    A part with a file of its own (``valid_path``, ``test_path``) is all of that file; with ``valid_path``
    all of ``path`` that is not for testing trains. Otherwise ``split`` divides ``path``: at random, whole groups at a
    time (``by: group``), or as published (``official: NAME``).

    Args:
        config: plain containers: ``dataset``, ``split``, and optionally ``valid_path``, ``test_path``.
        progress: of reading files into memory, see `Dataset.load`.

    Raises:
        DataError: unreadable data, or a geometry in two parts.
        ConfigError: a split that does not fit.
    """
    dataset = load_dataset(config)
    dataset.load(progress)
    rule = dict(config.get("split") or {})
    files = {name: config.get(f"{name}_path") for name in ("valid", "test")}
    own = {name: load_dataset(config, path) for name, path in files.items() if path is not None}
    for other in own.values():
        other.load(progress)
    parts = divide(rule, len(dataset), tuple(own), dataset.groups, dataset.official_split)
    samples = {name: Subset(dataset, parts[name]) for name in PARTS}
    indices: dict[str, np.ndarray | str] = {name: part.indices for name, part in samples.items()}
    for name, other in own.items():
        samples[name] = as_subset(other)
        indices[name] = f"all of {files[name]}"
    check_duplicates(samples, bool(rule.get("allow_duplicates", False)))
    return Parts(
        **samples,
        indices=indices,
        isolated=dataset.isolated_atom_energies(),
        provides=tuple(name for name in dataset.provides if "valid" not in own or name in own["valid"].provides),
        citation=dataset.citation,
        licence=dataset.licence,
        rule=rule,
    )


def divide(
    rule: Mapping[str, Any],
    num_samples: int,
    files: Collection[str],
    groups: Callable[[], Sequence[str] | None],
    official_split: Callable[[str], Mapping[str, Sequence[int]]],
) -> dict[str, Sequence[int]]:
    """Return the indices of each part by the ``split`` section of a configuration.

    Args:
        rule: the section; ``allow_duplicates`` is not looked at. ``by: auto`` is ``group`` where there are groups.
            Where an official split has no validation part, ``valid`` is drawn from its training part.
        num_samples: of ``path``.
        files: parts among ``valid`` and ``test`` that have a file of their own.
        groups: returns the group of every sample, or None; asked only if the rule needs it.
        official_split: as `Dataset.official_split`.

    Raises:
        ConfigError: an unknown setting, or a split that does not fit.
        DataError: as :mod:`mlip.data.splits`.
    """
    split = {key: value for key, value in rule.items() if key != "allow_duplicates"}
    unknown = [key for key in split if key not in _SPLIT_KEYS]
    if unknown:
        raise ConfigError(f"data.split has no setting '{unknown[0]}'.{did_you_mean(unknown[0], _SPLIT_KEYS)}")
    official, by = split.pop("official", None), split.pop("by", "random")
    if by not in _RULES:
        raise ConfigError(f"data.split.by must be {', '.join(_RULES)}, got {by!r}.{did_you_mean(str(by), _RULES)}")
    if official is not None:
        if files:
            raise ConfigError(f"data.split.official divides one data set: leave {next(iter(files))}_path out.")
        return _with_valid({name: official_split(official).get(name, ()) for name in PARTS}, split)
    split |= dict.fromkeys(files, 0)
    if "valid" in files:
        test = split.get("test") or 0
        # A list of test samples goes with a list of training samples.
        if isinstance(test, int | float):
            split["train"] = 1.0 - test if isinstance(test, float) or not test else num_samples - test
    if by == "random" or not any(isinstance(split.get(name), int | float) and split[name] for name in PARTS):
        return split_indices(num_samples, **split)
    known = groups()
    if known is None and by == "auto":
        return split_indices(num_samples, **split)
    if known is None:
        raise ConfigError("data.split.by=group needs a group for every structure, these data have none: use by=random.")
    return group_split(known, **split)


def _with_valid(parts: dict[str, Sequence[int]], rule: Mapping[str, Any]) -> dict[str, Sequence[int]]:
    """Draw a validation part from the training part of an official split that has none."""
    valid = rule.get("valid")
    if len(parts["valid"]) or not isinstance(valid, int | float) or not valid:
        return parts
    count = len(parts["train"])
    rest = 1.0 - valid if isinstance(valid, float) else count - valid
    drawn = split_indices(count, train=rest, valid=valid, seed=rule.get("seed", 0))
    return parts | {name: [parts["train"][k] for k in drawn[name]] for name in ("train", "valid")}
