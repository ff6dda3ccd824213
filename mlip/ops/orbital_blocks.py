"""Blocks of a matrix over atomic orbitals: padded, as irreps, and where they stand in the matrix.

A block belongs to a pair of atoms. All blocks have one padded layout with room for the shells of every element: first
the s shells, then the p shells, …, each shell ``m = -l … l``. The slots that an element lacks are masked. Harmonics of
orbitals are about the z axis (:mod:`mlip.data.orbitals`), those of the package about y: features must have been made
from vectors in the order (y, z, x), see :func:`orbital_axes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from e3nn.o3 import Irrep, Irreps
from torch import Tensor

from mlip.core.errors import ConfigError, ShapeError
from mlip.ops.constants import ConstantsModule
from mlip.ops.layout import split_blocks
from mlip.ops.wigner import wigner_3j

LARGEST_SHELL = 6
"""Highest degree of a shell; blocks then have irreps up to twice that."""


def orbital_axes(vectors: Tensor) -> Tensor:
    """Return vectors ``(..., 3)`` as (y, z, x): the package's harmonics of these are those of orbitals, about z."""
    return vectors[..., [1, 2, 0]]


class MatrixRows(NamedTuple):
    """Where the orbitals of the atoms stand in the matrices of a batch.

    Attributes:
        first: ``(atoms,)`` first row of each atom within the matrix of its molecule.
        size: ``(atoms,)`` rows of that matrix.
        start: ``(atoms,)`` where that matrix begins in the flat row-by-row matrices of the batch.
        num_entries: of all matrices together.
        num_orbitals: ``(molecules,)`` rows of each matrix.
    """

    first: Tensor
    size: Tensor
    start: Tensor
    num_entries: int
    num_orbitals: Tensor


class Entries(NamedTuple):
    """Which entries of padded blocks are real, and where they stand in the flat matrices.

    Attributes:
        inside: ``(entries,)`` index into the flattened blocks.
        outside: ``(entries,)`` index into the flat matrices.
    """

    inside: Tensor
    outside: Tensor


