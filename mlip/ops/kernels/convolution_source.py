"""C++ of a convolution and of its gradients, straight-line in the components, with channels as vectors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mlip.ops.kernels.form import ConvolutionForm, Coupling, Factors

VECTOR_BYTES = 64
"""Size of the vectors of channels: AVX-512's; with narrower registers the compiler takes several."""

LARGEST_ACCUMULATION = 24
"""Components that are summed at once: they should stay in registers."""

EDGES_A_BATCH = 32
"""Edges whose factors are kept at once, in the fastest cache."""

Places = dict[tuple[int, int], int]
"""Where the factor of each (m1, m3) of a coupling stands."""

HEAD = """\
#include <cstdint>
#include <cstring>
#ifdef _OPENMP
#include <omp.h>
#endif
#define INLINE static inline __attribute__((always_inline))
typedef {scalar} T;
typedef int64_t I;
template <int V> struct Vector {{ typedef T type __attribute__((vector_size(V * sizeof(T)), aligned(sizeof(T)), may_alias)); }};
template <int V> INLINE typename Vector<V>::type load(const T* p) {{ return *(const typename Vector<V>::type*)p; }}
template <int V> INLINE void store(T* p, typename Vector<V>::type v) {{ *(typename Vector<V>::type*)p = v; }}
template <int V> INLINE T total(typename Vector<V>::type v) {{
  if constexpr (V == 1) return v[0];
  else {{
    typename Vector<V / 2>::type low, high;
    __builtin_memcpy(&low, &v, sizeof(low));
    __builtin_memcpy(&high, (const char*)&v + sizeof(low), sizeof(high));
    return total<V / 2>(low + high);
  }}
}}
"""

_FORWARD = """
extern "C" void forward{suffix}(const T* x, const T* y, const T* w, {tangents}const I* senders, const I* starts, I nodes,
                        T* out, int threads) {{
  #pragma omp parallel for schedule(dynamic, 4) num_threads(threads) if (threads > 1)
  for (I i = 0; i < nodes; ++i) {{
    T* o = out + i * {out_size};
    std::memset(o, 0, {out_size} * sizeof(T));
    for (I first = starts[i]; first < starts[i + 1]; first += {batch}) {{
      const I n = starts[i + 1] - first < {batch} ? starts[i + 1] - first : {batch};
{prepare}
{calls}
    }}
  }}
}}
"""

_BACKWARD = """
extern "C" void backward{suffix}(const T* x, const T* y, const T* w, {tangents}const T* g, const I* senders, const I* starts,
                         I nodes, T* gx, I copy, T* gy, T* gw, int threads) {{
  #pragma omp parallel num_threads(threads) if (threads > 1)
  {{
    int thread = 0;
    #ifdef _OPENMP
    thread = omp_get_thread_num();
    #endif
    T* own = gx ? gx + thread * copy : nullptr;
    #pragma omp for schedule(static)
    for (I i = 0; i < nodes; ++i) {{
      const T* o = g + i * {out_size};
      for (I e = starts[i]; e < starts[i + 1]; ++e) {{
        T ay[{y_size}] = {{}};
        T *xg = gx ? own + senders[e] * {x_size} : nullptr, *wg = gw ? gw + e * {weight_size} : nullptr;
{prepare}
{calls}
        if (gy) for (int k = 0; k < {y_size}; ++k) gy[e * {y_size} + k] = ay[k];
      }}
    }}
  }}
}}
"""

_TANGENTS = "const T* hx, const T* hy, const T* hw, "


