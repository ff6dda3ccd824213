"""What all generated C++ begins with: vectors of channels."""

from __future__ import annotations

from collections.abc import Iterator

import torch

SCALARS = {torch.float32: "float", torch.float64: "double"}
"""Types of numbers that kernels are generated for."""

VECTOR_BYTES = 64
"""Size of the vectors of channels: AVX-512's; with narrower registers the compiler takes several."""

HEAD = """\
#include <cstdint>
#include <cstring>
#ifdef _OPENMP
#include <omp.h>
#endif
#define MEMBER inline __attribute__((always_inline))
#define INLINE static MEMBER
typedef {scalar} T;
typedef int64_t I;
template <int V> struct Vector {{
  typedef T type __attribute__((vector_size(V * sizeof(T)), aligned(sizeof(T)), may_alias));
}};
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


def lanes_of(scalar: str) -> int:
    """Return how many numbers a vector has."""
    return VECTOR_BYTES // {"float": 4, "double": 8}[scalar]


def pieces(mul: int, lanes: int) -> Iterator[tuple[int, int, int]]:
    """Divide channels into runs of vectors: (lanes, first channel, end), the widest vectors first."""
    start = 0
    while start < mul:
        while lanes > mul - start:
            lanes //= 2
        end = start + (mul - start) // lanes * lanes
        yield lanes, start, end
        start = end
