"""Where the time of a Hamiltonian network goes, forward and backward, by torch's profiler."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, record_function

from mlip.models.hamiltonian_network import HamiltonianNetwork

PARTS = (
    "front end",
    "node products",
    "node weights",
    "node rest",
    "pair products",
    "pair weights",
    "pair rest",
    "diagonal",
    "expansion",
    "rest",
)
"""Weights are the perceptrons that make the products' weights; rest of nodes and pairs are norms, norm gates, linear
maps, invariants and the pair gate; diagonal is what is made of one atom; the last is all that has no other part."""


def shares(model: HamiltonianNetwork, step: Callable[[], Any]) -> dict[str, float]:
    """Return the share of the CPU time of a step that each of `PARTS` takes, backward included.

    Args:
        model: whose parts are told apart; it is changed and of no other use afterwards.
        step: what is measured, called twice.
    """
    for name, module, method in _parts_of(model):
        _label(module, method, name)
    step()
    with profile(activities=[ProfilerActivity.CPU]) as found:
        step()
    seconds = _by_part(found.events())
    total = sum(seconds.values())
    return {name: seconds[name] / total for name in PARTS}


def _parts_of(model: HamiltonianNetwork) -> list[tuple[str, nn.Module, str]]:
    """Return (part, module, method); what is inside of another part counts for the inner one."""
    found: list[tuple[str, nn.Module, str]] = [("front end", model.front_end, "forward")]
    for layer in model.layers:
        found += [
            ("node rest", layer, "forward"),
            ("node weights", layer.weights, "forward"),
            ("node products", layer.tensor_product, "convolve"),
        ]
    for layer in model.pair_layers:
        found += [
            ("pair rest", layer, "forward"),
            ("pair weights", layer.weights, "forward"),
            ("pair products", layer.product, "forward"),
        ]
    found += [("diagonal", layer, "forward") for layer in [*model.self_pairs, model.expand_self]]
    return [*found, ("expansion", model.expand_pair, "forward")]


def _label(module: nn.Module, method: str, name: str) -> None:
    inner = getattr(module, method)

    def labelled(*args: Any, **kwargs: Any) -> Any:
        with record_function(f"part:{name}"):
            return inner(*args, **kwargs)

    setattr(module, method, labelled)


def _by_part(events: list[FunctionEvent]) -> dict[str, float]:
    """Add up own times. Backward operations carry the number of the forward operation that they belong to."""
    forward: dict[int, tuple[float, str]] = {}
    for event in events:
        if event.sequence_nr >= 0 and not _inside_backward(event):
            # Operations without a gradient have the number of the next one: the last one is meant.
            started = event.time_range.start
            if started >= forward.get(event.sequence_nr, (-1.0, ""))[0]:
                forward[event.sequence_nr] = started, _part(event)
    seconds: dict[str, float] = defaultdict(float)
    for event in events:
        top = _inside_backward(event)
        part = _part(event) if top is None else forward.get(top.sequence_nr, (0.0, "rest"))[1]
        seconds[part] += event.self_cpu_time_total
    return seconds


def _inside_backward(event: FunctionEvent) -> FunctionEvent | None:
    """Return the node of the backward pass that an event is a part of."""
    found: FunctionEvent | None = event
    while found is not None and not found.name.startswith("autograd::engine::evaluate_function"):
        found = found.cpu_parent
    return found


def _part(event: FunctionEvent) -> str:
    found: FunctionEvent | None = event
    while found is not None and not found.name.startswith("part:"):
        found = found.cpu_parent
    return "rest" if found is None else found.name.removeprefix("part:")
