"""Optimisers; weight decay acts on matrices only, never on scales and shifts."""

import torch
from torch import nn
from torch.optim import Optimizer


def _groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


def adamw(
    model: nn.Module,
    lr: float = 0.005,
    weight_decay: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    amsgrad: bool = False,
) -> Optimizer:
    """AdamW (arXiv 1711.05101), with AMSGrad on request."""
    return torch.optim.AdamW(_groups(model, weight_decay), lr=lr, betas=tuple(betas), amsgrad=amsgrad)
