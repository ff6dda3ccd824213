"""Bilinear maps as lists of their nonzero coefficients, and their evaluation to any order of derivative."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

Entry = tuple[int, int, int, float]
"""Indices in the slots 0, 1, 2 and the coefficient."""

Operands = Sequence[Tensor | None]
"""One ``(rows, size, channels)`` tensor a slot; None where a slot is only asked for."""

Shared = tuple[tuple[int, ...], ...]
"""For each slot the dimensions (0: rows, 2: channels) in which it has size one and is shared by all."""


COPIED_FROM = 6
"""Entries a component from which eager evaluation copies its operands into component order first."""


@dataclass(frozen=True, eq=False)
class NonzeroTable:
    """The trilinear form ``F(x, y, z) = Σ c x_i y_j z_k``, one entry ``(i, j, k, c)`` for each nonzero c.

    The bilinear map x, y -> out is the derivative of F with respect to z, and its gradients with respect to x and
    y are the other two: the three slots are on a par, and derivatives of any order are derivatives of F with
    other tensors in the slots. This is plain data for a generator of code to read. Tables are equal if their
    contents are.

    Attributes:
        sizes: number of components of each slot.
        entries: each (i, j, k) once, sorted.

    Raises:
        ValueError: an index outside its slot, or one that comes twice.
    """

    sizes: tuple[int, int, int]
    entries: tuple[Entry, ...]

    def __post_init__(self) -> None:
        indices = [entry[:3] for entry in self.entries]
        if len(set(indices)) != len(indices):
            raise ValueError("a coefficient of the table is given twice")
        if any(not 0 <= index < size for triple in indices for index, size in zip(triple, self.sizes)):
            raise ValueError(f"an index of the table is outside its sizes {self.sizes}")

    @classmethod
    def from_blocks(
        cls, sizes: tuple[int, int, int], blocks: Iterable[tuple[tuple[int, int, int], Tensor]]
    ) -> NonzeroTable:
        """Collect the nonzero entries of dense blocks.

        Args:
            sizes: number of components of each slot.
            blocks: (first component of each slot, coefficients ``(n1, n2, n3)`` in float64); blocks that
                overlap are summed.
        """
        found: dict[tuple[int, int, int], float] = {}
        for (first1, first2, first3), block in blocks:
            places = block.nonzero().tolist()
            for (i, j, k), value in zip(places, block[block != 0].tolist()):
                place = (first1 + i, first2 + j, first3 + k)
                found[place] = found.get(place, 0.0) + value
        return cls(sizes, tuple((*place, value) for place, value in sorted(found.items()) if value != 0.0))

    def exchanged(self, order: tuple[int, int, int]) -> NonzeroTable:
        """Return the same form with slot ``order[s]`` in place s: (2, 1, 0) maps (z, y) to the gradient of x."""
        entries = sorted((*(entry[s] for s in order), entry[3]) for entry in self.entries)
        return NonzeroTable(tuple(self.sizes[s] for s in order), tuple(entries))

    def dense(self) -> Tensor:
        """Return the coefficients as a float64 tensor of shape ``sizes``."""
        full = torch.zeros(self.sizes, dtype=torch.float64)
        if self.entries:
            i, j, k, values = zip(*self.entries)
            full[list(i), list(j), list(k)] = torch.tensor(values, dtype=torch.float64)
        return full

    @cached_property
    def sorted_by(self) -> tuple[tuple[Entry, ...], ...]:
        """The entries in the order of each slot's index."""
        return tuple(tuple(sorted(self.entries, key=lambda entry: entry[slot])) for slot in range(3))

    def __len__(self) -> int:
        return len(self.entries)

    @cached_property
    def _hash(self) -> int:
        return hash((self.sizes, self.entries))

    def __hash__(self) -> int:
        # Once: a cache is asked for the function of a table in every call.
        return self._hash

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, NonzeroTable):
            return NotImplemented
        return self is other or (self.sizes, self.entries) == (other.sizes, other.entries)


@dataclass(frozen=True)
class WeightedTable:
    """``F(x, y, z, w) = Σ_q w_p(q) z_k(q) Σ c x_i y_j``: a table whose third slot is scaled by weights, then summed.

    Attributes:
        table: coefficients of (x, y, q).
        outputs: k(q), the component of the result that q is added to.
        weights: p(q), the weight that scales q.
    """

    table: NonzeroTable
    outputs: tuple[int, ...]
    weights: tuple[int, ...]

    @cached_property
    def sizes(self) -> tuple[int, int, int, int]:
        """Number of components of the slots x, y, z and w."""
        return (*self.table.sizes[:2], max(self.outputs) + 1, max(self.weights) + 1)

    def __len__(self) -> int:
        return len(self.table)

    @cached_property
    def _hash(self) -> int:
        return hash((self.table, self.outputs, self.weights))

    def __hash__(self) -> int:
        return self._hash


Form = NonzeroTable | WeightedTable

Evaluator = Callable[[Form, tuple[int, ...], Shared, Operands], list[Tensor]]
"""Computes the derivatives of the form with respect to the wanted slots; see :func:`evaluate_eagerly`."""


def evaluate_eagerly(form: Form, wanted: tuple[int, ...], shared: Shared, operands: Operands) -> list[Tensor]:
    """Differentiate the form with respect to slots: one fused multiply-add over rows and channels an entry.

    Args:
        form: three or four slots.
        wanted: slots to differentiate with respect to.
        shared: see :data:`Shared`; derivatives are summed over these dimensions.
        operands: ``(rows or 1, size, channels or 1)`` for each slot; a wanted one is read only by the others.

    Returns:
        One tensor of the shape of its slot for each entry of ``wanted``.
    """
    derivatives = _weighted_derivatives if isinstance(form, WeightedTable) else _derivatives
    results = derivatives(form, wanted, operands)
    return [result.sum(shared[s], keepdim=True) if shared[s] else result for s, result in zip(wanted, results)]


