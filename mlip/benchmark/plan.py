"""What is measured, and how: everything that must be equal for two numbers to be comparable."""

from dataclasses import dataclass
from typing import Any

import torch

OPERATORS = ("interaction", "convolution", "many-body")
"""``interaction``: features with features, channel by channel or in another mode. ``convolution``: features with
the spherical harmonics of a direction, mode ``uvu``, weights of every row. ``many-body``: powers of the features."""

PASSES = ("forward", "backward", "double-backward")
"""``backward``: forward and the gradients of all inputs. ``double-backward``: forward, those gradients, and the
gradients of a function of them, as in training on forces."""

BASELINE = "e3nn"
"""Name of the same product computed by e3nn, in every round."""


@dataclass(frozen=True)
class Plan:
    """Size and protocol of a run.

    Attributes:
        operator, mode, weights: the operation; ``weights`` is ``none`` (fixed coefficients) or ``free``.
        channels, rows: size.
        correlation: highest power, many-body products only.
        truncated: outputs up to the degree of the inputs, as the layers of a model keep; else up to the sum.
        antisymmetric: outputs of both parities.
        dtype, device, threads: where and in what.
        kernels: of the backends that have any, see :data:`mlip.ops.kernels.choice.Kernels`.
        passes: see ``PASSES``.
        rounds, round_seconds, warmup: protocol of the timing: turns of every candidate, length of a turn (0 for
            one call a turn), calls before the first turn.
        max_memory: bytes a call may hold; what would need more is left out.
    """

    operator: str = "interaction"
    mode: str = "uuu"
    weights: str = "none"
    channels: int = 64
    rows: int = 1000
    correlation: int = 3
    truncated: bool = True
    antisymmetric: bool = False
    dtype: str = "float32"
    device: str = "cpu"
    threads: int = 1
    kernels: str = "auto"
    passes: tuple[str, ...] = PASSES
    rounds: int = 7
    round_seconds: float = 0.05
    warmup: int = 2
    max_memory: float = 4e9

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype as an object."""
        return getattr(torch, self.dtype)

    def record(self) -> dict[str, Any]:
        """Return the plan as JSON can hold it."""
        return {**self.__dict__, "passes": list(self.passes)}
