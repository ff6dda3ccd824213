"""C++ of a convolution, of its gradients and of the tangents of both."""

from __future__ import annotations

from mlip.ops.kernels.convolution_bodies import edge_function, groups_of, sum_function
from mlip.ops.kernels.cpp import HEAD, lanes_of, pieces
from mlip.ops.kernels.form import ConvolutionForm, Factors

EDGES_A_BATCH = 32
"""Edges whose factors are kept at once, in the fastest cache."""

WEIGHTS = """\
// Weights of an edge: given as numbers, or cubics, of which a table has the coefficients.
struct Given {
  const T* w;
  static constexpr bool tabulated = false;
  template <int V> MEMBER typename Vector<V>::type value(I k) const { return load<V>(w + k); }
};
struct Tabulated {
  const T* w;
  I stride;
  T b[4], d[4];
  static constexpr bool tabulated = true;
  template <int V> MEMBER typename Vector<V>::type mixed(const T* f, I k) const {
    return f[0] * load<V>(w + k) + f[1] * load<V>(w + stride + k) + f[2] * load<V>(w + 2 * stride + k)
         + f[3] * load<V>(w + 3 * stride + k);
  }
  template <int V> MEMBER typename Vector<V>::type value(I k) const { return mixed<V>(b, k); }
  template <int V> MEMBER typename Vector<V>::type slope(I k) const { return mixed<V>(d, k); }
};
INLINE Tabulated tabulated(const T* table, I cells, I stride, T steps, T r) {
  const T s = r * steps;
  I cell = (I)s;
  cell = cell < 0 ? 0 : cell > cells - 1 ? cells - 1 : cell;
  const T t = s - cell;
  return {table + 4 * cell * stride, stride, {1, t, t * t, t * t * t}, {0, steps, 2 * steps * t, 3 * steps * t * t}};
}
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
extern "C" void backward{suffix}(const T* x, const T* y, {weights}, {tangents}const T* g, const I* senders,
                         const I* starts, I nodes, T* gx, I copy, T* gy, T* gw, int threads) {{
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

_TABLE = "const T* r, const T* table, I cells, T steps"
_TANGENTS = "const T* hx, const T* hy, const T* hw, "


def convolution_source(form: ConvolutionForm, scalar: str) -> str:
    """Return the source of ``forward``, ``backward`` and of their derivatives along a direction (``…_tangent``).

    Args:
        form: what is computed.
        scalar: ``float`` or ``double``.
    """
    lanes = lanes_of(scalar)
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
            for position, group in enumerate(groups_of(block)):
                name = f"sum_{number}_{position}{suffix}"
                parts.append(sum_function(name, group, places, len(factors.sums), tangent))
                arguments = "n, m, xs, ws, hm, hxs, hws, o, u" if tangent else "n, m, xs, ws, o, u"
                forward += _calls(f"{name}<@>({arguments})", mul, lanes)
            name = f"edge_{number}{suffix}"
            parts.append(edge_function(name, block, places, tangent))
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
        return f"tabulated(table, cells, {size}, steps, r[{edge}])"
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
