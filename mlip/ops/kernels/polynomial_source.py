"""C++ of weighted polynomials, of their gradients and of the tangents of both."""

from __future__ import annotations

from collections.abc import Iterable

from mlip.ops.kernels.cpp import HEAD, lanes_of, pieces
from mlip.ops.kernels.polynomial_form import Node, PolynomialForm

_DUAL = """\
// A number and its derivative along a direction: the same code computes values and tangents.
template <class R> struct Dual { R v, h; };
template <class R> MEMBER Dual<R> operator+(Dual<R> a, Dual<R> b) { return {a.v + b.v, a.h + b.h}; }
template <class R> MEMBER Dual<R> operator+(Dual<R> a, R b) { return {a.v + b, a.h}; }
template <class R> MEMBER Dual<R> operator*(Dual<R> a, Dual<R> b) { return {a.v * b.v, a.v * b.h + a.h * b.v}; }
template <class R> MEMBER Dual<R> operator*(Dual<R> a, R b) { return {a.v * b, a.h * b}; }
template <class R> MEMBER R result(R a) { return a; }
template <class R> MEMBER R result(Dual<R> a) { return a.h; }
template <class N, int V> struct Read {
  static MEMBER N at(const T* x, const T*, I k) { return load<V>(x + k); }
};
template <int V> struct Read<Dual<typename Vector<V>::type>, V> {
  typedef Dual<typename Vector<V>::type> N;
  static MEMBER N at(const T* x, const T* h, I k) { return {load<V>(x + k), load<V>(h + k)}; }
};
"""

_ENTRIES = """
extern "C" void forward{suffix}(const T* x, {tangent}const T* p, const I* order, const I* starts, I sets, T* out,
                                int threads) {{
  #pragma omp parallel for schedule(dynamic, 4) num_threads(threads) if (threads > 1)
  for (I n = 0; n < starts[sets]; ++n) {{
    I s = 0;
    while (starts[s + 1] <= n) ++s;
    const I r = order[n];
    const T *xr = x + r * {x_size}, *hr = {hx} + r * {x_size}, *w = p + s * {p_size};
    T* o = out + r * {out_size};
{forward}
  }}
}}
extern "C" void backward{suffix}(const T* x, {tangent}const T* p, const T* g, const I* order, const I* starts, I sets,
                                 T* gx, T* gp, int threads) {{
  #pragma omp parallel num_threads(threads) if (threads > 1)
  if (gp) {{
    // Rows add up to the weights of their set: a set and a vector of channels belong to one thread.
    #pragma omp for schedule(dynamic, 1)
    for (I job = 0; job < sets * {jobs}; ++job) {{
      const I s = job / {jobs}, first = job % {jobs};
      for (I n = starts[s]; n < starts[s + 1]; ++n) {{
        const I r = order[n];
        const T *xr = x + r * {x_size}, *hr = {hx} + r * {x_size}, *gr = g + r * {out_size}, *w = p + s * {p_size};
        T *o = gx + r * {x_size}, *wo = gp + s * {p_size};
{one}
      }}
    }}
  }} else {{
    #pragma omp for schedule(dynamic, 4)
    for (I n = 0; n < starts[sets]; ++n) {{
      I s = 0;
      while (starts[s + 1] <= n) ++s;
      const I r = order[n];
      const T *xr = x + r * {x_size}, *hr = {hx} + r * {x_size}, *gr = g + r * {out_size}, *w = p + s * {p_size};
      T *o = gx + r * {x_size};
{all}
    }}
  }}
}}
"""


def polynomial_source(form: PolynomialForm, scalar: str) -> str:
    """Return the source of ``forward``, ``backward`` and of the tangents of both along a direction of x.

    Args:
        form: the monomials.
        scalar: ``float`` or ``double``.
    """
    channels = form.num_channels
    runs = list(pieces(channels, lanes_of(scalar)))
    entries = []
    for suffix, dual in (("", False), ("_tangent", True)):
        forward, one, every, job = [], [], [], 0
        for width, start, end in runs:
            number = f"{'Dual<' * dual}Vector<{width}>::type{'>' * dual}"
            loop = f"for (I u = {start}; u < {end}; u += {width})"
            forward.append(f"    {loop} sum<{width}, {number}>(xr, hr, w, o, u);")
            every.append(f"      {loop} gradients<{width}, {number}, false>(xr, hr, w, gr, o, o, u);")
            jobs = (end - start) // width
            one.append(
                f"        if (first >= {job} && first < {job + jobs}) "
                f"gradients<{width}, {number}, true>(xr, hr, w, gr, o, wo, {start} + (first - {job}) * {width});"
            )
            job += jobs
        entries.append(
            _ENTRIES.format(
                suffix=suffix,
                tangent="const T* hx, " * dual,
                hx="hx" if dual else "x",
                forward="\n".join(forward),
                one="\n".join(one),
                all="\n".join(every),
                x_size=form.num_inputs * channels,
                out_size=form.num_outputs * channels,
                p_size=len(form.monomials) * channels,
                jobs=job,
            )
        )
    return HEAD.format(scalar=scalar) + _DUAL + _sum(form) + _gradients(form) + "".join(entries)


