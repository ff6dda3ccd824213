"""What is done with every structure: the interface of tasks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Self

from ase import Atoms

from mlip.calculators.ase import MLIPCalculator
from mlip.core.errors import ConfigError, did_you_mean
from mlip.simulate.screening.record import DONE, FAILED, Column, ScreenRecord


@dataclass(frozen=True)
class Item:
    """A structure to work on.

    Attributes:
        number: place in the input, from 0.
        name: for the user.
        atoms: with charge and spin in ``info`` where the model reads them.
    """

    number: int
    name: str
    atoms: Atoms

    def failed(self, error: str, seconds: float | None = None, status: str = FAILED) -> ScreenRecord:
        """Return the record of this structure if it could not be done."""
        formula = self.atoms.get_chemical_formula()
        return ScreenRecord(self.number, self.name, status, formula, len(self.atoms), seconds, error=error)

    def done(
        self, values: Mapping[str, Any], structure: Atoms | None, seconds: float, warnings: Iterable[str] = ()
    ) -> ScreenRecord:
        """Return the record of this structure with what a task found."""
        formula = self.atoms.get_chemical_formula()
        return ScreenRecord(
            self.number, self.name, DONE, formula, len(self.atoms), seconds, values, structure, " ".join(warnings)
        )


@dataclass(frozen=True)
class ScreeningTask(ABC):
    """A task: a frozen dataclass whose fields are its options, with checks in ``__post_init__``.

    Class attributes:
        name: on the command line.
        columns: what it finds.
        dtype: of the model unless the user chooses; None for the model's own.
        highlights: columns of the plot, at most three.
    """

    name: ClassVar[str]
    columns: ClassVar[Mapping[str, Column]]
    dtype: ClassVar[str | None] = None
    highlights: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """Return the task with options by name.

        Raises:
            ConfigError: an option that it does not have, or that makes no sense.
        """
        known = [field.name for field in fields(cls)]
        for name in options:
            if name not in known:
                raise ConfigError(
                    f"The task {cls.name} has no option '{name}'.{did_you_mean(name, known)} It has {', '.join(known)}."
                )
        return cls(**options)

    def options(self) -> dict[str, Any]:
        """Return the options by name, ready for JSON."""
        return asdict(self)

    def check(self) -> None:  # noqa: B027 - most tasks have nothing to check.
        """Raise `ConfigError` if something that the task needs is not installed."""

    @abstractmethod
    def run(self, items: Iterable[Item], calculator: MLIPCalculator, batch_atoms: int) -> Iterator[ScreenRecord]:
        """Work on structures.

        Args:
            items: to be read one by one, each not before its work begins: if the worker dies, those that were read
                and have no record are suspected.
            calculator: of the model.
            batch_atoms: to evaluate at once.

        Yields:
            A record for each item, as they end; an error of one structure is a record, too.
        """
