"""Errors a user can act on.

Every message says what was expected, what came, and what to do. The command line prints them as one
sentence and exits with status 1; a traceback is kept for real defects.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class MlipError(Exception):
    """Base of all errors that are about the user's input rather than about a defect of the code."""


class ConfigError(MlipError):
    """A configuration asks for something that does not exist or cannot be built."""


class ShapeError(MlipError, ValueError):
    """A tensor does not have the shape that its consumer states."""


class DataError(MlipError):
    """A data set cannot be read, lacks labels, or holds values that cannot be right."""


class ModelFileError(MlipError):
    """A model file is truncated, of an unknown version, or not a model file."""


class CheckpointError(MlipError):
    """A training checkpoint is damaged or belongs to another run."""


class StructureError(MlipError):
    """A structure cannot be evaluated: unknown element, NaN positions, a periodic cell without volume."""


class SimulationError(MlipError):
    """A relaxation or an MD run cannot start or has left the range in which its numbers mean something."""


class SimulationInterrupted(SimulationError):
    """The user stopped a simulation; the message says how to go on."""


class TrainingError(MlipError):
    """Training cannot go on: the loss is not finite, or the disk is full."""


class TrainingInterrupted(MlipError):
    """The user stopped the training; the message says how to resume it."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the nearest known name, or an empty string.

    >>> did_you_mean("lmx", ["lmax", "cutoff"])
    " Did you mean 'lmax'?"
    """
    near = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean '{near[0]}'?" if near else ""
