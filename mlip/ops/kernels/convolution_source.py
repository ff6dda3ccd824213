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

WEIGHTS = """\
// Weights of an edge: given as numbers, or cubic splines of a parameter in a table of their coefficients.
struct Given {
  const T* w;
  static constexpr bool tabulated = false;
  template <int V> inline __attribute__((always_inline)) typename Vector<V>::type value(I k) const { return load<V>(w + k); }
};
struct Tabulated {
  const T* w;
  I stride;
  T b[4], d[4];
  static constexpr bool tabulated = true;
  template <int V> inline __attribute__((always_inline)) typename Vector<V>::type mixed(const T* f, I k) const {
    return f[0] * load<V>(w + k) + f[1] * load<V>(w + stride + k) + f[2] * load<V>(w + 2 * stride + k)
         + f[3] * load<V>(w + 3 * stride + k);
  }
  template <int V> inline __attribute__((always_inline)) typename Vector<V>::type value(I k) const { return mixed<V>(b, k); }
  template <int V> inline __attribute__((always_inline)) typename Vector<V>::type slope(I k) const { return mixed<V>(d, k); }
};
INLINE Tabulated tabulated(const T* table, I rows, I stride, T steps, T r) {
  const T s = r * steps;
  I cell = (I)s;
  cell = cell < 0 ? 0 : cell > rows - 4 ? rows - 4 : cell;
  const T t = s - cell, u = 1 - t, h = steps;
  return {table + cell * stride, stride,
          {u * u * u / 6, (3 * t * t * t - 6 * t * t + 4) / 6, (3 * u * u * u - 6 * u * u + 4) / 6, t * t * t / 6},
          {-h * u * u / 2, h * (3 * t * t - 4 * t) / 2, -h * (3 * u * u - 4 * u) / 2, h * t * t / 2}};
}
"""

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
extern "C" void forward{suffix}(const T* x, const T* y, {weights}, {tangents}const I* senders, const I* starts, I nodes,
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
extern "C" void backward{suffix}(const T* x, const T* y, {weights}, {tangents}const T* g, const I* senders, const I* starts,
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
        T *xg = gx ? own + senders[e] * {x_size} : nullptr, *wg = gw ? gw + e * {gradient_size} : nullptr;
{prepare}
{calls}
        if (gy) for (int k = 0; k < {y_size}; ++k) gy[e * {y_size} + k] = ay[k];
      }}
    }}
  }}
}}
"""

_TABLE = "const T* r, const T* table, I rows, T steps"
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
    parts = [HEAD.format(scalar=scalar), WEIGHTS, _factors(factors)]
    for tangent in (False, True):
        suffix = "_tangent" if tangent else ""
        forward, backward = [], []
        for number, block in enumerate(form.blocks):
            mul = block[0].mul
            for position, group in enumerate(_groups(block)):
                name = f"sum_{number}_{position}{suffix}"
                parts.append(_forward_function(name, group, places, len(factors.sums), tangent))
                arguments = "n, m, xs, ws, hm, hxs, hws, o, u" if tangent else "n, m, xs, ws, o, u"
                forward += _calls(f"{name}<@>({arguments})", mul, lanes)
            name = f"edge_{number}{suffix}"
            parts.append(_backward_function(name, block, places, tangent))
            operands = "xe, we, m, hxe, hwe, hm" if tangent else "xe, we, m"
            backward += _edge_calls(f"{name}<@>({operands}, o, xg, gy ? ay : nullptr, wg, u, stop)", mul, lanes)
        for kind in ("",) if tangent else ("", "_table"):
            options = {
                "suffix": suffix + kind, "tangents": _TANGENTS if tangent else "",
                "weights": _TABLE if kind else "const T* w", "gradient_size": 1 if kind else form.weight_size, **names,
            }  # fmt: skip
            prepare = _prepare_batch(names, tangent, bool(kind)), _prepare_edge(names, tangent, bool(kind))
            parts.append(_FORWARD.format(calls="\n".join(forward), prepare=prepare[0], **options))
            parts.append(_BACKWARD.format(calls="\n".join(backward), prepare=prepare[1], **options))
    return "".join(parts)


def _weights(prefix: str, edge: str, size: int, table: bool) -> str:
    """Return the expression that makes the weights of an edge."""
    if table:
        return f"tabulated(table, rows, {size}, steps, r[{edge}])"
    return f"Given{{{prefix}w + ({edge}) * {size}}}"


def _prepare_batch(names: dict[str, int], tangent: bool, table: bool) -> str:
    """Return the lines that collect the operands of a batch of edges."""
    kind, lines, inner = "Tabulated" if table else "Given", [], []
    for prefix in ("", "h") if tangent else ("",):
        lines += [
            "      T {0}m[{batch} * {num_factors}];".format(prefix, **names),
            "      const T* {0}xs[{batch}];".format(prefix, **names),
            "      {1} {0}ws[{batch}];".format(prefix, kind, **names),
        ]
        inner += [
            "        factors({0}y + (first + e) * {y_size}, {0}m + e * {num_factors});".format(prefix, **names),
            "        {0}xs[e] = {0}x + senders[first + e] * {x_size};".format(prefix, **names),
            f"        {prefix}ws[e] = {_weights(prefix, 'first + e', names['weight_size'], table)};",
        ]
    return "\n".join([*lines, "      for (I e = 0; e < n; ++e) {", *inner, "      }"])


def _prepare_edge(names: dict[str, int], tangent: bool, table: bool) -> str:
    """Return the lines that collect the operands of one edge."""
    lines = []
    for prefix in ("", "h") if tangent else ("",):
        lines += [
            "        T {0}m[{num_factors}];".format(prefix, **names),
            "        factors({0}y + e * {y_size}, {0}m);".format(prefix, **names),
            "        const T* {0}xe = {0}x + senders[e] * {x_size};".format(prefix, **names),
            f"        const auto {prefix}we = {_weights(prefix, 'e', names['weight_size'], table)};",
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
        lines += ["    {", *(f"      const R {p}w0 = {p}ws[e].template value<V>(u + {coupling.weight});" for p in prefixes)]
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
    arguments = ", ".join(f"const T* __restrict {p}x, const W& {p}w, const T* __restrict {p}f" for p in prefixes)
    lines = [
        f"template <int V, class W> INLINE void {name}({arguments}, const T* __restrict g, T* __restrict gx, T* __restrict ay, "
        "T* __restrict gw, I first, I stop) {",
        "  typedef typename Vector<V>::type R;",
        "  R slope = {};",
        *(f"  R y{k} = {{}};" for k in filters),
        "  for (I u = first; u < stop; u += V) {",
        *(f"    const R {p}x{m} = load<V>({p}x + u + {block[0].x + m * mul});" for p in prefixes for m in range(dim)),
        *(f"    R a{m} = {{}};" for m in range(dim)),
    ]
    for coupling in block:
        pairs = _ordered(places[coupling])
        lines += [
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
    lines += [
        "    if (gx) {",
        *(f"      store<V>(gx + u + {block[0].x + m * mul}, a{m} + load<V>(gx + u + {block[0].x + m * mul}));" for m in range(dim)),
        "    }",
        "  }",
        "  if constexpr (W::tabulated) { if (gw) gw[0] += total<V>(slope); }",
        "  if (ay) {",
        *(f"    ay[{k}] += total<V>(y{k});" for k in filters),
        "  }",
        "}\n",
    ]
    return "\n".join(lines)


def _ordered(places: Places) -> list[tuple[tuple[int, int], int]]:
    return sorted(places.items())
