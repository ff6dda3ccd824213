"""What a kernel is generated from: the nonzero coefficients of a convolution, and where its operands lie in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Coupling:
    """One path: ``out[m3, u] += w[u] Σ c x[m1, u] y[m2]`` for the channels u of a block.

    Attributes:
        mul: channels of the blocks of x and out.
        x, y, out, weight: first column of the block of x, of y, of out and of the weights in their rows. The blocks of
            x and out are (components, channels), those of y have one channel.
        dims: components of the blocks of x, y and out.
        entries: (m1, m2, m3, c) of every nonzero c.
    """

    mul: int
    x: int
    y: int
    out: int
    weight: int
    dims: tuple[int, int, int]
    entries: tuple[tuple[int, int, int, float], ...]


@dataclass(frozen=True)
class ConvolutionForm:
    """The form ``F(x, y, w, g) = Σ_e Σ c x[sender] y[e] w[e] g[receiver]``, linear in each of its four operands.

    Its derivative with respect to g is the convolution, those with respect to x, y and w are its gradients, and the
    derivatives of these are F with other tensors in the places: four maps are closed under differentiation.

    Attributes:
        x_size, y_size, weight_size, out_size: columns of the operands.
        couplings: the paths.
    """

    x_size: int
    y_size: int
    weight_size: int
    out_size: int
    couplings: tuple[Coupling, ...]

    @cached_property
    def key(self) -> str:
        """Hash of the content; equal forms have equal keys, in every process."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:32]

    @cached_property
    def num_nonzeros(self) -> int:
        """Coefficients of all paths."""
        return sum(len(coupling.entries) for coupling in self.couplings)

    @cached_property
    def blocks(self) -> tuple[tuple[Coupling, ...], ...]:
        """The couplings of each block of x."""
        places = sorted({coupling.x for coupling in self.couplings})
        return tuple(tuple(c for c in self.couplings if c.x == place) for place in places)


Factor = tuple[tuple[int, float], ...]
"""A number of an edge, ``Σ c y[k]``: pairs (k, c)."""


@dataclass(frozen=True)
class Factors:
    """The numbers of an edge that the channels are multiplied with: coefficients contracted with the filter.

    ``M[m3, m1] = Σ_m2 c y[m2]`` for every coupling, each sum once even if several couplings or entries share it.

    Attributes:
        sums: what to compute for every edge.
        places: for each coupling the position in ``sums`` of every (m1, m3) that is not zero.
    """

    sums: tuple[Factor, ...]
    places: tuple[dict[tuple[int, int], int], ...]

    @classmethod
    def of(cls, couplings: Sequence[Coupling]) -> Factors:
        """Collect the factors of some couplings."""
        sums: dict[Factor, int] = {}
        places = []
        for coupling in couplings:
            terms: dict[tuple[int, int], list[tuple[int, float]]] = {}
            for m1, m2, m3, c in coupling.entries:
                terms.setdefault((m1, m3), []).append((coupling.y + m2, c))
            places.append({pair: sums.setdefault(tuple(sorted(term)), len(sums)) for pair, term in terms.items()})
        return cls(tuple(sums), tuple(places))