def _derivatives(table: NonzeroTable, wanted: tuple[int, ...], operands: Operands) -> list[Tensor]:
    # With many entries a component, one contiguous (rows, channels) block for each is worth a copy of everything:
    # slices of (rows, size, channels) are spread over as many pages of memory as there are rows.
    copied = len(table) >= COPIED_FROM * sum(table.sizes)
    if copied:
        operands = [None if operand is None else operand.transpose(0, 1).contiguous() for operand in operands]
    components = 0 if copied else 1
    slices = [None if operand is None else operand.unbind(components) for operand in operands]
    results = []
    for slot in wanted:
        a, b = (s for s in range(3) if s != slot)
        rows, channels = torch.broadcast_shapes(slices[a][0].shape, slices[b][0].shape)
        size = table.sizes[slot]
        result = operands[a].new_zeros((size, rows, channels) if copied else (rows, size, channels))
        targets = result.unbind(components)
        for entry in table.sorted_by[slot]:
            targets[entry[slot]].addcmul_(slices[a][entry[a]], slices[b][entry[b]], value=entry[3])
        results.append(result.transpose(0, 1).contiguous() if copied else result)
    return results


def _weighted_derivatives(form: WeightedTable, wanted: tuple[int, ...], operands: Operands) -> list[Tensor]:
    x, y, z, w = operands
    found: dict[int, Tensor] = {}
    factors = z is not None and _pick(z, form.outputs), w is not None and _pick(w, form.weights)
    inputs = tuple(slot for slot in wanted if slot < 2)
    if inputs:
        found.update(zip(inputs, _derivatives(form.table, inputs, [x, y, factors[0] * factors[1]])))
    if len(inputs) < len(wanted):
        coupled = _derivatives(form.table, (2,), [x, y, None])[0]
        if 2 in wanted:
            found[2] = _add_up(coupled * factors[1], form.outputs, form.sizes[2])
        if 3 in wanted:
            found[3] = _add_up(coupled * factors[0], form.weights, form.sizes[3])
    return [found[slot] for slot in wanted]


def _pick(values: Tensor, indices: tuple[int, ...]) -> Tensor:
    if indices == tuple(range(values.shape[1])):
        return values
    return values.index_select(1, torch.tensor(indices, device=values.device))


def _add_up(values: Tensor, indices: tuple[int, ...], size: int) -> Tensor:
    if indices == tuple(range(size)):
        return values
    target = values.new_zeros(values.shape[0], size, values.shape[2])
    return target.index_add_(1, torch.tensor(indices, device=values.device), values)


class _Derivatives(torch.autograd.Function):
    """Derivatives of a form with respect to ``wanted``, of which the derivatives are of the same kind.

    The result for slot s is linear in the other operands, so its product with a cotangent u is the form with u in
    slot s: differentiate that with respect to the others. Only the operands are saved.
    """

    @staticmethod
    def forward(
        ctx: Any,
        evaluator: Evaluator,
        form: Form,
        wanted: tuple[int, ...],
        shared: Shared,
        *operands: Tensor | None,
    ) -> tuple[Tensor, ...]:
        ctx.options = (evaluator, form, wanted, shared)
        ctx.save_for_backward(*operands)
        ctx.set_materialize_grads(False)
        return tuple(evaluator(form, wanted, shared, operands))

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        evaluator, form, wanted, shared = ctx.options
        needed = ctx.needs_input_grad[4:]
        gradients: list[Tensor | None] = [None] * len(needed)
        for slot, cotangent in zip(wanted, cotangents):
            others = tuple(s for s in range(len(needed)) if s != slot and needed[s])
            if cotangent is None or not others:
                continue
            operands = list(ctx.saved_tensors)
            operands[slot] = cotangent
            for other, part in zip(others, _Derivatives.apply(evaluator, form, others, shared, *operands)):
                gradients[other] = part if gradients[other] is None else gradients[other] + part
        return None, None, None, None, *gradients


def contract(
    form: Form, x: Tensor, y: Tensor, weight: Tensor | None = None, evaluator: Evaluator = evaluate_eagerly
) -> Tensor:
    """Return ``out_k = Σ c x_i y_j``, or ``Σ c w_p x_i y_j``, channel by channel; differentiable to any order.

    Args:
        form: the coefficients.
        x: ``(rows, form.sizes[0], channels)``.
        y: ``(rows, form.sizes[1], channels or 1)``; a single channel meets all of x, its gradient sums them.
        weight: ``(rows or 1, form.sizes[3], channels or 1)`` for a weighted table.
        evaluator: what computes it and all its derivatives.

    Returns:
        ``(rows, form.sizes[2], channels)``.
    """
    operands, shared = operands_of(x, y, weight)
    return _Derivatives.apply(evaluator, form, (2,), shared, *operands)[0]


def operands_of(x: Tensor, y: Tensor, weight: Tensor | None) -> tuple[Operands, Shared]:
    """Return what an evaluator gets for the arguments of :func:`contract`."""
    operands = [x, y, None] if weight is None else [x, y, None, weight]
    shared = tuple(
        () if t is None else tuple(dim for dim in (0, 2) if t.shape[dim] == 1 and x.shape[dim] != 1) for t in operands
    )
    return operands, shared
