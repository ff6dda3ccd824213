"""Training, validation and test parts of a data set, as plain lists of indices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TypeAlias

import numpy as np

from mlip.core.errors import ConfigError, DataError

Part: TypeAlias = int | float | Sequence[int] | str | PathLike[str] | None
"""A count, a fraction, a list of indices, or a text file with one index a line."""

PARTS = ("train", "valid", "test")


def split_indices(
    num_samples: int, train: Part, valid: Part = 0, test: Part = 0, seed: int = 0
) -> dict[str, list[int]]:
    """Split ``range(num_samples)``.

    Counts (``450``) and fractions (``0.9``) are drawn without overlap from a permutation of the samples that
    depends on the seed alone; lists of indices and index files are taken as they are. The two ways cannot be
    mixed.

    Returns:
        ``{"train": […], "valid": […], "test": […]}``.

    Raises:
        ConfigError: more samples are asked for than there are, an empty training part, or a value that is no
            part.
        DataError: listed indices that overlap, repeat, or are outside the data set.
    """
    parts = {"train": train, "valid": valid, "test": test}
    if are_listed(parts):
        split = {name: _listed(name, None if _is_number(part) else part, num_samples) for name, part in parts.items()}
        check_disjoint(split)
    else:
        counts = part_counts(num_samples, parts)
        order = np.random.default_rng(seed).permutation(num_samples)
        cuts = np.cumsum([0, *counts.values()])
        split = {name: np.sort(order[cuts[k] : cuts[k + 1]]).tolist() for k, name in enumerate(PARTS)}
    if not split["train"]:
        raise ConfigError(f"The training part is empty: train={train!r} of {num_samples} samples.")
    return split


def group_split(
    groups: Sequence[str], train: Part, valid: Part = 0, test: Part = 0, seed: int = 0
) -> dict[str, list[int]]:
    """Split samples so that those of one group (one material, one trajectory) are in one part.

    Which groups are drawn depends on their names, their sizes and the seed, not on the order of the samples. A part
    gets groups from a permutation while they fit, and then the one that brings it nearest to its number of samples;
    a part that is asked for gets one group at least. Lists of indices and index files are taken as they are, and
    checked.

    Args:
        groups: (samples,) the group of every sample.
        train, valid, test: as in `split_indices`, in samples. Parts that add up to all samples use every group.
        seed: of the permutation.

    Raises:
        ConfigError: as `split_indices`, or there are fewer groups than parts.
        DataError: a sample without a group, or listed parts that share a group.
    """
    parts = {"train": train, "valid": valid, "test": test}
    names, which = _unique_groups(groups)
    if are_listed(parts):
        split = split_indices(len(groups), train, valid, test)
        _check_groups_apart(split, names, which)
        return split
    counts = part_counts(len(groups), parts)
    if not counts["train"]:
        raise ConfigError(f"The training part is empty: train={train!r} of {len(groups)} samples.")
    wanted = [name for name in PARTS if counts[name]]
    if len(names) < len(wanted):
        raise ConfigError(f"{len(names)} groups cannot be split into {', '.join(wanted)}: one group is never divided.")
    order = np.random.default_rng(seed).permutation(len(names))
    sizes = np.bincount(which, minlength=len(names))
    owner = np.full(len(names), -1)
    # The test part is drawn first, so that it stays the same when the others change.
    for name in reversed(wanted):
        free = order[owner[order] < 0]
        if name == "train" and sum(counts.values()) == len(groups):
            chosen = free
        else:
            chosen = free[_nearest_sum(sizes[free], counts[name], len(free) - wanted.index(name))]
        owner[chosen] = PARTS.index(name)
    return {name: np.flatnonzero(owner[which] == k).tolist() for k, name in enumerate(PARTS)}


def size_split(sizes: Sequence[int], train: Part, valid: Part = 0, test: Part = 0) -> dict[str, list[int]]:
    """Split by size: the smallest structures train, the largest test. Structures of one size are in one part.

    Args:
        sizes: (samples,) atoms of each sample.
        train, valid, test: fractions that add up to one, or counts that add up to all samples; met as nearly as the
            sizes allow.

    Raises:
        ConfigError: parts that leave samples over, or fewer sizes than parts.
    """
    counts = part_counts(len(sizes), {"train": train, "valid": valid, "test": test})
    if sum(counts.values()) != len(sizes) or not counts["train"]:
        raise ConfigError(
            f"A split by size uses every structure: train, valid and test must add up to 1 or to {len(sizes)}, "
            f"got {train}, {valid} and {test}."
        )
    wanted = [name for name in PARTS if counts[name]]
    values, frequency = np.unique(np.asarray(sizes), return_counts=True)
    if len(values) < len(wanted):
        raise ConfigError(
            f"{len(values)} different sizes cannot be split into {', '.join(wanted)}: one size is never divided."
        )
    ends = np.cumsum(frequency)
    cuts, target = [-1], 0
    for k, name in enumerate(wanted[:-1], start=1):
        target += counts[name]
        allowed = np.arange(cuts[-1] + 1, len(values) - (len(wanted) - k))
        cuts.append(int(allowed[np.abs(ends[allowed] - target).argmin()]))
    limits = dict.fromkeys(PARTS, -1)
    limits |= dict(zip(wanted, [int(values[cut]) for cut in (*cuts[1:], len(values) - 1)]))
    return split_at_sizes(sizes, limits["train"], limits["valid"])


def split_at_sizes(sizes: Sequence[int], max_train: int, max_valid: int) -> dict[str, list[int]]:
    """Split at two sizes: up to ``max_train`` atoms train, up to ``max_valid`` validate, larger ones test.

    Raises:
        ConfigError: nothing to train on.
    """
    array = np.asarray(sizes)
    train, valid = array <= max_train, (array > max_train) & (array <= max_valid)
    if not train.any():
        raise ConfigError(f"No structure has at most {max_train} atoms, so the training part is empty.")
    chosen = dict(zip(PARTS, (train, valid, ~train & ~valid)))
    return {name: np.flatnonzero(mask).tolist() for name, mask in chosen.items()}


def are_listed(parts: Mapping[str, Part]) -> bool:
    """Whether the parts are lists of indices or files of them, rather than counts and fractions.

    Raises:
        ConfigError: some are, some are not.
    """
    drawn = {name: part for name, part in parts.items() if _is_number(part)}
    listed = [name for name, part in parts.items() if name not in drawn and part is not None]
    if listed and any(part != 0 for part in drawn.values()):
        raise ConfigError(
            f"Split parts must all be counts or fractions, or all be lists: {', '.join(listed)} is listed, "
            f"{', '.join(name for name, part in drawn.items() if part != 0)} is not."
        )
    return bool(listed)


def part_counts(num_samples: int, parts: Mapping[str, Part]) -> dict[str, int]:
    """Return the number of samples of each part, from counts and fractions.

    Raises:
        ConfigError: negative numbers, fractions above one, or more samples than there are.
    """
    values = {name: part if _is_number(part) else 0 for name, part in parts.items()}
    counts = {name: _count(name, part, num_samples) for name, part in values.items()}  # type: ignore[arg-type]
    # Fractions that add up to one leave nothing over through rounding.
    fractions = all(isinstance(part, float) or part == 0 for part in values.values())
    if fractions and abs(sum(values.values()) - 1) < 1e-9:  # type: ignore[arg-type]
        counts["train"] += num_samples - sum(counts.values())
    if sum(counts.values()) > num_samples:
        wanted = ", ".join(f"{name}={count}" for name, count in counts.items())
        raise ConfigError(f"The split asks for more samples than the data set has: {wanted} of {num_samples}.")
    return counts


def _is_number(part: Part) -> bool:
    return isinstance(part, int | float) and not isinstance(part, bool)


def _count(name: str, part: int | float, num_samples: int) -> int:
    if isinstance(part, float) and not 0.0 <= part <= 1.0:
        raise ConfigError(f"{name} must be a fraction from 0 to 1 or a whole number of samples, got {part}.")
    if part < 0:
        raise ConfigError(f"{name} must not be negative, got {part}.")
    # Python floats such as 0.29 · 100 = 28.999…96 must not lose a sample.
    return int(part * num_samples + 1e-9) if isinstance(part, float) else part


def _unique_groups(groups: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Return the sorted names of groups, and (samples,) which of them each sample is in."""
    known = {group: 0 for group in groups}
    for group in known:
        if not isinstance(group, str) or not group:
            raise DataError(
                f"Sample {list(groups).index(group)} has no group. Every sample needs one for a split by group; "
                "use split.by: random where there are none."
            )
    names = sorted(known)
    known = {name: number for number, name in enumerate(names)}
    return names, np.fromiter((known[group] for group in groups), dtype=np.int64, count=len(groups))


