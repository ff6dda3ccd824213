"""C++ of a contraction of nonzero coefficients and of its derivatives: straight-line, channels as vectors."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from mlip.ops.kernels.cpp import HEAD, lanes_of, pieces
from mlip.ops.tensor_product.nonzeros import Form, Shared, WeightedTable

NONZEROS_A_FUNCTION = 600
"""Coefficients that are written into one function: compilers take a third longer for all in one, and functions half as
large run slower, as they read and write all components again."""

_SLOTS = "xyzw"

_FUNCTION = """
extern "C" void evaluate({arguments}, I rows, int threads) {{
  #pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
  for (I r = 0; r < rows; ++r) {{
{pointers}
{sums}
{calls}
{stores}
  }}
}}
"""


@dataclass(frozen=True)
class _Component:
    """A component of the coupled inputs: ``Σ_i x_i Σ_j c y_j`` for ``inputs[i] = [(j, c), …]``.

    Attributes:
        result: component of z that it goes to.
        weight: that it is scaled by, None where there are none.
    """

    result: int
    weight: int | None
    inputs: dict[int, list[tuple[int, float]]]


def contraction_source(form: Form, wanted: tuple[int, ...], shared: Shared, channels: int, scalar: str) -> str:
    """Return the source of ``evaluate``: derivatives of a form with respect to slots.

    Its arguments are, for each slot that is read, a pointer and the stride of its rows (0 for a shared row), for each
    wanted slot a pointer to ``(rows, size, channels or 1)``; sums over shared rows are the caller's.

    Args:
        form, wanted, shared: as for :func:`mlip.ops.tensor_product.nonzeros.evaluate_eagerly`.
        channels: of the slots that have any.
        scalar: ``float`` or ``double``.
    """
    read = read_slots(form, wanted)
    single = {slot for slot in range(len(form.sizes)) if 2 in shared[slot]}
    arguments = [f"const T* {_SLOTS[slot]}, I s{_SLOTS[slot]}" for slot in read]
    arguments += [f"T* g{_SLOTS[slot]}" for slot in wanted]
    pointers = [f"    const T* {_SLOTS[s]}r = {_SLOTS[s]} + r * s{_SLOTS[s]};" for s in read]
    pointers += [
        f"    T* g{_SLOTS[s]}r = g{_SLOTS[s]} + r * {form.sizes[s] * (1 if s in single else channels)};" for s in wanted
    ]
    summed = [slot for slot in wanted if slot in single]
    sums = [f"    T t{_SLOTS[s]}[{form.sizes[s]}] = {{}};" for s in summed]
    stores = [f"    for (int k = 0; k < {form.sizes[s]}; ++k) g{_SLOTS[s]}r[k] = t{_SLOTS[s]}[k];" for s in summed]
    names = [f"{_SLOTS[s]}r" for s in read] + [f"t{_SLOTS[s]}" if s in single else f"g{_SLOTS[s]}r" for s in wanted]
    lanes = lanes_of(scalar)
    calls = [
        f"    for (I u = {start}; u < {end}; u += {width}) row<{width}>({', '.join(names)}, u);"
        for width, start, end in pieces(channels, lanes)
    ]
    body = _rows(form, wanted, read, single, channels)
    function = _FUNCTION.format(
        arguments=", ".join(arguments), pointers="\n".join(pointers), sums="\n".join(sums), calls="\n".join(calls),
        stores="\n".join(stores),
    )  # fmt: skip
    return HEAD.format(scalar=scalar) + body + function


def read_slots(form: Form, wanted: tuple[int, ...]) -> list[int]:
    """Return the slots that the derivatives depend on."""
    slots = range(len(form.sizes))
    return [slot for slot in slots if any(slot != other for other in wanted)]


def _parts(form: Form) -> list[list[_Component]]:
    """Divide the components of the coupled inputs, those of one result together, into parts of the code."""
    weighted = isinstance(form, WeightedTable)
    table = form.table if weighted else form
    terms: dict[int, dict[int, list[tuple[int, float]]]] = defaultdict(lambda: defaultdict(list))
    for i, j, q, c in table.entries:
        terms[q][i].append((j, c))
    components = [
        _Component(form.outputs[q], form.weights[q], inputs) if weighted else _Component(q, None, inputs)
        for q, inputs in terms.items()
    ]
    parts: list[list[_Component]] = [[]]
    count = 0
    for component in sorted(components, key=lambda component: component.result):
        size = sum(len(pairs) for pairs in component.inputs.values())
        if parts[-1] and count + size > NONZEROS_A_FUNCTION:
            parts.append([])
            count = 0
        parts[-1].append(component)
        count += size
    return parts


def _rows(form: Form, wanted: tuple[int, ...], read: list[int], single: set[int], channels: int) -> str:
    """Return one function for each part of the coefficients, and ``row``, which calls them all."""
    parameters = [f"const T* __restrict {_SLOTS[s]}p" for s in read] + [f"T* __restrict g{_SLOTS[s]}p" for s in wanted]
    names = [f"{_SLOTS[s]}p" for s in read] + [f"g{_SLOTS[s]}p" for s in wanted]
    functions, calls = [], []
    written: dict[int, set[int]] = {slot: set() for slot in wanted}
    for number, part in enumerate(_parts(form)):
        calls.append(f"  part{number}<V>({', '.join(names)}, u);")
        lines = [
            f"template <int V> static __attribute__((noinline)) void part{number}({', '.join(parameters)}, I u) {{",
            "  typedef typename Vector<V>::type R;",
        ]
        used = _used(part)
        for s in read:
            kind, where = ("T", "{}[{}]") if s in single else ("R", f"load<V>({{}} + u + {{}} * {channels})")
            lines += [f"  const {kind} {_SLOTS[s]}{k} = {where.format(f'{_SLOTS[s]}p', k)};" for k in used[s]]
        for s in wanted:
            # Sums over channels are added up in memory; of the others the first part begins.
            for k in used[s]:
                again = k in written[s] and s not in single
                begin = f"load<V>(g{_SLOTS[s]}p + u + {k * channels})" if again else "{}"
                lines.append(f"  R g{_SLOTS[s]}{k} = {begin};")
        for component in part:
            lines += _terms(component, wanted)
        for s in wanted:
            written[s] |= set(used[s])
            store = "  {0}p[{1}] += total<V>({0}{1});" if s in single else "  store<V>({0}p + u + {2}, {0}{1});"
            lines += [store.format(f"g{_SLOTS[s]}", k, k * channels) for k in used[s]]
        functions.append("\n".join([*lines, "}\n"]))
    lines = [f"template <int V> INLINE void row({', '.join(parameters)}, I u) {{", *calls]
    for s in wanted:
        if s not in single:
            missing = [k for k in range(form.sizes[s]) if k not in written[s]]
            lines += [f"  store<V>(g{_SLOTS[s]}p + u + {k * channels}, typename Vector<V>::type{{}});" for k in missing]
    return "".join(functions) + "\n".join([*lines, "}\n"])


def _used(part: list[_Component]) -> list[list[int]]:
    """Return the components of each slot that occur."""
    used: tuple[set[int], ...] = (set(), set(), set(), set())
    for component in part:
        used[0].update(component.inputs)
        used[1].update(j for pairs in component.inputs.values() for j, _ in pairs)
        used[2].add(component.result)
        if component.weight is not None:
            used[3].add(component.weight)
    return [sorted(places) for places in used]


def _terms(component: _Component, wanted: tuple[int, ...]) -> list[str]:
    """Return the lines of one component: ``t`` couples the inputs, ``v`` is what both gradients are scaled with."""
    k, p, inputs = component.result, component.weight, sorted(component.inputs.items())
    lines = ["  {"]
    if set(wanted) != {1}:
        lines += [f"    const auto s{i} = {' + '.join(f'T({c!r}) * y{j}' for j, c in pairs)};" for i, pairs in inputs]
    if 2 in wanted or 3 in wanted:
        lines.append(f"    const R t = {' + '.join(f'x{i} * s{i}' for i, _ in inputs)};")
        if 2 in wanted:
            lines.append(f"    gz{k} += {'t' if p is None else f'w{p} * t'};")
        if 3 in wanted:
            lines.append(f"    gw{p} += z{k} * t;")
    if 0 in wanted or 1 in wanted:
        lines.append(f"    const R v = {f'R{{}} + z{k}' if p is None else f'w{p} * z{k}'};")
        for i, pairs in inputs:
            if 0 in wanted:
                lines.append(f"    gx{i} += v * s{i};")
            if 1 in wanted:
                lines.append(f"    {{ const R m = v * x{i};")
                lines += [f"      gy{j} += T({c!r}) * m;" for j, c in pairs]
                lines.append("    }")
    return [*lines, "  }"]
