"""Straight-line Python code that differentiates a form, written from its table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from mlip.ops.tensor_product.nonzeros import Form, NonzeroTable, Shared, WeightedTable

Terms = list[tuple[str, float]]
"""Expressions and their coefficients, to be summed."""


def needed_slots(form: Form, wanted: tuple[int, ...]) -> tuple[int, ...]:
    """Return the slots that are read: all but a single wanted one."""
    return tuple(slot for slot in range(len(form.sizes)) if wanted != (slot,))


def unrolled_source(form: Form, wanted: tuple[int, ...], shared: Shared, name: str = "contraction") -> str:
    """Write a function of the tensors of :func:`needed_slots` that returns the derivative for each wanted slot.

    Sums over shared channels are part of it, sums over shared rows are left to the caller.
    """
    slots, letters = needed_slots(form, wanted), "xyzw"
    lines = [f"def {name}({', '.join(letters[slot] for slot in slots)}):"]
    lines += [f"    {letters[s]}{n} = {letters[s]}[:, {n}]" for s in slots for n in range(form.sizes[s])]
    write = _write_weighted if isinstance(form, WeightedTable) else write_table
    statements, outputs = write(form, wanted)
    lines += [f"    {statement}" for statement in statements]
    wide = next(letters[slot] for slot in slots if not shared[slot])
    for slot in wanted:
        lines.append(f"    results_{slot} = [")
        for k in range(form.sizes[slot]):
            value = linear(outputs[slot][k]) or f"torch.zeros_like({wide}0)"
            lines.append(f"        ({value}).sum(1, keepdim=True)," if 2 in shared[slot] else f"        {value},")
        lines.append("    ]")
    lines.append(f"    return ({' '.join(f'torch.stack(results_{slot}, 1),' for slot in wanted)})")
    return "\n".join(lines) + "\n"


def write_table(
    table: NonzeroTable, wanted: tuple[int, ...], letters: str = "xyz"
) -> tuple[list[str], dict[int, defaultdict[int, Terms]]]:
    """Return statements, and for each wanted slot (one or two) the terms of each component.

    The work is shared by way of pairs of indices whose coefficients are proportional (:func:`shared_columns`),
    for instance (i, j) and (j, i) in a symmetric product. At L = 4 it takes half the multiplications of a plain sum
    over nonzeros:

    - one slot wanted: ``s = Σ ratio · a_i · b_j`` over such pairs, then ``out_k = Σ c · s``;
    - two wanted: ``s = Σ c · z_k``, used for both gradients of all such pairs, ``ratio · s · b_j`` and
      ``ratio · s · a_i``.
    """
    outputs: dict[int, defaultdict[int, Terms]] = {slot: defaultdict(list) for slot in wanted}
    summed = wanted[0] if len(wanted) == 1 else next(s for s in range(3) if s not in wanted)
    a, b = (s for s in range(3) if s != summed)
    statements = []
    for number, (column, members) in enumerate(shared_columns(table, summed)):
        for part, (pairs, factor) in enumerate(alike([((i, j), ratio) for i, j, ratio in members])):
            name = f"s{''.join(map(str, wanted))}_{number}_{part}"
            if len(wanted) == 1:
                products = [(f"{letters[a]}{i} * {letters[b]}{j}", sign) for (i, j), sign in pairs]
                statements.append(f"{name} = {linear(products)}")
                for k, value in column:
                    outputs[summed][k].append((name, factor * value))
                continue
            statements.append(f"{name} = {linear([(f'{letters[summed]}{k}', factor * v) for k, v in column])}")
            for (i, j), sign in pairs:
                outputs[a][i].append((f"{name} * {letters[b]}{j}", sign))
                outputs[b][j].append((f"{name} * {letters[a]}{i}", sign))
    return statements, outputs


def _write_weighted(
    form: WeightedTable, wanted: tuple[int, ...]
) -> tuple[list[str], dict[int, defaultdict[int, Terms]]]:
    """Do as :func:`write_table`; the third slot q of the table is ``w_p z_k`` or, asked for, on the way to both."""
    owners = list(enumerate(zip(form.outputs, form.weights)))
    inputs = tuple(slot for slot in wanted if slot < 2)
    statements, outputs = [], {slot: defaultdict(list) for slot in wanted}
    if inputs:
        statements += [f"q{q} = w{p} * z{k}" for q, (k, p) in owners]
        more, found = write_table(form.table, inputs, "xyq")
        statements += more
        outputs.update(found)
    if len(inputs) < len(wanted):
        more, found = write_table(form.table, (2,), "xyq")
        reached = [(q, owner) for q, owner in owners if found[2][q]]
        statements += more + [f"u{q} = {linear(found[2][q])}" for q, _ in reached]
        for q, (k, p) in reached:
            if 2 in wanted:
                outputs[2][k].append((f"w{p} * u{q}", 1.0))
            if 3 in wanted:
                outputs[3][p].append((f"z{k} * u{q}", 1.0))
    return statements, outputs


def shared_columns(
    table: NonzeroTable, slot: int
) -> list[tuple[list[tuple[int, float]], list[tuple[int, int, float]]]]:
    """Group the pairs of indices of the other two slots by their coefficients in ``slot``, up to a factor.

    Returns:
        (column, members): the coefficient of pair (i, j) and index k is ``ratio · value`` for every ``(k, value)``
        of the column and ``(i, j, ratio)`` of the members.
    """
    a, b = (s for s in range(3) if s != slot)
    columns: dict[tuple[int, int], list[tuple[int, float]]] = defaultdict(list)
    for entry in table.entries:
        columns[entry[a], entry[b]].append((entry[slot], entry[3]))
    groups: dict[tuple[tuple[int, str], ...], list[tuple[tuple[int, int], list[tuple[int, float]]]]] = defaultdict(list)
    for pair, column in columns.items():
        column.sort()
        groups[tuple((k, _digits(value / column[0][1])) for k, value in column)].append((pair, column))
    shared = []
    for members in groups.values():
        first = members[0][1]
        unit = first[0][1] if len(first) == 1 else 1.0
        column = [(k, value / unit) for k, value in first]
        shared.append((column, [(*pair, own[0][1] / column[0][1]) for pair, own in members]))
    return shared


def alike(terms: Iterable[tuple[object, float]]) -> list[tuple[list[tuple[object, float]], float]]:
    """Group terms by the size of their coefficient: [(terms with signs ±1, size)]."""
    groups: dict[str, tuple[list[tuple[object, float]], float]] = {}
    for what, value in terms:
        group = groups.setdefault(_digits(abs(value)), ([], 1.0 if _digits(abs(value)) == _digits(1.0) else abs(value)))
        group[0].append((what, 1.0 if value > 0 else -1.0))
    return list(groups.values())


def linear(terms: Terms) -> str:
    """Write ``Σ value · expression``, terms of equal size summed before they are multiplied."""
    parts = []
    for group, size in alike(terms):
        text = "".join(f" {'+' if sign > 0 else '-'} {what}" for what, sign in group)
        text = text.removeprefix(" + ").replace(" - ", "-", 1) if text.startswith(" - ") else text.removeprefix(" + ")
        parts.append(text if size == 1.0 else f"{size!r} * ({text})")
    return " + ".join(parts)


def _digits(value: float) -> str:
    """Equal for coefficients that are equal but for rounding."""
    return f"{value:.12e}"
