"""Replace the radial MLPs of a trained model by fitted splines (or any other basis that is linear)."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mlip.core.errors import ConfigError
from mlip.models.base import AtomisticModel
from mlip.models.build import build_model
from mlip.models.potential import Potential
from mlip.nn.radial_weights.base import RadialWeights

POINTS = 2000
"""Distances at which the functions are fitted."""
NEAREST = 0.1
"""Fraction of the cutoff from which on they are: nearer, no atoms are found."""
FLOOR = 0.02
"""Least weight of a distance over the largest, so that rare distances are fitted, too."""


@dataclass(frozen=True)
class LayerFit:
    """How well the radial functions of one layer were replaced.

    Attributes:
        name: of the module.
        r2: ``1 - Σ ρ (w - ŵ)² / Σ ρ (w - mean w)²`` over distances and weights; ρ is the weight of a distance.
        parameters_before, parameters_after: of the radial functions of the layer.
        distances: ``(points,)`` Å.
        before, after: ``(points, examples)`` the functions that vary most, for a plot.
    """

    name: str
    r2: float
    parameters_before: int
    parameters_after: int
    distances: Tensor
    before: Tensor
    after: Tensor


def splinify(
    model: AtomisticModel,
    radial: Mapping[str, Any],
    radial_weights: Mapping[str, Any],
    distances: Tensor | None = None,
    examples: int = 3,
) -> tuple[AtomisticModel, list[LayerFit]]:
    """Return a copy of a model whose radial functions are linear in another basis, fitted by least squares.

    The MLP that gives a layer its weights sees the distance alone, so that every weight is a function of one
    variable. All other weights of the model are kept (Facet, arXiv 2509.08418, who trims SevenNet-0 like that).

    Args:
        model: a potential.
        radial: configuration of the new basis, as ``model.radial``.
        radial_weights: configuration of the new weights, as ``model.radial_weights``: linear or of low rank.
        distances: of edges in typical structures, Å, which say where the fit has to be good; None: uniform in volume.
        examples: functions of each layer that are kept for a plot.

    Raises:
        ConfigError: the model has no such functions, the basis cannot be built, or the new weights cannot be fitted.
    """
    if not isinstance(model, Potential) or "radial_weights" not in model.config:
        raise ConfigError(f"{type(model).__name__} has no radial weights to replace.")
    old = deepcopy(model).to(device="cpu", dtype=torch.float64).requires_grad_(False)
    targets = {name: part for name, part in old.named_modules() if isinstance(part, RadialWeights)}
    config = {**deepcopy(model.config), "radial": dict(radial), "radial_weights": dict(radial_weights)}
    new = build_model(config, dtype=torch.float64)
    _copy_other_weights(old, new)
    r = torch.linspace(NEAREST * model.cutoff, model.cutoff, POINTS, dtype=torch.float64)
    density = _density(r, distances)
    with torch.no_grad():
        before, after = old.edges.basis(r), new.edges.basis(r)
        fits = [
            _fit(name, part, new.get_submodule(name), (before, after), r, density, examples)
            for name, part in targets.items()
        ]
    new = new.to(device=model.device, dtype=model.dtype).eval()
    new.metadata = deepcopy(model.metadata)
    return new, fits


def _copy_other_weights(old: AtomisticModel, new: AtomisticModel) -> None:
    """Load all weights but those of the radial basis and functions."""
    replaced = tuple(f"{name}." for name, part in new.named_modules() if isinstance(part, RadialWeights))
    kept = {
        name: value
        for name, value in old.state_dict().items()
        if not name.startswith((*replaced, "edges.basis.basis."))
    }
    missing, unexpected = new.load_state_dict(kept, strict=False)
    lost = [name for name in missing if not name.startswith((*replaced, "edges.basis.basis."))]
    if lost or unexpected:
        raise ConfigError(f"The new basis changes more than the radial functions: {lost + unexpected}.")


def _density(r: Tensor, distances: Tensor | None) -> Tensor:
    """Return the weight of each distance, at most one."""
    if distances is None or not len(distances):
        density = r.square()
    else:
        counts = torch.histc(distances.double(), bins=100, min=0.0, max=float(r[-1]))
        # Three bins wide, so that a sharp shell of a crystal counts for the bond's vibrations, too.
        smooth = nn.functional.avg_pool1d(counts[None, None], 3, stride=1, padding=1)[0, 0]
        density = smooth[(r / r[-1] * 99).long()]
    return (density / density.max()).clamp(min=FLOOR)


def _fit(
    name: str,
    old: RadialWeights,
    new: RadialWeights,
    bases: tuple[Tensor, Tensor],
    r: Tensor,
    density: Tensor,
    examples: int,
) -> LayerFit:
    """Set the coefficients of one layer by weighted least squares."""
    target = old(bases[0])
    new.fit(bases[1], target, density)
    found = new(bases[1])
    mean = (density[:, None] * target).sum(dim=0) / density.sum()
    variance = (density[:, None] * (target - mean).square()).sum(dim=0)
    residual = (density[:, None] * (target - found).square()).sum()
    shown = variance.argsort(descending=True)[:examples]
    return LayerFit(
        name,
        float(1 - residual / variance.sum()) if variance.sum() > 0 else 1.0,
        sum(p.numel() for p in old.parameters()),
        sum(p.numel() for p in new.parameters()),
        r,
        target[:, shown],
        found[:, shown],
    )
