"""The model of a screening as workers get it: by the path of its file, never as an object."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol, Self

from mlip.calculators.ase import MLIPCalculator
from mlip.core.errors import ModelFileError
from mlip.core.memory import keep_freed_memory
from mlip.models.names import existing_model
from mlip.simulate.journal import hash_of_models


class ModelSource(Protocol):
    """Where workers get the calculator from: small, picklable and hashable, since a worker keeps what it opened."""

    def open(self) -> MLIPCalculator:
        """Return the calculator.

        Raises:
            MlipError: it cannot be had.
        """
        ...


@dataclass(frozen=True)
class ModelFiles:
    """Model files and how to open them.

    Attributes:
        paths: absolute; several are a committee.
        digest: of the files, which is compared where they are opened.
        device, dtype, skin, charge, spin, kernels: of :class:`mlip.calculators.ase.MLIPCalculator`.
    """

    paths: tuple[str, ...]
    digest: str
    device: str = "cpu"
    dtype: str | None = None
    skin: float = 0.5
    charge: int | None = None
    spin: int | None = None
    kernels: Any = None

    @classmethod
    def of(cls, models: Sequence[str | os.PathLike[str]], **settings: Any) -> Self:
        """Return the source of models given by paths or names.

        Raises:
            ModelFileError: there is no such model.
        """
        paths = tuple(str(existing_model(model).resolve()) for model in models)
        return cls(paths, hash_of_models(paths), **settings)

    def open(self) -> MLIPCalculator:
        """Load the models.

        Raises:
            ModelFileError: a file is not there, or is another one than where the screening began.
            ConfigError: see :class:`mlip.calculators.ase.MLIPCalculator`.
        """
        if hash_of_models(self.paths) != self.digest:
            raise ModelFileError(
                f"The model {' '.join(self.paths)} of a worker is another one than where the screening began: give all "
                "machines the same file."
            )
        return MLIPCalculator(
            list(self.paths), device=self.device, dtype=self.dtype, skin=self.skin, charge=self.charge, spin=self.spin,
            kernels=self.kernels,
        )  # fmt: skip


@lru_cache(maxsize=1)
def opened(source: ModelSource) -> MLIPCalculator:
    """Return the calculator of a worker, which is opened once."""
    keep_freed_memory()
    return source.open()