def _nearest_sum(sizes: np.ndarray, target: int, most: int) -> np.ndarray:
    """Return positions of 1 to ``most`` sizes with a sum near ``target``: the first ones and one that fills the gap."""
    ends = np.cumsum(sizes)
    number = min(int(np.searchsorted(ends, target, side="right")), most)
    gap = target - (int(ends[number - 1]) if number else 0)
    chosen = np.arange(number)
    if number < most and gap > 0:
        filler = number + int(np.abs(sizes[number:] - gap).argmin())
        if number == 0 or abs(int(sizes[filler]) - gap) < gap:
            chosen = np.append(chosen, filler)
    return chosen


def _check_groups_apart(split: Mapping[str, Sequence[int]], names: Sequence[str], which: np.ndarray) -> None:
    owner: dict[int, str] = {}
    for part, indices in split.items():
        for group in np.unique(which[np.asarray(indices, dtype=np.int64)]).tolist():
            if owner.setdefault(group, part) != part:
                raise DataError(f"The group '{names[group]}' is in two parts, {owner[group]} and {part}.")


def _listed(name: str, part: Part, num_samples: int) -> list[int]:
    if part is None:
        return []
    if not isinstance(part, str | PathLike | Sequence | np.ndarray):
        raise ConfigError(f"{name} must be a count, a fraction, a list of indices or a file of them, got {part!r}.")
    indices = _read_indices(Path(part)) if isinstance(part, str | PathLike) else list(part)  # type: ignore[arg-type]
    wrong = [i for i in indices if not isinstance(i, int | np.integer) or not 0 <= i < num_samples]
    if wrong:
        raise DataError(
            f"The {name} part lists {wrong[0]!r}, which is no sample: indices go from 0 to {num_samples - 1}."
        )
    return [int(index) for index in indices]


def _read_indices(path: Path) -> list[int]:
    try:
        return [int(word) for word in path.expanduser().read_text(encoding="utf-8").split()]
    except OSError as error:
        raise DataError(f"Cannot read the index file '{path}': {error.strerror or error}.") from error
    except ValueError as error:
        raise DataError(f"The index file '{path}' must hold whole numbers only: {error}.") from error


def check_disjoint(split: Mapping[str, Sequence[int]]) -> None:
    """Refuse a sample that is listed twice, in one part or in two.

    Raises:
        DataError: names the sample and the parts.
    """
    owner: dict[int, str] = {}
    for name, indices in split.items():
        for index in indices:
            if index in owner:
                raise DataError(f"Sample {index} is listed twice: in {owner[index]} and in {name}.")
            owner[index] = name
