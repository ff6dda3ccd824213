"""What a kernel of polynomials is generated from: which variables each weighted monomial multiplies."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

Monomial = tuple[int, tuple[int, ...]]
"""The output that a monomial is added to, and its variables in ascending order."""


@dataclass(frozen=True)
class PolynomialForm:
    """``F(x, p, g) = Σ_q g[c_q] p[q] Π_k x[i_qk]``, channel by channel; x, p and g have the same channels.

    Attributes:
        num_inputs, num_outputs: variables and results.
        num_channels: channels of everything.
        monomials: sorted; their places are those of their weights.
    """

    num_inputs: int
    num_outputs: int
    num_channels: int
    monomials: tuple[Monomial, ...]

    @cached_property
    def key(self) -> str:
        """Hash of the content; equal forms have equal keys, in every process."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:32]

    @cached_property
    def trees(self) -> tuple[tuple[int, Node], ...]:
        """The monomials of each output as a tree: those with the same first variables share their product."""
        found = []
        for output, group in groupby(enumerate(self.monomials), key=lambda item: item[1][0]):
            found.append((output, _node([(variables, place) for place, (_, variables) in group])))
        return tuple(found)


@dataclass(frozen=True)
class Node:
    """All monomials that begin with the same variables.

    Attributes:
        weight: place of the one that ends here; None if there is none.
        children: the next variable, and what begins with it.
    """

    weight: int | None
    children: tuple[tuple[int, Node], ...]


def _node(items: list[tuple[tuple[int, ...], int]]) -> Node:
    ends = [place for variables, place in items if not variables]
    rest = [(variables, place) for variables, place in items if variables]
    groups = groupby(rest, key=lambda item: item[0][0])
    children = tuple((v, _node([(variables[1:], place) for variables, place in group])) for v, group in groups)
    return Node(ends[0] if ends else None, children)
