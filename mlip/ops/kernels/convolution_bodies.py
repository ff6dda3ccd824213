"""The innermost loops of a convolution in C++: straight-line in the components, with channels as vectors."""

from __future__ import annotations

from collections.abc import Sequence

from mlip.ops.kernels.form import Coupling

LARGEST_ACCUMULATION = 24
"""Components that are summed at once: they should stay in registers."""

Places = dict[tuple[int, int], int]
"""Where the factor of each (m1, m3) of a coupling stands."""


def groups_of(block: Sequence[Coupling]) -> list[list[Coupling]]:
    """Divide the couplings of a block so that the results of each group stay in registers."""
    groups: list[list[Coupling]] = [[]]
    for coupling in block:
        if groups[-1] and sum(c.dims[2] for c in groups[-1]) + coupling.dims[2] > LARGEST_ACCUMULATION:
            groups.append([])
        groups[-1].append(coupling)
    return groups


def sum_function(
    name: str, group: Sequence[Coupling], places: dict[Coupling, Places], stride: int, tangent: bool
) -> str:
    """Return a function that adds up the outputs of some couplings of one block over edges.

    The tangent is ``M(y) (w hx + hw x) + M(hy) w x``.
    """
    mul, dim = group[0].mul, group[0].dims[0]
    written = sorted({c.out + m * mul for c in group for m in range(c.dims[2])})
    prefixes = ("", "h") if tangent else ("",)
    arguments = ", ".join(f"const T* __restrict {p}m, const T* const* {p}xs, const W* {p}ws" for p in prefixes)
    lines = [
        f"template <int V, class W> INLINE void {name}(I n, {arguments}, T* __restrict o, I u) {{",
        "  typedef typename Vector<V>::type R;",
        *(f"  R a{column} = load<V>(o + u + {column});" for column in written),
        "  for (I e = 0; e < n; ++e) {",
    ]
    for p in prefixes:
        lines.append(f"    const T *{p}x = {p}xs[e] + u, *{p}f = {p}m + e * {stride};")
        lines += [f"    const R {p}x{m} = load<V>({p}x + {group[0].x + m * mul});" for m in range(dim)]
    for coupling in group:
        pairs = _ordered(places[coupling])
        lines += [
            "    {",
            *(f"      const R {p}w0 = {p}ws[e].template value<V>(u + {coupling.weight});" for p in prefixes),
        ]
        # The weight is multiplied with whichever has fewer components.
        early = tangent or dim < coupling.dims[2]
        if early:
            lines += [f"      const R z{m} = w0 * x{m};" for m in range(dim)]
        if tangent:
            lines += [f"      const R hz{m} = w0 * hx{m} + hw0 * x{m};" for m in range(dim)]
        for m3 in range(coupling.dims[2]):
            here = [(m1, place) for (m1, k), place in pairs if k == m3]
            if tangent:
                terms = [f"f[{place}] * hz{m1} + hf[{place}] * z{m1}" for m1, place in here]
            else:
                terms = [f"f[{place}] * {'z' if early else 'x'}{m1}" for m1, place in here]
            target = f"a{coupling.out + m3 * mul}"
            if early:
                lines += [f"      {target} += {term};" for term in terms]
            elif terms:
                lines.append(f"      {target} += w0 * ({' + '.join(terms)});")
        lines.append("    }")
    lines += ["  }", *(f"  store<V>(o + u + {column}, a{column});" for column in written), "}\n"]
    return "\n".join(lines)


