"""Checks that every radial basis and every envelope must pass; each returns a measured error."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor

from mlip.ops.envelope.base import Envelope
from mlip.ops.radial.base import RadialBasis

Function = Callable[[Tensor], Tensor]

MOST_DERIVATIVES = 4
"""That are looked at in envelopes of which more vanish at the cutoff."""


def derivatives(function: Function, distances: Tensor, order: int) -> list[Tensor]:
    """Return value and derivatives ``[f, f', …]`` by autograd, each ``(edges, functions)``."""
    r = distances.detach().clone().requires_grad_()
    value = function(r)
    # One column at a time: rows are independent, so the gradient of a column's sum is its derivative.
    columns = value[:, None] if value.dim() == 1 else value
    found = [[column] for column in columns.unbind(dim=1)]
    for chain in found:
        for _ in range(order):
            last = chain[-1]
            gradient = torch.autograd.grad(last.sum(), r, create_graph=True)[0] if last.requires_grad else last * 0
            chain.append(gradient)
    return [torch.stack([chain[k].detach() for chain in found], dim=1) for k in range(order + 1)]


def special_distances(cutoff: float) -> Tensor:
    """Return distances (Å, float64) at which radial functions break: 0, next to it, the cutoff."""
    inside = torch.linspace(0.01, 0.99, 23, dtype=torch.float64)
    edge = torch.tensor([0.0, 1e-12, 1e-7, 1e-4, 0.5, 1 - 1e-7, 1.0], dtype=torch.float64)
    return torch.cat([edge, inside]) * cutoff


def not_finite(function: Function, cutoff: float, order: int = 2) -> int:
    """Count values and derivatives up to ``order`` that are not finite within [0, cutoff]; 0 is right."""
    found = derivatives(function, special_distances(cutoff), order)
    return sum(int((~torch.isfinite(values)).sum()) for values in found)


def derivative_error(function: Function, cutoff: float, order: int = 2) -> float:
    """Compare each derivative with central differences of the one before, relative to its largest value."""
    # Irregular points, so that none sits on a knot; the step stays within [0, cutoff].
    r = (torch.arange(1, 60, dtype=torch.float64) * 0.6180339887 % 1.0) * 0.998 * cutoff + 0.001 * cutoff
    step = 1e-5
    found = derivatives(function, r, order)
    above, below = derivatives(function, r + step, order - 1), derivatives(function, r - step, order - 1)
    errors = [
        ((above[k] - below[k]) / (2 * step) - found[k + 1]).abs().max() / found[k + 1].abs().max().clamp(min=1.0)
        for k in range(order)
    ]
    return float(torch.stack(errors).max())


def float32_error(module: RadialBasis | Envelope) -> float:
    """Compare float32 with float64; infinite if the result is not float32."""
    r = special_distances(module.cutoff)
    single, double = deepcopy(module).float()(r.float()), deepcopy(module).double()(r)
    return float((single.double() - double).detach().abs().max()) if single.dtype == torch.float32 else float("inf")


def lost_digits(module: RadialBasis | Envelope) -> float:
    """Send the module to float32 and back: its constants must come back with all digits."""
    r = special_distances(module.cutoff)
    with torch.no_grad():
        return float((deepcopy(module).double().float().double()(r) - deepcopy(module).double()(r)).abs().max())


def wrong_shapes(module: RadialBasis) -> int:
    """Count wrong shapes for many, one and no edges; 0 is right."""
    sizes = (5, 1, 0)
    distances = [torch.linspace(0.1, 0.9, n, dtype=torch.float64) * module.cutoff for n in sizes]
    return sum(module(r).shape != (n, module.num_basis) for n, r in zip(sizes, distances))


def envelope_errors(envelope: Envelope) -> dict[str, float]:
    """Measure everything an envelope promises; all values are 0 (to rounding) if it keeps its word.

    Returns:
        ``at zero``: |f(0) − 1|; ``at the cutoff``: largest of f and its ``zero_derivatives``
        derivatives there (at most four, in units of the cutoff), inside; ``beyond``: largest value and slope beyond the
        cutoff, exactly 0; ``rise``: largest increase between neighbours; ``outside [0, 1]``: by how much.
    """
    envelope = deepcopy(envelope).double()
    rc = envelope.cutoff
    order = int(min(envelope.zero_derivatives, MOST_DERIVATIVES))
    edge = torch.tensor([rc, rc * (1 - 1e-12)], dtype=torch.float64)
    at_edge = [values.abs().max() * rc**k for k, values in enumerate(derivatives(envelope, edge, order))]
    far = torch.tensor([1.0000001, 1.1, 3.0, 1e3], dtype=torch.float64) * rc
    beyond = [values.abs().max() for values in derivatives(envelope, far, 2)]
    fine = envelope(torch.linspace(0, 1.05, 4001, dtype=torch.float64) * rc).detach()
    return {
        "at zero": float((fine[0] - 1).abs()),
        "at the cutoff": float(torch.stack(at_edge).max()),
        "beyond": float(torch.stack(beyond).max()),
        "rise": float((fine[1:] - fine[:-1]).max().clamp(min=0)),
        "outside [0, 1]": float(torch.maximum(fine - 1, -fine).max().clamp(min=0)),
    }
