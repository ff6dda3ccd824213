"""The sparse gate of tensor-product paths: random, then adaptive, then fixed."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mlip.core.errors import ConfigError
from mlip.core.numbers import is_number, is_whole


class KeptPaths(NamedTuple):
    """What a gate lets through.

    Attributes:
        numbers: ``(kept,)`` of the paths to compute, ascending.
        scales: ``(kept,)`` what they are multiplied with.
    """

    numbers: Tensor
    scales: Tensor


class PathGate(nn.Module):
    """Keep the share 1 - sparsity of the paths with the largest learned weights ω (SPHNet, arXiv 2502.01171).

    1. *random*, the first steps: in training every step draws its paths, the same in all forwards of the step and in
       all processes; else all are there, and the product is the mean over the draws while the ω are equal;
    2. *adaptive*: those with the largest ω at the moment;
    3. *fixed*: those with the largest ω when this phase began, and their factors, for good.

    A path that is kept is multiplied by ω over the mean ω of the kept ones. Steps are those of the optimiser:
    validations do not count.

    Args:
        num_paths: paths of the product.
        sparsity: share of the paths that are left out, 0 <= sparsity < 1; at least one path is kept.
        random_steps, adaptive_steps: steps of the first two phases.

    Attributes:
        num_kept: paths that are kept.
        strengths: the ω.
        step: of the training.
        salt: what makes the draws of this gate its own.
        fixed: ``(num_paths,)`` the factors for good, 0 for paths that are left out; all 0 before the third phase.

    Raises:
        ConfigError: no such share, or steps that are no whole numbers.
    """

    def __init__(
        self, num_paths: int, sparsity: float = 0.7, random_steps: int = 2000, adaptive_steps: int = 1000
    ) -> None:
        super().__init__()
        if not is_number(sparsity) or not 0 <= sparsity < 1:
            raise ConfigError(f"sparsity is the share of paths to leave out, from 0 to below 1, got {sparsity!r}.")
        for name, steps in (("random_steps", random_steps), ("adaptive_steps", adaptive_steps)):
            if not is_whole(steps) or steps < 0:
                raise ConfigError(f"{name} must be a whole number of steps, got {steps!r}.")
        # 0.29 · 100 is 28.999… in floating point.
        self.num_kept = max(1, num_paths - int(sparsity * num_paths + 1e-9))
        self.random_steps, self.adaptive_steps = int(random_steps), int(adaptive_steps)
        self.strengths = nn.Parameter(torch.ones(num_paths))
        self.register_buffer("step", torch.zeros((), dtype=torch.long))
        self.register_buffer("salt", torch.randint(2**31, ()))
        self.register_buffer("fixed", torch.zeros(num_paths))

    def begin_step(self, step: int) -> None:
        """Note the step of the training, counted from 0, and fix the paths when it is time."""
        self.step.fill_(step)
        if step >= self.random_steps + self.adaptive_steps and not self.is_fixed:
            best = self._best()
            self.fixed[best] = self._relative(best).detach()

    @property
    def is_fixed(self) -> bool:
        """Whether the paths are chosen for good."""
        return bool(self.fixed.any())

    def forward(self) -> KeptPaths:
        """Return the paths to compute now, and their factors."""
        if self.is_fixed:
            kept = self.fixed.nonzero()[:, 0]
            # Nothing reads ω any more, but a parameter without a gradient breaks distributed training.
            return KeptPaths(kept, self.fixed[kept] + 0.0 * self.strengths.sum())
        if int(self.step) >= self.random_steps:
            best = self._best()
            return KeptPaths(best, self._relative(best))
        count, device = len(self.strengths), self.strengths.device
        if self.training:
            # Not from the global random state: a run with the same seed, or one that is resumed, draws the same.
            generator = torch.Generator().manual_seed(int(self.salt) * 1_000_003 + int(self.step))
            drawn = torch.randperm(count, generator=generator)[: self.num_kept].sort().values.to(device)
            return KeptPaths(drawn, self._relative(drawn))
        every = torch.arange(count, device=device)
        return KeptPaths(every, self._relative(every) * (self.num_kept / count))

    def _relative(self, kept: Tensor) -> Tensor:
        strengths = self.strengths[kept]
        return strengths / strengths.mean()

    def _best(self) -> Tensor:
        """Return the paths with the largest ω, ascending; of equal ones the first."""
        order = self.strengths.detach().argsort(descending=True, stable=True)
        return order[: self.num_kept].sort().values