class OrbitalBlocks(ConstantsModule):
    """The padded layout of the blocks of some elements, and what it is as irreps.

    The coupling of two shells (l_a, l_b) to irreps is orthogonal,

        ``f^l_m = sqrt(2l+1) Σ_ab 3j(l_a l_b l)_{ab m} H_ab``,   ``H_ab = Σ_lm sqrt(2l+1) 3j(l_a l_b l)_{ab m} f^l_m``,

    so that both ways are exact. The irrep has the parity of the two shells, (-1)^(l_a + l_b).

    Args:
        shells: for each element the degrees l of its shells, ascending, as :func:`mlip.data.orbitals.shells`.

    Attributes:
        counts: shells of each degree, of the element that has most.
        size: rows of a padded block.
        irreps: of a block, each irrep once, the channels ordered by (l_a, l_b), then by the shells of each.
        orbitals_of: ``(elements,)`` orbitals of each element.

    Raises:
        ConfigError: no shells, or degrees that are no ascending whole numbers up to 6.
    """

    def __init__(self, shells: Sequence[Sequence[int]]) -> None:
        super().__init__()
        for degrees in shells:
            whole = len(degrees) and all(type(l) is int and 0 <= l <= LARGEST_SHELL for l in degrees)
            if not whole or list(degrees) != sorted(degrees):
                raise ConfigError(
                    f"The shells of an element must be degrees from 0 to {LARGEST_SHELL}, ascending, such as "
                    f"[0, 0, 0, 1, 1, 2], got {list(degrees)!r}."
                )
        if not shells:
            raise ConfigError("Orbital blocks need the shells of at least one element.")
        largest = max(max(degrees) for degrees in shells)
        self.counts = [max(list(degrees).count(l) for degrees in shells) for l in range(largest + 1)]
        self.size = sum(count * (2 * l + 1) for l, count in enumerate(self.counts))
        self._starts = [sum(n * (2 * k + 1) for k, n in enumerate(self.counts[:l])) for l in range(largest + 1)]
        masks, places = zip(*(self._element(degrees) for degrees in shells))
        self.register_constant("mask", torch.stack(masks), keep_dtype=True)
        self.register_constant("place", torch.stack(places), keep_dtype=True)
        self.register_constant("orbitals_of", self.mask.sum(dim=1), keep_dtype=True)
        self.shell_pairs = [(a, b) for a in range(largest + 1) for b in range(largest + 1) if self._channels(a, b)]
        self.irreps, self._columns = self._lay_out()
        for a, b in self.shell_pairs:
            self.register_constant(f"coupling_{a}_{b}", _coupling(a, b))

    def _element(self, degrees: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return which padded slots an element has, and which of its orbitals stands there."""
        mask, place = torch.zeros(self.size, dtype=torch.bool), torch.zeros(self.size, dtype=torch.long)
        seen, orbital = [0] * len(self.counts), 0
        for l in degrees:
            first = self._starts[l] + seen[l] * (2 * l + 1)
            mask[first : first + 2 * l + 1] = True
            place[first : first + 2 * l + 1] = torch.arange(orbital, orbital + 2 * l + 1)
            seen[l] += 1
            orbital += 2 * l + 1
        return mask, place

    def _channels(self, a: int, b: int) -> int:
        return self.counts[a] * self.counts[b]

    def _lay_out(self) -> tuple[Irreps, dict[tuple[int, int, int], tuple[int, int]]]:
        """Return the irreps, and for (l_a, l_b, l) which entry of them and the first channel in it."""
        mul: dict[Irrep, int] = {}
        first: dict[tuple[int, int, int], tuple[Irrep, int]] = {}
        for a, b in self.shell_pairs:
            for l in range(abs(a - b), a + b + 1):
                ir = Irrep(l, (-1) ** (a + b))
                first[a, b, l] = ir, mul.get(ir, 0)
                mul[ir] = mul.get(ir, 0) + self._channels(a, b)
        order = sorted(mul)
        irreps = Irreps([(mul[ir], ir) for ir in order])
        return irreps, {key: (order.index(ir), channel) for key, (ir, channel) in first.items()}

    def to_blocks(self, features: Tensor) -> Tensor:
        """Return padded blocks ``(rows, size, size)`` of features ``(rows, irreps.dim)``.

        Raises:
            ShapeError: features of another width.
        """
        if features.dim() != 2 or features.shape[1] != self.irreps.dim:
            raise ShapeError(f"Blocks need features (rows, {self.irreps.dim}), got {tuple(features.shape)}.")
        parts = split_blocks(features, self.irreps)
        rows = []
        for a in range(len(self.counts)):
            if not self.counts[a]:
                continue
            columns = [self._block(parts, a, b) for b in range(len(self.counts)) if self.counts[b]]
            rows.append(torch.cat(columns, dim=2))
        return torch.cat(rows, dim=1)

    def _block(self, parts: list[Tensor], a: int, b: int) -> Tensor:
        """Return the part ``(rows, n_a (2a+1), n_b (2b+1))`` of all shells of two degrees."""
        channels = self._channels(a, b)
        columns = (self._columns[a, b, l] for l in range(abs(a - b), a + b + 1))
        coupled = torch.cat([parts[entry][:, :, start : start + channels] for entry, start in columns], dim=1)
        full = self.constant_like(f"coupling_{a}_{b}", coupled) @ coupled
        full = full.unflatten(2, (self.counts[a], self.counts[b])).unflatten(1, (2 * a + 1, 2 * b + 1))
        return full.permute(0, 3, 1, 4, 2).flatten(3, 4).flatten(1, 2)

    def to_irreps(self, blocks: Tensor) -> Tensor:
        """Return features ``(rows, irreps.dim)`` of padded blocks ``(rows, size, size)``; inverse of `to_blocks`.

        Raises:
            ShapeError: blocks of another size.
        """
        if blocks.dim() != 3 or tuple(blocks.shape[1:]) != (self.size, self.size):
            raise ShapeError(f"Blocks must have shape (rows, {self.size}, {self.size}), got {tuple(blocks.shape)}.")
        found: list[list[Tensor]] = [[] for _ in self.irreps]
        for a, b in self.shell_pairs:
            part = blocks[:, self._rows(a), self._rows(b)]
            part = part.unflatten(2, (self.counts[b], 2 * b + 1)).unflatten(1, (self.counts[a], 2 * a + 1))
            part = part.permute(0, 2, 4, 1, 3).flatten(3, 4).flatten(1, 2)
            coupled = self.constant_like(f"coupling_{a}_{b}", part).T @ part
            degrees = range(abs(a - b), a + b + 1)
            # Pairs of shells come in the order in which their channels were laid out.
            for l, piece in zip(degrees, coupled.split([2 * l + 1 for l in degrees], dim=1)):
                found[self._columns[a, b, l][0]].append(piece)
        return torch.cat([torch.cat(pieces, dim=2).flatten(1) for pieces in found], dim=1)

    def _rows(self, l: int) -> slice:
        return slice(self._starts[l], self._starts[l] + self.counts[l] * (2 * l + 1))

    def rows(self, species: Tensor, batch: Tensor, num_graphs: int) -> MatrixRows:
        """Return where the orbitals of atoms stand, ``species`` being the index of each atom's element.

        Args:
            species: ``(atoms,)``.
            batch: ``(atoms,)`` molecule of each atom, ascending.
            num_graphs: molecules.
        """
        own = self.orbitals_of[species]
        sizes = torch.zeros(num_graphs, dtype=torch.long, device=own.device).index_add_(0, batch, own)
        before = own.cumsum(0) - own
        first = before - (sizes.cumsum(0) - sizes)[batch]
        squares = sizes.square()
        return MatrixRows(
            first, sizes[batch], (squares.cumsum(0) - squares)[batch], int(squares.sum()), num_orbitals=sizes
        )

    def entries(self, species: Tensor, rows: MatrixRows, first: Tensor, second: Tensor) -> Entries:
        """Return the real entries of the blocks of pairs of atoms.

        Args:
            species: ``(atoms,)``.
            rows: of these atoms.
            first: ``(pairs,)`` atom whose orbitals are the rows of each block.
            second: ``(pairs,)`` atom whose orbitals are its columns; of the same molecule.
        """
        there = self.mask[species[first]][:, :, None] & self.mask[species[second]][:, None, :]
        row = rows.first[first][:, None] + self.place[species[first]]
        column = rows.first[second][:, None] + self.place[species[second]]
        target = (rows.start[first][:, None] + row * rows.size[first][:, None])[:, :, None] + column[:, None, :]
        return Entries(there.flatten().nonzero()[:, 0], target[there])

    def gather(self, matrices: Tensor, entries: Entries, num_pairs: int) -> Tensor:
        """Return the padded blocks ``(pairs, size, size)`` of flat matrices, zero where an element has no orbital."""
        blocks = matrices.new_zeros(num_pairs * self.size**2)
        return blocks.index_copy(0, entries.inside, matrices[entries.outside]).view(-1, self.size, self.size)


def scatter_blocks(blocks: Tensor, entries: Entries, num_entries: int) -> Tensor:
    """Add the real entries of padded blocks ``(pairs, size, size)`` into flat matrices ``(num_entries,)``."""
    return blocks.new_zeros(num_entries).index_add(0, entries.outside, blocks.flatten()[entries.inside])


def transposed(rows: MatrixRows) -> Tensor:
    """Return the index ``(num_entries,)`` with which flat matrices become their transposes."""
    found = []
    start = 0
    for size in rows.num_orbitals.tolist():
        found.append(torch.arange(start, start + size * size).view(size, size).T.flatten())
        start += size * size
    return torch.cat(found).to(rows.num_orbitals.device) if found else rows.num_orbitals.new_zeros(0)


def _coupling(a: int, b: int) -> Tensor:
    """Return the orthogonal matrix ``((2a+1)(2b+1), Σ_l (2l+1))``."""
    columns = [wigner_3j(a, b, l).flatten(0, 1) * (2 * l + 1) ** 0.5 for l in range(abs(a - b), a + b + 1)]
    return torch.cat(columns, dim=1)
