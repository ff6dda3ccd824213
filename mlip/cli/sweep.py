"""Settings with several values, in Hydra's syntax, and the runs that their combinations make."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import product
from math import ceil, prod
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override, Quote, QuotedString, RangeSweep
from hydra.errors import HydraException

from mlip.cli.config_dir import config_dir
from mlip.core.errors import ConfigError

LONGEST_LABEL = 32
LONGEST_NAME = 120
MOST_JOBS = 10_000
"""More combinations than anybody trains: a slip of the keyboard."""


@dataclass(frozen=True)
class Job:
    """One run of a sweep.

    Attributes:
        name: of its folder, made of what is swept: the same values give the same name in any sweep.
        overrides: one value for every setting.
    """

    name: str
    overrides: tuple[str, ...]


def expand(overrides: Sequence[str], extra_dir: Path | None = None) -> list[Job]:
    """Return all combinations of ``key=a,b``, ``range(0,3)``, ``choice(a,b)`` and ``group=glob(*)``.

    Args:
        overrides: in Hydra's syntax.
        extra_dir: a folder of the user's own groups.

    Returns:
        Jobs in the order in which nested loops make them, the last setting changing fastest.

    Raises:
        ConfigError: nothing is swept, a setting is given twice, or the syntax is wrong.
    """
    parsed = [_parse(text) for text in overrides]
    keys = Counter(override.get_key_element().lstrip("+") for override in parsed)
    swept = [override for override in parsed if override.is_sweep_override()]
    for override in swept:
        if keys[override.get_key_element().lstrip("+")] > 1:
            raise ConfigError(f"'{override.key_or_group}' is given twice, once as '{override.input_line}'.")
        if override.key_or_group in ("name", "run_dir"):
            raise ConfigError(
                f"'{override.key_or_group}' cannot have several values: all runs of a sweep lie in one folder, "
                "each named after its own values."
            )
    if not swept:
        raise ConfigError("No setting has several values: write e.g. seed=0,1, or leave -m out.")
    values = {id(override): _values(override, extra_dir) for override in swept}
    _check_count(prod(len(found) for found in values.values()))
    labels = [_labels(override, values[id(override)], swept) for override in swept]
    # What has one value is passed on as it was written.
    choices = [values.get(id(override), [override.input_line]) for override in parsed]
    names = [_name(parts) for parts in product(*labels)]
    return [Job(name, chosen) for name, chosen in zip(names, product(*choices), strict=True)]


def quote(text: str) -> str:
    """Return a text as a value of an override, whatever characters it has."""
    return QuotedString(text, Quote.single).with_quotes()


def _parse(text: str) -> Override:
    if "=" not in text and not text.startswith("~"):
        raise ConfigError(f"'{text}' is not an override; write key=value, e.g. cutoff=5.0 or seed=0,1.")
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException as error:
        reason = str(error).strip().splitlines()[0].split(" expecting ")[0].rstrip(".")
        raise ConfigError(f"'{text}' is no valid override: {reason}. Quote values with special characters.") from error


def _values(override: Override, extra_dir: Path | None) -> list[str]:
    """Return ``key=value`` for each value of a sweep."""
    found = override.value()
    if not override.is_discrete_sweep():
        raise ConfigError(f"'{override.input_line}' lists no values; write choice(a,b) or range(start,stop,step).")
    if isinstance(found, Glob):
        options = _options(override.key_or_group, extra_dir)
        values = found.filter(options)
        if not values:
            raise ConfigError(f"'{override.input_line}' fits none of: {', '.join(options) or 'no such group'}.")
    elif isinstance(found, RangeSweep):
        values = [str(value) for value in _range(found, override)]
    else:
        values = list(override.sweep_string_iterator())
    if not values:
        raise ConfigError(f"'{override.input_line}' has no value at all.")
    repeated = [value for value, number in Counter(values).items() if number > 1]
    if repeated:
        raise ConfigError(f"'{override.input_line}' has the value {repeated[0]} more than once.")
    return [f"{override.get_key_element()}={value}" for value in values]


def _range(sweep: RangeSweep, override: Override) -> list[Decimal]:
    """Return the numbers of a range in decimal arithmetic: binary steps give range(0,0.9,0.3) a fourth value, 0.9."""
    start, stop, step = (Decimal(str(number)) for number in (sweep.start, sweep.stop, sweep.step))
    if not step:
        raise ConfigError(f"'{override.input_line}' has a step of zero.")
    count = ceil((stop - start) / step)
    _check_count(count)
    return [start + k * step for k in range(count)]


def _check_count(count: int) -> None:
    if count > MOST_JOBS:
        raise ConfigError(f"The sweep has {count:,} runs, at most {MOST_JOBS:,} are possible.")


def _options(group: str, extra_dir: Path | None) -> list[str]:
    folders = [config_dir() / group] + ([extra_dir / group] if extra_dir else [])
    return sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})


def _labels(override: Override, choices: list[str], swept: list[Override]) -> list[str]:
    """Return ``key-value`` for file names: the end of the key that no other one has, and short distinct values."""
    parts = re.split(r"[./]", override.key_or_group)
    others = [re.split(r"[./]", other.key_or_group) for other in swept if other is not override]
    length = next((n for n in range(1, len(parts)) if all(other[-n:] != parts[-n:] for other in others)), len(parts))
    values = [choice.split("=", 1)[1] for choice in choices]
    labels = [re.sub(r"[^\w.+-]+", "-", value.strip("'\"[]{} ./")) for value in values]
    # Some file systems do not tell A from a.
    same = Counter(label.lower() for label in labels)
    return [
        f"{'.'.join(parts[-length:])}-{label}"
        if label and same[label.lower()] == 1 and len(label) <= LONGEST_LABEL
        else f"{'.'.join(parts[-length:])}-{label[: LONGEST_LABEL - 9]}-{_digest(value)}"
        for label, value in zip(labels, values, strict=True)
    ]


def _name(labels: Sequence[str]) -> str:
    name = "_".join(labels)
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 9]}-{_digest(name)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
