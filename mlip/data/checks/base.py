"""What a check is: it sees every structure once, and says at the end what it found."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from mlip.data.checks.frame import Frame
    from mlip.data.checks.table import FrameTable

Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note")
EXAMPLES = 5
"""Structures that a finding names."""


@dataclass(frozen=True)
class Finding:
    """Something about the data that the user should know before a training.

    Attributes:
        level: ``error``: the labels or structures are wrong, do not train; ``warning``: probably wrong, look at it;
            ``note``: not wrong, but worth knowing.
        check: name of the check.
        message: what was found, one sentence.
        advice: what to do, one sentence.
        count: structures that it is about, 0 if it is about the set as a whole.
        examples: where the first of them are.
    """

    level: Level
    check: str
    message: str
    advice: str = ""
    count: int = 0
    examples: Sequence[str] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self) | {"examples": list(self.examples)}


@dataclass(frozen=True)
class Settings:
    """What all checks may ask for.

    Attributes:
        cutoff: Å, of the graphs that will be trained on.
        split: the ``split`` section of the ``data`` configuration; None if there is none.
        complete: whether every structure of the data is seen, not a sample of them.
        units: of the files, as the data set states them.
        official_split: `Dataset.official_split` of the data set; None if it is not at hand.
    """

    cutoff: float = 5.0
    split: Mapping[str, Any] | None = None
    complete: bool = True
    units: Mapping[str, str] = field(default_factory=dict)
    official_split: Callable[[str], Mapping[str, Sequence[int]]] | None = None


class Check(ABC):
    """One kind of mistake. A new one is one more file in this folder with a subclass.

    Attributes:
        name: short, as users see it and as ``--skip`` takes it.
    """

    name: ClassVar[str]

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def update(self, frame: Frame) -> None:  # noqa: B027 (a check may look at the table alone)
        """Look at one structure; keep only what does not grow with their number."""

    @abstractmethod
    def findings(self, table: FrameTable) -> Iterator[Finding]:
        """Say what was found, after all structures.

        Args:
            table: a few numbers of every structure.
        """

    def passed(self) -> str | None:
        """Say, after `findings`, what was confirmed by evidence in the data; None for nothing."""
        return None

    def finding(self, level: Level, message: str, advice: str = "", seen: Seen | None = None) -> Finding:
        """Return a finding of this check, optionally about the structures in ``seen``."""
        return Finding(level, self.name, message, advice, *((seen.count, tuple(seen.examples)) if seen else ()))


class Seen:
    """Counts structures and remembers the first few."""

    def __init__(self) -> None:
        self.count = 0
        self.examples: list[str] = []

    def add(self, source: str) -> None:
        """Count a structure."""
        self.count += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(source)

    def __bool__(self) -> bool:
        return self.count > 0


def worse_first(findings: Sequence[Finding]) -> list[Finding]:
    """Return errors, then warnings, then notes, each in the order found."""
    return sorted(findings, key=lambda finding: LEVELS.index(finding.level))


_ONE = {"have": "has", "are": "is", "fill": "fills"}


def structures(number: int, verb: str = "") -> str:
    """Return "1 structure" or "7 structures", with a verb if it is given for several.

    >>> structures(1, "have")
    '1 structure has'
    """
    words = [f"{number:,}".replace(",", " "), "structure" if number == 1 else "structures"]
    return " ".join([*words, _ONE[verb] if number == 1 and verb else verb]).rstrip()