def _load_inputs(form: PolynomialForm, used: Iterable[int]) -> list[str]:
    return [f"  const N x{i} = Read<N, V>::at(x, hx, u + {i * form.num_channels});" for i in used]


def _weight(form: PolynomialForm, place: int) -> str:
    return f"load<V>(w + u + {place * form.num_channels})"


def _sum(form: PolynomialForm) -> str:
    """Horner's scheme in many variables: ``Σ_i x_i (w_i + Σ_j x_j (w_ij + …))``."""
    c = form.num_channels
    lines = [
        "template <int V, class N> static __attribute__((noinline)) void sum(const T* __restrict x, "
        "const T* __restrict hx, const T* __restrict w, T* __restrict o, I u) {",
        "  typedef typename Vector<V>::type R;",
        *_load_inputs(form, range(form.num_inputs)),
    ]
    written = set()
    for output, root in form.trees:
        written.add(output)
        lines.append("  {")
        lines += _horner(form, root, "a", "    ")
        lines += [f"    store<V>(o + u + {output * c}, result(a));", "  }"]
    lines += [f"  store<V>(o + u + {k * c}, R{{}});" for k in range(form.num_outputs) if k not in written]
    return "\n".join([*lines, "}\n"])


def _horner(form: PolynomialForm, node: Node, name: str, indent: str) -> list[str]:
    lines = [f"{indent}N {name} = {{}};"]
    if node.weight is not None:
        lines.append(f"{indent}{name} = {name} + {_weight(form, node.weight)};")
    for variable, child in node.children:
        if not child.children:
            lines.append(f"{indent}{name} = {name} + x{variable} * {_weight(form, child.weight)};")
            continue
        lines.append(f"{indent}{{")
        lines += _horner(form, child, f"{name}{variable}", indent + "  ")
        lines += [f"{indent}  {name} = {name} + x{variable} * {name}{variable};", f"{indent}}}"]
    return lines


def _gradients(form: PolynomialForm) -> str:
    """The gradients of one tree after the other, added up in memory: the compiler takes small functions better.

    Products of the variables so far come down a tree, sums behind them go up.
    """
    c = form.num_channels
    arguments = (
        "const T* __restrict x, const T* __restrict hx, const T* __restrict w, const T* __restrict g, "
        "T* __restrict o, T* __restrict wo, I u"
    )
    head = "template <int V, class N, bool P> static"
    parts = []
    for output, root in form.trees:
        used = sorted(_variables(root))
        lines = [
            f"{head} __attribute__((noinline)) void gradients{output}({arguments}) {{",
            "  typedef typename Vector<V>::type R;",
            *_load_inputs(form, used),
            *(f"  N d{i} = {{}};" for i in used),
            f"  const R s = load<V>(g + u + {output * c});",
        ]
        for variable, child in root.children:
            lines += _descend(form, child, variable, "s", f"s{variable}", "  ")
        lines += [f"  store<V>(o + u + {i * c}, load<V>(o + u + {i * c}) + result(d{i}));" for i in used]
        parts.append("\n".join([*lines, "}\n"]))
    lines = [f"{head} void gradients({arguments}) {{"]
    lines += [f"  store<V>(o + u + {i * c}, typename Vector<V>::type{{}});" for i in range(form.num_inputs)]
    lines += [f"  gradients{output}<V, N, P>(x, hx, w, g, o, wo, u);" for output, _ in form.trees]
    return "".join(parts) + "\n".join([*lines, "}\n"])


def _variables(node: Node) -> set[int]:
    found = {variable for variable, _ in node.children}
    return found.union(*(_variables(child) for _, child in node.children))


def _descend(form: PolynomialForm, node: Node, variable: int, above: str, name: str, indent: str) -> list[str]:
    """``name`` is the cotangent times all variables so far, ``t…`` the sum behind this node."""
    lines = [f"{indent}{{", f"{indent}  const N {name} = x{variable} * {above};"]
    inner = indent + "  "
    if node.weight is not None:
        where = f"wo + u + {node.weight * form.num_channels}"
        lines.append(f"{inner}if constexpr (P) store<V>({where}, load<V>({where}) + result({name}));")
    if not node.children:
        lines.append(f"{inner}d{variable} = d{variable} + {above} * {_weight(form, node.weight)};")
        if above != "s":
            lines.append(f"{inner}t{above} = t{above} + x{variable} * {_weight(form, node.weight)};")
    else:
        lines.append(f"{inner}N t{name} = {{}};")
        if node.weight is not None:
            lines.append(f"{inner}t{name} = t{name} + {_weight(form, node.weight)};")
        for v, child in node.children:
            lines += _descend(form, child, v, name, f"{name}_{v}", inner)
        lines.append(f"{inner}d{variable} = d{variable} + t{name} * {above};")
        if above != "s":
            lines.append(f"{inner}t{above} = t{above} + t{name} * x{variable};")
    return [*lines, f"{indent}}}"]