def edge_function(name: str, block: Sequence[Coupling], places: dict[Coupling, Places], tangent: bool) -> str:
    """Return a function that adds up the three gradients of an edge over the channels of a block.

    With ``s = M(y) g``: ``gx += w s``, ``gw = x s``, ``gy += C w x g``; with ``hs = M(hy) g`` the tangents are
    ``w hs + hw s``, ``hx s + x hs`` and ``C (w hx + hw x) g``.
    """
    mul, dim = block[0].mul, block[0].dims[0]
    filters = sorted({c.y + m2 for c in block for _, m2, _, _ in c.entries})
    prefixes = ("", "h") if tangent else ("",)
    arguments = ", ".join(f"const T* __restrict {p}x, const W& {p}w, const T* __restrict {p}f" for p in prefixes)
    lines = [
        f"template <int V, class W> INLINE void {name}({arguments}, const T* __restrict g, T* __restrict gx, "
        "T* __restrict ay, T* __restrict gw, I first, I stop) {",
        "  typedef typename Vector<V>::type R;",
        "  R slope = {};",
        *(f"  R y{k} = {{}};" for k in filters),
        "  for (I u = first; u < stop; u += V) {",
        *(f"    const R {p}x{m} = load<V>({p}x + u + {block[0].x + m * mul});" for p in prefixes for m in range(dim)),
        *(f"    R a{m} = {{}};" for m in range(dim)),
    ]
    for coupling in block:
        lines += _gradients(coupling, _ordered(places[coupling]), prefixes)
    lines += [
        "    if (gx) {",
        *(
            f"      store<V>(gx + u + {block[0].x + m * mul}, a{m} + load<V>(gx + u + {block[0].x + m * mul}));"
            for m in range(dim)
        ),
        "    }",
        "  }",
        "  if constexpr (W::tabulated) { if (gw) gw[0] += total<V>(slope); }",
        "  if (ay) {",
        *(f"    ay[{k}] += total<V>(y{k});" for k in filters),
        "  }",
        "}\n",
    ]
    return "\n".join(lines)


def _gradients(coupling: Coupling, pairs: list[tuple[tuple[int, int], int]], prefixes: Sequence[str]) -> list[str]:
    """Return the lines of one coupling in :func:`edge_function`."""
    mul, dim, tangent = coupling.mul, coupling.dims[0], len(prefixes) > 1
    lines = [
        "    {",
        *(f"      const R {p}w0 = {p}w.template value<V>(u + {coupling.weight});" for p in prefixes),
        *(f"      const R g{m} = load<V>(g + u + {coupling.out + m * mul});" for m in range(coupling.dims[2])),
        "      if (gx || gw) {",
    ]
    for p in prefixes:
        for m1 in range(dim):
            terms = [f"{p}f[{place}] * g{m3}" for (k, m3), place in pairs if k == m1]
            lines.append(f"        const R {p}s{m1} = {' + '.join(terms) if terms else 'R{}'};")
    gained = "w0 * hs{0} + hw0 * s{0}" if tangent else "w0 * s{0}"
    weighed = "hx{0} * s{0} + x{0} * hs{0}" if tangent else "x{0} * s{0}"
    lines += [
        *(f"        a{m} += {gained.format(m)};" for m in range(dim)),
        "        if (gw) {",
        f"          const R t = {' + '.join(weighed.format(m) for m in range(dim))};",
        f"          if constexpr (W::tabulated) slope += t * w.template slope<V>(u + {coupling.weight});",
        f"          else store<V>(gw + u + {coupling.weight}, t);",
        "        }",
        "      }",
        "      if (ay) {",
    ]
    early = tangent or dim < coupling.dims[2]
    scaled = "w0 * hx{0} + hw0 * x{0}" if tangent else "w0 * x{0}" if early else "w0 * g{0}"
    lines += [f"        const R z{k} = {scaled.format(k)};" for k in range(dim if early else coupling.dims[2])]
    for (m1, m3), _ in pairs:
        lines.append(f"        {{ const R q = {f'z{m1} * g{m3}' if early else f'x{m1} * z{m3}'};")
        lines += [
            f"          y{coupling.y + m2} += T({c!r}) * q;" for a, m2, b, c in coupling.entries if (a, b) == (m1, m3)
        ]
        lines.append("        }")
    lines += ["      }", "    }"]
    return lines


def _ordered(places: Places) -> list[tuple[tuple[int, int], int]]:
    return sorted(places.items())