def convolution_source(form: ConvolutionForm, scalar: str) -> str:
    """Return the source of ``forward``, ``backward`` and of their derivatives along a direction (``…_tangent``).

    Args:
        form: what is computed.
        scalar: ``float`` or ``double``.
    """
    lanes = VECTOR_BYTES // {"float": 4, "double": 8}[scalar]
    factors = Factors.of(form.couplings)
    places = dict(zip(form.couplings, factors.places))
    names = {
        "out_size": form.out_size, "x_size": form.x_size, "y_size": form.y_size, "weight_size": form.weight_size,
        "batch": EDGES_A_BATCH, "num_factors": len(factors.sums),
    }  # fmt: skip
    parts = [HEAD.format(scalar=scalar), _factors(factors)]
    for tangent in (False, True):
        suffix = "_tangent" if tangent else ""
        forward, backward = [], []
        for number, block in enumerate(form.blocks):
            mul = block[0].mul
            for position, group in enumerate(_groups(block)):
                name = f"forward_{number}_{position}{suffix}"
                parts.append(_forward_function(name, group, places, len(factors.sums), tangent))
                arguments = "n, m, xs, ws, hm, hxs, hws, o, u" if tangent else "n, m, xs, ws, o, u"
                forward += _calls(f"{name}<@>({arguments})", mul, lanes)
            name = f"backward_{number}{suffix}"
            parts.append(_backward_function(name, block, places, tangent))
            operands = "xe, we, m, hxe, hwe, hm" if tangent else "xe, we, m"
            backward += _edge_calls(f"{name}<@>({operands}, o, xg, gy ? ay : nullptr, wg, u, stop)", mul, lanes)
        options = {"suffix": suffix, "tangents": _TANGENTS if tangent else "", **names}
        parts.append(_FORWARD.format(calls="\n".join(forward), prepare=_prepare_batch(names, tangent), **options))
        parts.append(_BACKWARD.format(calls="\n".join(backward), prepare=_prepare_edge(names, tangent), **options))
    return "".join(parts)


def _prepare_batch(names: dict[str, int], tangent: bool) -> str:
    """Return the lines that collect the operands of a batch of edges."""
    kinds = [("", "x", "y", "w"), ("h", "hx", "hy", "hw")] if tangent else [("", "x", "y", "w")]
    lines = []
    for prefix, *_ in kinds:
        lines.append("      T {0}m[{batch} * {num_factors}];".format(prefix, **names))
        lines.append("      const T *{0}xs[{batch}], *{0}ws[{batch}];".format(prefix, **names))
    lines.append("      for (I e = 0; e < n; ++e) {")
    for prefix, x, y, w in kinds:
        lines += [
            "        factors({1} + (first + e) * {y_size}, {0}m + e * {num_factors});".format(prefix, y, **names),
            "        {0}xs[e] = {1} + senders[first + e] * {x_size};".format(prefix, x, **names),
            "        {0}ws[e] = {1} + (first + e) * {weight_size};".format(prefix, w, **names),
        ]
    return "\n".join([*lines, "      }"])


def _prepare_edge(names: dict[str, int], tangent: bool) -> str:
    """Return the lines that collect the operands of one edge."""
    lines = []
    for prefix in ("", "h") if tangent else ("",):
        lines += [
            "        T {0}m[{num_factors}];".format(prefix, **names),
            "        factors({0}y + e * {y_size}, {0}m);".format(prefix, **names),
            "        const T *{0}xe = {0}x + senders[e] * {x_size}, *{0}we = {0}w + e * {weight_size};".format(prefix, **names),
        ]
    return "\n".join(lines)


def _factors(factors: Factors) -> str:
    lines = ["INLINE void factors(const T* __restrict y, T* __restrict m) {"]
    for position, terms in enumerate(factors.sums):
        lines.append(f"  m[{position}] = {' + '.join(f'T({c!r}) * y[{k}]' for k, c in terms)};")
    return "\n".join([*lines, "}\n"])


def pieces(mul: int, lanes: int) -> Iterator[tuple[int, int, int]]:
    """Divide channels into runs of vectors: (lanes, first channel, end), the widest vectors first."""
    start = 0
    while start < mul:
        while lanes > mul - start:
            lanes //= 2
        end = start + (mul - start) // lanes * lanes
        yield lanes, start, end
        start = end


def _calls(call: str, mul: int, lanes: int) -> list[str]:
    return [
        f"      for (I u = {start}; u < {end}; u += {width}) {call.replace('@', str(width))};"
        for width, start, end in pieces(mul, lanes)
    ]


def _edge_calls(call: str, mul: int, lanes: int) -> list[str]:
    return [
        "        " + call.replace("@", str(width)).replace("u, stop", f"{start}, {end}") + ";"
        for width, start, end in pieces(mul, lanes)
    ]


