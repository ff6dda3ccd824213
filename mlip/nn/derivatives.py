"""Forces and stress from the energy: the one place that differentiates a model."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from copy import copy

import torch
from torch import Tensor

from mlip.core.errors import ConfigError, did_you_mean
from mlip.core.fields import DERIVED, MEMBERS, SPREADS
from mlip.data.graph import AtomGraph


def predictable(model: Callable[[AtomGraph], dict[str, Tensor]]) -> tuple[str, ...]:
    """Return the fields that :func:`predict` gives for a model: its own and the derivatives of these.

    A plain function, which declares nothing, is taken for a potential.
    """
    own = tuple(getattr(model, "fields", ("energy", "energies")))
    # Of forces that one head gives directly, a committee of energies knows no members.
    single = {name for name in MEMBERS if name in own and MEMBERS[name] not in own}
    hidden = {*own, *(MEMBERS[name] for name in single), *(SPREADS[name] for name in single)}
    return own + tuple(name for name, source in DERIVED.items() if source in own and name not in hidden)


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
    as in ASE. One backward pass serves both. ``forces_members``, ``stress_members`` and the spreads of forces and
    stress (see :func:`spread`) of a committee take one for each member; ``forces`` and ``stress`` are the means.

    Forces that a head of the model gives by itself are taken as they are: they are not ``-∂E/∂r``. The stress stays the
    derivative of the energy then.

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
    spreads = [name for name in SPREADS if SPREADS[name] in fields]
    result = _evaluate(model, graph, {*fields, *(MEMBERS[name] for name in spreads)}, create_graph)
    result |= {SPREADS[name]: spread(result[MEMBERS[name]]) for name in spreads}
    return result if create_graph else {name: value.detach() for name, value in result.items()}


def spread(members: Tensor) -> Tensor:
    """Return the standard deviation over the members of a committee, the same in every orientation.

        s = sqrt( (1/k) Σ_m |x_m − x̄|² ),    x̄ = (1/k) Σ_m x_m

    with |·| the norm of a number, a vector or a tensor. It divides by k, not by k − 1.

    Args:
        members: ``(rows, k, ...)``.

    Returns:
        ``(rows,)`` in the unit of the members.
    """
    squares = (members - members.mean(dim=1, keepdim=True)).square()
    return squares.flatten(2).sum(dim=2).mean(dim=1).sqrt() if members.ndim > 2 else squares.mean(dim=1).sqrt()


def _evaluate(
    model: Callable[[AtomGraph], dict[str, Tensor]], graph: AtomGraph, fields: Collection[str], create_graph: bool
) -> dict[str, Tensor]:
    """Return the model's own fields and the derivatives that are asked for."""
    by_member = MEMBERS["forces"] in fields or MEMBERS["stress"] in fields
    if by_member and hasattr(model, "split"):
        # One by one: of all members together, the gradient of each would be a pass through all of them.
        plain = {name for name in ("forces", "stress") if name in fields or MEMBERS[name] in fields}
        return model.merge([_evaluate(member, part, plain, create_graph) for member, part in model.split(graph)])
    # What a head of the model gives by itself is no derivative.
    own = getattr(model, "fields", ())
    wants_forces, wants_stress = (
        (name in fields and name not in own) or MEMBERS[name] in fields for name in ("forces", "stress")
    )
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
        energies = result[MEMBERS["energy"]].unbind(1) if by_member else [result["energy"]]
        found = _gradients(energies, inputs, create_graph)
    if wants_forces:
        _add(result, "forces", [-gradient for gradient in found[0]], by_member)
    if wants_stress:
        each = [stress_from_virial(gradient, graph.cell, graph.pbc) for gradient in found[-1]]
        _add(result, "stress", each, by_member)
    return result


def _gradients(energies: Sequence[Tensor], inputs: Sequence[Tensor], create_graph: bool) -> list[list[Tensor]]:
    """Return for every input the gradients of the sum of each energy."""
    found: list[list[Tensor]] = [[] for _ in inputs]
    for number, energy in enumerate(energies, 1):
        # With frozen weights and no edges the energy is a constant.
        gradients = (
            torch.autograd.grad(
                energy.sum(),
                inputs,
                create_graph=create_graph,
                retain_graph=create_graph or number < len(energies),
                allow_unused=True,
            )
            if energy.requires_grad
            else [None] * len(inputs)
        )
        for column, gradient, x in zip(found, gradients, inputs):
            # A graph without edges does not depend on the positions.
            column.append(torch.zeros_like(x) if gradient is None else gradient)
    return found


def _add(result: dict[str, Tensor], name: str, each: Sequence[Tensor], by_member: bool) -> None:
    """Add a derivative: the only one, or the mean over the members and each of them."""
    if by_member:
        result[MEMBERS[name]] = torch.stack(list(each), dim=1)
    result[name] = result[MEMBERS[name]].mean(dim=1) if by_member else each[0]


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
