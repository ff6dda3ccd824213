"""Functions of an error: how much an outlier counts."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from mlip.core.errors import ConfigError


class Penalty(nn.Module, ABC):
    """An even, non-negative function of the error that is zero at zero."""

    @abstractmethod
    def forward(self, errors: Tensor) -> Tensor:
        """Apply to every entry."""


class L1(Penalty):
    """``|x|``."""

    def forward(self, errors: Tensor) -> Tensor:
        return errors.abs()


class L2(Penalty):
    """``x²``."""

    def forward(self, errors: Tensor) -> Tensor:
        return errors.square()


class Huber(Penalty):
    """``x²/2`` for |x| < δ and ``δ (|x| - δ/2)`` beyond.

    Args:
        delta: δ in the unit of the error.
    """

    def __init__(self, delta: float = 0.01) -> None:
        super().__init__()
        if not delta > 0:
            raise ConfigError(f"Huber needs delta > 0 in the unit of the error, got {delta}.")
        self.delta = float(delta)

    def forward(self, errors: Tensor) -> Tensor:
        return nn.functional.huber_loss(errors, errors.new_zeros(errors.shape), reduction="none", delta=self.delta)


class L1L2(Penalty):
    """``|x| + x²``: of Hamiltonians in Hartree (QHNet, arXiv 2306.04922). The square counts for errors near 1."""

    def forward(self, errors: Tensor) -> Tensor:
        return errors.abs() + errors.square()
