"""C++ of a contraction of nonzero coefficients and of its derivatives: straight-line, channels as vectors."""

from __future__ import annotations

from collections import defaultdict

from mlip.ops.kernels.cpp import HEAD, lanes_of, pieces
from mlip.ops.tensor_product.nonzeros import Form, Shared, WeightedTable

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
    body = _row(form, wanted, read, single, channels)
    function = _FUNCTION.format(
        arguments=", ".join(arguments), pointers="\n".join(pointers), sums="\n".join(sums), calls="\n".join(calls),
        stores="\n".join(stores),
    )  # fmt: skip
    return HEAD.format(scalar=scalar) + body + function


def read_slots(form: Form, wanted: tuple[int, ...]) -> list[int]:
    """Return the slots that the derivatives depend on."""
    slots = range(len(form.sizes))
    return [slot for slot in slots if any(slot != other for other in wanted)]


def _row(form: Form, wanted: tuple[int, ...], read: list[int], single: set[int], channels: int) -> str:
    parameters = [f"const T* __restrict {_SLOTS[s]}p" for s in read] + [f"T* __restrict g{_SLOTS[s]}p" for s in wanted]
    lines = [
        f"template <int V> INLINE void row({', '.join(parameters)}, I u) {{",
        "  typedef typename Vector<V>::type R;",
    ]
    for s in read:
        for k in range(form.sizes[s]):
            value = (
                f"T {_SLOTS[s]}{k} = {_SLOTS[s]}p[{k}]"
                if s in single
                else (f"R {_SLOTS[s]}{k} = load<V>({_SLOTS[s]}p + u + {k * channels})")
            )
            lines.append(f"  const {value};")
    for s in wanted:
        lines += [f"  R g{_SLOTS[s]}{k} = {{}};" for k in range(form.sizes[s])]
    lines += _terms(form, wanted)
    for s in wanted:
        name = _SLOTS[s]
        if s in single:
            lines += [f"  g{name}p[{k}] += total<V>(g{name}{k});" for k in range(form.sizes[s])]
        else:
            lines += [f"  store<V>(g{name}p + u + {k * channels}, g{name}{k});" for k in range(form.sizes[s])]
    return "\n".join([*lines, "}\n"])


def _terms(form: Form, wanted: tuple[int, ...]) -> list[str]:
    weighted = isinstance(form, WeightedTable)
    table = form.table if weighted else form
    by_output: dict[int, dict[int, list[tuple[int, float]]]] = defaultdict(lambda: defaultdict(list))
    for i, j, q, c in table.entries:
        by_output[q][i].append((j, c))
    lines = []
    for q, inputs in sorted(by_output.items()):
        k = form.outputs[q] if weighted else q
        p = form.weights[q] if weighted else None
        lines.append("  {")
        if 2 in wanted or 3 in wanted:
            terms = [
                f"x{i} * ({' + '.join(f'T({c!r}) * y{j}' for j, c in pairs)})" for i, pairs in sorted(inputs.items())
            ]
            lines.append(f"    const R t = {' + '.join(terms)};")
            if 2 in wanted:
                lines.append(f"    gz{k} += {f'w{p} * t' if weighted else 't'};")
            if 3 in wanted:
                lines.append(f"    gw{p} += z{k} * t;")
        if 0 in wanted or 1 in wanted:
            lines.append(f"    const R v = {f'w{p} * z{k}' if weighted else f'R{{}} + z{k}'};")
            for i, pairs in sorted(inputs.items()):
                if 0 in wanted:
                    lines.append(f"    gx{i} += v * ({' + '.join(f'T({c!r}) * y{j}' for j, c in pairs)});")
                if 1 in wanted:
                    lines.append(f"    {{ const R m = v * x{i};")
                    lines += [f"      gy{j} += T({c!r}) * m;" for j, c in pairs]
                    lines.append("    }")
        lines.append("  }")
    return lines