def _groups(block: Sequence[Coupling]) -> list[list[Coupling]]:
    """Divide the couplings of a block so that the results of each group stay in registers."""
    groups: list[list[Coupling]] = [[]]
    for coupling in block:
        if groups[-1] and sum(c.dims[2] for c in groups[-1]) + coupling.dims[2] > LARGEST_ACCUMULATION:
            groups.append([])
        groups[-1].append(coupling)
    return groups


def _forward_function(
    name: str, group: Sequence[Coupling], places: dict[Coupling, Places], stride: int, tangent: bool
) -> str:
    """Return a function that adds up the outputs of some couplings of one block over edges.

    The tangent is ``M(y) (w hx + hw x) + M(hy) w x``.
    """
    mul, dim = group[0].mul, group[0].dims[0]
    written = sorted({c.out + m * mul for c in group for m in range(c.dims[2])})
    prefixes = ("", "h") if tangent else ("",)
    arguments = ", ".join(f"const T* __restrict {p}m, const T* const* {p}xs, const T* const* {p}ws" for p in prefixes)
    lines = [
        f"template <int V> INLINE void {name}(I n, {arguments}, T* __restrict o, I u) {{",
        "  typedef typename Vector<V>::type R;",
        *(f"  R a{column} = load<V>(o + u + {column});" for column in written),
        "  for (I e = 0; e < n; ++e) {",
    ]
    for p in prefixes:
        lines.append(f"    const T *{p}x = {p}xs[e] + u, *{p}w = {p}ws[e] + u, *{p}f = {p}m + e * {stride};")
        lines += [f"    const R {p}x{m} = load<V>({p}x + {group[0].x + m * mul});" for m in range(dim)]
    for coupling in group:
        pairs = _ordered(places[coupling])
        lines += ["    {", *(f"      const R {p}w0 = load<V>({p}w + {coupling.weight});" for p in prefixes)]
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


def _backward_function(name: str, block: Sequence[Coupling], places: dict[Coupling, Places], tangent: bool) -> str:
    """Return a function that adds up the three gradients of an edge over the channels of a block.

    With ``s = M(y) g``: ``gx += w s``, ``gw = x s``, ``gy += C w x g``; with ``hs = M(hy) g`` the tangents are
    ``w hs + hw s``, ``hx s + x hs`` and ``C (w hx + hw x) g``.
    """
    mul, dim = block[0].mul, block[0].dims[0]
    filters = sorted({c.y + m2 for c in block for _, m2, _, _ in c.entries})
    prefixes = ("", "h") if tangent else ("",)
    arguments = ", ".join(f"const T* __restrict {p}{name}" for p in prefixes for name in "xwf")
    lines = [
        f"template <int V> INLINE void {name}({arguments}, const T* __restrict g, T* __restrict gx, T* __restrict ay, "
        "T* __restrict gw, I first, I stop) {",
        "  typedef typename Vector<V>::type R;",
        *(f"  R y{k} = {{}};" for k in filters),
        "  for (I u = first; u < stop; u += V) {",
        *(f"    const R {p}x{m} = load<V>({p}x + u + {block[0].x + m * mul});" for p in prefixes for m in range(dim)),
        *(f"    R a{m} = {{}};" for m in range(dim)),
    ]
    for coupling in block:
        pairs = _ordered(places[coupling])
        lines += [
            "    {",
            *(f"      const R {p}w0 = load<V>({p}w + u + {coupling.weight});" for p in prefixes),
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
            f"        if (gw) store<V>(gw + u + {coupling.weight}, {' + '.join(weighed.format(m) for m in range(dim))});",
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
    lines += [
        "    if (gx) {",
        *(f"      store<V>(gx + u + {block[0].x + m * mul}, a{m} + load<V>(gx + u + {block[0].x + m * mul}));" for m in range(dim)),
        "    }",
        "  }",
        "  if (ay) {",
        *(f"    ay[{k}] += total<V>(y{k});" for k in filters),
        "  }",
        "}\n",
    ]
    return "\n".join(lines)


def _ordered(places: Places) -> list[tuple[tuple[int, int], int]]:
    return sorted(places.items())
