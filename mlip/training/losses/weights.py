"""Loss weights that may change while training."""

from dataclasses import dataclass

from mlip.core.errors import ConfigError
from mlip.core.numbers import is_number


@dataclass(frozen=True)
class WeightSchedule:
    """``before`` until ``start``, then linearly to ``after`` at ``end`` (fractions of the training).

    ``start == end`` is a switch, as in a second stage that stresses energies.

    Attributes:
        before, after: weights, not negative.
        start, end: in [0, 1].
    """

    before: float
    after: float
    start: float = 0.75
    end: float = 0.75

    def __post_init__(self) -> None:
        if not all(is_number(weight) and weight >= 0 for weight in (self.before, self.after)):
            raise ConfigError(
                f"Loss weights are numbers that are not negative, got {self.before!r} and {self.after!r}."
            )
        if not is_number(self.start) or not is_number(self.end) or not 0 <= self.start <= self.end <= 1:
            raise ConfigError(f"A weight schedule needs 0 <= start <= end <= 1, got {self.start} and {self.end}.")

    def __call__(self, progress: float) -> float:
        """Return the weight at a fraction of the training in [0, 1]."""
        if progress < self.start:
            return self.before
        if progress >= self.end:
            return self.after
        return self.before + (self.after - self.before) * (progress - self.start) / (self.end - self.start)


def constant(weight: float) -> WeightSchedule:
    """Return a schedule that does not change."""
    return WeightSchedule(float(weight), float(weight))
