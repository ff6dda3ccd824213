"""Forces and stress from the energy: the one place that differentiates a model."""

from __future__ import annotations

from collections.abc import Callable, Collection
from copy import copy

import torch
from torch import Tensor

from mlip.core.errors import ConfigError, did_you_mean
from mlip.core.fields import DERIVED
from mlip.data.graph import AtomGraph


def predictable(model: Callable[[AtomGraph], dict[str, Tensor]]) -> tuple[str, ...]:
    """Return the fields that :func:`predict` gives for a model: its own and the derivatives of these.

    A plain function, which declares nothing, is taken for a potential.
    """
    own = tuple(getattr(model, "fields", ("energy", "energies")))
    return own + tuple(name for name, source in DERIVED.items() if source in own)


def check_predictable(model: Callable[[AtomGraph], dict[str, Tensor]], fields: Collection[str]) -> None:
    """Refuse fields that a model does not have.

    Raises:
        ConfigError: names the field, and those there are.
    """
    known = predictable(model)
    for field in fields:
        if field not in known:
            raise ConfigError(f"Cannot predict '{field}'.{did_you_mean(field, known)} Known: {', '.join(known)}.")


def predict(
    model: Callable[[AtomGraph], dict[str, Tensor]],
    graph: AtomGraph,
    fields: Collection[str] = ("energy", "forces"),
    create_graph: bool = False,
) -> dict[str, Tensor]:
    """Evaluate a model and only those derivatives that are asked for.

        F_i = -∂E/∂r_i,    σ = P (∂E/∂ε) P / V

    with ε a symmetric strain of positions and cell, V = |det cell|, and P the projector on the span of the
    periodic cell vectors: along a direction without periodicity a cell has no stress. Tension is positive,
    as in ASE. One backward pass serves both.

    Args:
        model: any model of the toolkit.
        graph: one graph or a batch; not changed.
        fields: out of :func:`predictable`; for a potential ``energy``, ``energies``, ``forces``, ``stress``.
        create_graph: keep the autograd graph, for training on the derivatives.

    Returns:
        The model's own fields; ``forces`` (atoms, 3) eV/Å and ``stress`` (graphs, 3, 3) eV/Å³ in float64 if
        asked for. Graphs without periodicity or cell volume have zero stress here; the calculator refuses.

    Raises:
        ConfigError: a field that the model does not have.
    """
    check_predictable(model, fields)
    wants_forces, wants_stress = "forces" in fields, "stress" in fields
    if not (wants_forces or wants_stress):
        with torch.set_grad_enabled(create_graph):
            return model(graph)
    with torch.enable_grad():
        probe = copy(graph)
        positions = graph.positions.detach().requires_grad_(wants_forces)
        probe.positions = positions
        inputs = [positions] if wants_forces else []
        if wants_stress:
            strain = positions.new_zeros(graph.cell.shape).requires_grad_()
            _strain(probe, positions, strain)
            inputs.append(strain)
        result = model(probe)
        energy = result["energy"].sum()
        # With frozen weights and no edges the energy is a constant.
        gradients = (
            torch.autograd.grad(energy, inputs, create_graph=create_graph, allow_unused=True)
            if energy.requires_grad
            else [None] * len(inputs)
        )
    # A graph without edges does not depend on the positions.
    found = [torch.zeros_like(x) if g is None else g for g, x in zip(gradients, inputs)]
    if wants_forces:
        result["forces"] = -found[0]
    if wants_stress:
        result["stress"] = stress_from_virial(found[-1], graph.cell, graph.pbc)
    return result if create_graph else {name: value.detach() for name, value in result.items()}


def _strain(probe: AtomGraph, positions: Tensor, strain: Tensor) -> None:
    """Deform positions and cell of a shallow copy by the symmetric part of the strain."""
    symmetric = 0.5 * (strain + strain.transpose(1, 2))
    batch = probe.get("batch")
    per_atom = symmetric[batch] if batch is not None else symmetric.expand(positions.shape[0], 3, 3)
    probe.positions = positions + torch.einsum("na,nab->nb", positions, per_atom)
    probe.cell = probe.cell + probe.cell @ symmetric


def stress_from_virial(strain_gradient: Tensor, cell: Tensor, pbc: Tensor) -> Tensor:
    """Return ``P (∂E/∂ε) P / V``.

    Args:
        strain_gradient: ``(graphs, 3, 3)`` eV, symmetric.
        cell: ``(graphs, 3, 3)`` Å.
        pbc: ``(graphs, 3)``.

    Returns:
        ``(graphs, 3, 3)`` eV/Å³; zero without periodicity or volume.
    """
    volume = torch.linalg.det(cell).abs()
    has_volume = (volume > 0) & pbc.any(dim=1)
    projector = periodic_projector(cell, pbc)
    projected = projector @ strain_gradient @ projector
    safe = torch.where(has_volume, volume, torch.ones_like(volume))
    return torch.where(has_volume[:, None, None], projected / safe[:, None, None], torch.zeros_like(projected))


def periodic_projector(cell: Tensor, pbc: Tensor) -> Tensor:
    """Return the orthogonal projectors ``(graphs, 3, 3)`` on the span of the periodic cell vectors."""
    periodic = cell * pbc[:, :, None].to(cell.dtype)
    # For a full-rank set of periodic rows R, pinv(R) R projects on their span.
    projector = torch.linalg.pinv(periodic) @ periodic
    full = pbc.all(dim=1)[:, None, None]
    return torch.where(full, torch.eye(3, dtype=cell.dtype, device=cell.device), projector)
