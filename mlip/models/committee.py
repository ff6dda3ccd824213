"""A committee: several models in one, whose mean is the prediction and whose spread is its uncertainty."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from copy import copy, deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from mlip.core.errors import ConfigError
from mlip.core.fields import MEMBERS
from mlip.data.build_graph import as_builder
from mlip.data.elements import list_elements
from mlip.data.graph import AtomGraph
from mlip.data.graphs.base import GraphBuilder
from mlip.data.inputs import Inputs
from mlip.models.base import AtomisticModel, graph_index
from mlip.models.build import KERNELS
from mlip.nn.edge_vectors import edge_vectors, safe_norm
from mlip.nn.heads.base import Head

FAR = 20.0
"""eV between the reference energies of an element in two models, above which they cannot be of one kind of data."""


class Committee(AtomisticModel):
    """The mean of several models of the same fields: ``E = (1/k) Σ_m E_m``, forces and stress accordingly.

    Each member sees the edges of its own graph: all share one list of pairs, out of which a member with a shorter
    cutoff takes those within it. The committee knows the elements that all its members know.

    Args:
        members: models that predict the same fields, at least two.

    Attributes:
        fields: those of the members, and ``energy_members`` and ``energies_members``.

    Raises:
        ConfigError: members that do not fit together.
    """

    def __init__(self, members: Sequence[AtomisticModel]) -> None:
        members = list(members)
        if len(members) < 2 or not all(isinstance(member, AtomisticModel) for member in members):
            raise ConfigError(f"A committee needs at least two models as members, got {len(members)}.")
        elements = [symbol for symbol in members[0].elements if all(symbol in m.elements for m in members)]
        if not elements:
            known = "; ".join(list_elements(member.elements) for member in members)
            raise ConfigError(f"The members of a committee must share an element, these know {known}.")
        super().__init__(elements, max(member.cutoff for member in members), _shared_graph(members))
        self.members = nn.ModuleList(members)
        self.fields = _shared_fields(members)
        self.inputs = _shared_inputs(members)
        self.silent_fields = tuple(f for f in members[0].silent_fields if all(f in m.silent_fields for m in members))
        self.symmetry = "O3" if all(member.symmetry == "O3" for member in members) else "SO3"

    @property
    def exactly_equivariant(self) -> bool:
        """True where every member is."""
        return all(member.exactly_equivariant for member in self.members)

    def forward(self, graph: AtomGraph) -> dict[str, Tensor]:
        """Return the means over the members, and ``energy_members`` (graphs, k), ``energies_members`` (atoms, k)."""
        return self.merge([member(part) for member, part in self.split(graph)])

    def split(self, graph: AtomGraph) -> Iterator[tuple[AtomisticModel, AtomGraph]]:
        """Yield each member with its graph, a part of the committee's; not changed."""
        limits = {member.graph_builder.cutoff for member in self.members}
        parts = {limit: _within(graph, limit) for limit in limits if limit < self.graph_builder.cutoff}
        for member in self.members:
            yield member, parts.get(member.graph_builder.cutoff, graph)

    def merge(self, predictions: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Return the means of the members' predictions, and each of those that :data:`~mlip.core.fields.MEMBERS` names.

        Args:
            predictions: of the members, in their order; all with the same fields.
        """
        merged: dict[str, Tensor] = {}
        for name in predictions[0]:
            # A member that is a committee of readouts counts as one.
            if name in MEMBERS.values():
                continue
            each = torch.stack([prediction[name] for prediction in predictions], dim=1)
            merged[name] = each.mean(dim=1)
            if name in MEMBERS:
                merged[MEMBERS[name]] = each
        return merged


def committee_of(models: Sequence[AtomisticModel]) -> Committee:
    """Put models together; they are copied, and members of a committee become members of the new one.

    Models of float32 and float64 become one of float64. What all cards say alike is on the card of the committee.

    Raises:
        ConfigError: models that do not fit together, or whose cards name different levels of theory, or whose
            reference energies of an element are farther apart than `FAR`.
    """
    _check_levels(models)
    _check_references(models)
    members = [member for model in models for member in (model.members if isinstance(model, Committee) else [model])]
    dtype = torch.float64 if any(model.dtype == torch.float64 for model in models) else torch.float32
    committee = Committee([deepcopy(member) for member in members]).to(device=models[0].device, dtype=dtype)
    configs = [config for model in models for config in _configs(model)]
    if all(configs):
        words = {member.kernels for member in members}
        committee.use_kernels(words.pop() if len(words) == 1 else "auto")
        committee.config = {"_target_": f"{Committee.__module__}.{Committee.__qualname__}", "members": configs}
        committee.config[KERNELS] = committee.kernels
    cards = [model.metadata for model in models]
    shared = _shared(cards)
    own = {str(number): _without(card, shared) for number, card in enumerate(cards, 1)}
    committee.metadata = {**shared, "members": own}
    return committee.train(models[0].training)


def _check_levels(models: Sequence[AtomisticModel]) -> None:
    """Refuse the mean of energies that have nothing to do with each other."""
    data = [model.metadata.get("data") for model in models]
    named = [card["level_of_theory"] for card in data if isinstance(card, Mapping) and "level_of_theory" in card]
    for other in named[1:]:
        if other != named[0]:
            raise ConfigError(
                "The members of a committee must be of one level of theory, whose energies have a mean; these were "
                f"fitted to {named[0]}, and to {other}."
            )


def _references(model: AtomisticModel) -> dict[str, float]:
    """Return what the energy of an atom of each element is counted from, eV; nothing where there is no such head."""
    heads = (module for module in model.modules() if isinstance(module, Head))
    return next((found for head in heads if (found := head.reference_energies())), {})


def _check_references(models: Sequence[AtomisticModel]) -> None:
    """Refuse models whose energies have different zeros, whatever their cards say."""
    known = [(number, found) for number, model in enumerate(models, 1) if (found := _references(model))]
    for number, other in known[1:]:
        first, ours = known[0]
        for element in ours:
            if element in other and abs(other[element] - ours[element]) > FAR:
                raise ConfigError(
                    "The members of a committee must count energies from the same zero: the reference energy of "
                    f"{element} is {ours[element]:.1f} eV in number {first}, {other[element]:.1f} eV in number "
                    f"{number}. They were fitted to different programs or levels of theory."
                )


def _shared(cards: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what nested mappings have in common."""
    shared = {}
    for name, value in cards[0].items():
        others = [card.get(name) for card in cards[1:]]
        if all(other == value for other in others):
            shared[name] = value
        elif isinstance(value, Mapping) and all(isinstance(other, Mapping) for other in others):
            shared[name] = _shared([value, *others])
    return shared


def _without(card: Mapping[str, Any], shared: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a nested mapping has besides the shared one."""
    own = {}
    for name, value in card.items():
        if name not in shared:
            own[name] = value
        elif isinstance(value, Mapping) and value != shared[name]:
            own[name] = _without(value, shared[name])
    return own


def _configs(model: AtomisticModel) -> list[dict[str, Any]]:
    """Return the configurations of a model's members, or its own; empty where it has none.

    Without the choice of kernels, which is that of a whole model.
    """
    if not isinstance(model, Committee):
        return [deepcopy({name: value for name, value in model.config.items() if name != KERNELS})]
    return deepcopy(model.config.get("members", [{} for _ in model.members]))


def _shared_fields(members: Sequence[AtomisticModel]) -> tuple[str, ...]:
    """Return the fields of a committee."""
    own = [tuple(field for field in member.fields if field not in MEMBERS.values()) for member in members]
    for number, fields in enumerate(own[1:], 2):
        if set(fields) != set(own[0]):
            raise ConfigError(
                f"The members of a committee must predict the same: the first predicts {', '.join(own[0])}, number "
                f"{number} {', '.join(fields)}."
            )
    if "hamiltonian" in own[0]:
        raise ConfigError(
            "Models of Hamiltonians cannot form a committee, which averages energies and their derivatives. Use one of "
            "the models."
        )
    return (*own[0], *(MEMBERS[name] for name in own[0] if name in MEMBERS))


def _shared_inputs(members: Sequence[AtomisticModel]) -> Inputs:
    """Return all inputs, each with the values that are known to every member that reads it."""
    shared: dict[str, tuple[int, ...]] = {}
    for member in members:
        for name, values in member.inputs.items():
            shared[name] = tuple(value for value in shared.get(name, values) if value in values)
    for name, values in shared.items():
        if not values:
            raise ConfigError(f"The members of a committee must share a {name}: no value is known to all of them.")
    return shared


def _shared_graph(members: Sequence[AtomisticModel]) -> GraphBuilder:
    """Return the graph of which the members' graphs are parts."""
    builders = [member.graph_builder for member in members]
    widest = max(builders, key=lambda builder: builder.cutoff)
    if len({builder.description for builder in builders}) > 1 and not all(map(_is_radius_graph, builders)):
        found = "; ".join(dict.fromkeys(builder.description for builder in builders))
        raise ConfigError(f"The members of a committee must have the same graph or radius graphs, these have: {found}.")
    return widest


def _is_radius_graph(builder: GraphBuilder) -> bool:
    return math.isfinite(builder.cutoff) and builder.description == as_builder(builder.cutoff).description


def _within(graph: AtomGraph, cutoff: float) -> AtomGraph:
    """Return a shallow copy of a graph or batch with the edges below a cutoff (Å)."""
    senders, receivers = graph.edge_index
    batch = graph_index(graph)
    vectors = edge_vectors(graph.positions, graph.cell, graph.cell_shifts, senders, receivers, batch[receivers])
    kept = safe_norm(vectors.detach()) < cutoff
    part = copy(graph)
    part.edge_index, part.cell_shifts = graph.edge_index[:, kept], graph.cell_shifts[kept]
    return part
