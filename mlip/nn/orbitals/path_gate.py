"""The sparse gate of tensor-product paths: random, then adaptive, then fixed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mlip.core.errors import ConfigError
from mlip.core.numbers import is_whole


class PathGate(nn.Module):
    """Keep the share 1 - sparsity of the paths with the largest learned weights ω (SPHNet, arXiv 2502.01171).

    1. *random*, the first steps: in training every forward draws its paths;
    2. *adaptive*: those with the largest ω at the moment;
    3. *fixed*: those with the largest ω when this phase began, for good. ω does not change any more.

    A path that is kept is multiplied by ω over the mean ω of the kept ones. Outside of training, before the third phase,
    all paths are kept. Steps are those of the optimiser: validations do not count.

    Args:
        num_paths: paths of the product.
        sparsity: share of the paths that are left out, 0 <= sparsity < 1.
        random_steps, adaptive_steps: steps of the first two phases.

    Raises:
        ConfigError: no such share, or steps that are no whole numbers.
    """

    def __init__(
        self, num_paths: int, sparsity: float = 0.7, random_steps: int = 2000, adaptive_steps: int = 1000
    ) -> None:
        super().__init__()
        if isinstance(sparsity, bool) or not isinstance(sparsity, int | float) or not 0 <= sparsity < 1:
            raise ConfigError(f"sparsity is the share of paths to leave out, from 0 to below 1, got {sparsity!r}.")
        for name, steps in (("random_steps", random_steps), ("adaptive_steps", adaptive_steps)):
            if not is_whole(steps) or steps < 0:
                raise ConfigError(f"{name} must be a whole number of steps, got {steps!r}.")
        self.num_kept = num_paths - int(sparsity * num_paths)
        self.random_steps, self.adaptive_steps = int(random_steps), int(adaptive_steps)
        self.strengths = nn.Parameter(torch.ones(num_paths))
        self.register_buffer("step", torch.zeros((), dtype=torch.long))
        self.register_buffer("fixed", torch.zeros(num_paths, dtype=torch.bool))

    def begin_step(self, step: int) -> None:
        """Note the step of the training, counted from 0, and fix the paths when it is time."""
        self.step.fill_(step)
        if step >= self.random_steps + self.adaptive_steps and not bool(self.fixed.any()):
            self.fixed[self._best()] = True

    @property
    def is_fixed(self) -> bool:
        """Whether the paths are chosen for good."""
        return bool(self.fixed.any())

    def kept(self) -> Tensor:
        """Return the indices of the paths to compute now, ascending; random in training during the first phase."""
        if self.is_fixed:
            return self.fixed.nonzero()[:, 0]
        if not self.training:
            return torch.arange(len(self.strengths), device=self.strengths.device)
        if int(self.step) < self.random_steps:
            drawn = torch.randperm(len(self.strengths), device=self.strengths.device)[: self.num_kept]
            return drawn.sort().values
        return self._best()

    def scales(self, kept: Tensor) -> Tensor:
        """Return the factors of the kept paths."""
        strengths = self.strengths[kept]
        if self.is_fixed:
            strengths = strengths.detach()
        return strengths / strengths.mean()

    def _best(self) -> Tensor:
        return self.strengths.detach().topk(self.num_kept).indices.sort().values
