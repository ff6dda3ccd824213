"""Where the time of a step went: the events of torch's profiler, told apart by part and stacked for a flame graph."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch.profiler import ProfilerActivity, profile

from mlip.benchmark.profile_scopes import BACKWARD, ELSE, FORWARD, PREFIX, SECOND, Scopes, Where

EVALUATE = "autograd::engine::evaluate_function: "
MODEL = f"{PREFIX}{ELSE}|model"
STEP = "step"
Stack = tuple[str, ...]
"""Labels from the outermost scope to the operator."""


@dataclass
class Trace:
    """Wall seconds that were spent in each part and in each stack itself, summed over steps.

    Attributes:
        parts: by part and pass.
        stacks: by stack; what inner ones took is not in the outer ones.
        steps: how many.
    """

    parts: dict[Where, float] = field(default_factory=lambda: defaultdict(float))
    stacks: dict[Stack, float] = field(default_factory=lambda: defaultdict(float))
    steps: int = 0

    @property
    def seconds(self) -> float:
        """Of all steps together."""
        return sum(self.parts.values())


def trace_step(step: Callable[[], object], scopes: Scopes, trace: Trace) -> None:
    """Run a step under torch's profiler and add its times to a trace."""
    scopes.forget()
    with profile(activities=[ProfilerActivity.CPU]) as profiler, scopes.scope(ELSE, STEP):
        step()
    name = f"{PREFIX}{ELSE}|{STEP}"
    roots = [event for event in profiler.events() if event.name == name and event.cpu_parent is None]
    for root in roots:
        _Walk(scopes.notes(), trace).add(root, (), (ELSE, FORWARD))
    trace.steps += 1


class _Walk:
    """Goes through the events of a step in the order in which they happened."""

    def __init__(self, notes: Scopes, trace: Trace) -> None:
        self._notes, self._trace = notes, trace
        self._derived = Scopes()
        self._phase = BACKWARD

    def add(self, event: Any, stack: Stack, where: Where) -> None:
        """Add an event and all that it called."""
        where, label, phase = *self._place(event, where), self._phase
        stack = (*stack, label)
        if event.name == f"{PREFIX}{ELSE}|{SECOND}":
            self._phase = SECOND
        last = event.time_range.start
        for child in sorted(event.cpu_children, key=lambda one: one.time_range.start):
            self._spend(child.time_range.start - last, stack, where)
            self.add(child, stack, where)
            last = max(last, child.time_range.end)
            if child.name == MODEL and where[1] == FORWARD:
                # Whoever has called the model goes on with autograd, whose own time this is, and with the results.
                where = (ELSE, BACKWARD)
        self._spend(event.time_range.end - last, stack, where)
        self._phase = phase

    def _place(self, event: Any, where: Where) -> tuple[Where, str]:
        name: str = event.name
        if name.startswith(PREFIX):
            part, label = name[len(PREFIX) :].split("|", 1)
            return (part, SECOND if label == SECOND else FORWARD), label
        if not name.startswith(EVALUATE):
            return where, name
        part = self._owner(event.sequence_nr)
        made = [number for number in _numbers(event) if number > event.sequence_nr]
        if made:
            self._derived.note(min(made), part)
        return (part, self._phase), f"{self._phase} of {part}: {name[len(EVALUATE) :]}"

    def _owner(self, number: int) -> str:
        """Return whose node it is: of a part, or of the backward pass of a part, whichever was noted last."""
        if self._derived.first is not None and number >= self._derived.first:
            return self._derived.owner(number)
        return self._notes.owner(number)

    def _spend(self, microseconds: float, stack: Stack, where: Where) -> None:
        if microseconds > 0:
            self._trace.parts[where] += 1e-6 * microseconds
            self._trace.stacks[stack] += 1e-6 * microseconds


def _numbers(event: Any) -> Sequence[int]:
    """Return the numbers of the nodes that were made within an event."""
    found, todo = [], list(event.cpu_children)
    while todo:
        child = todo.pop()
        if child.sequence_nr >= 0:
            found.append(child.sequence_nr)
        todo += child.cpu_children
    return found
