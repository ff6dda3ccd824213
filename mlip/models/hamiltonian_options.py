"""What the options of a Hamiltonian network must be, each with one sentence on what to do about it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from ase.data import atomic_numbers
from torch import Tensor

from mlip.core.errors import ConfigError, DataError, did_you_mean
from mlip.core.numbers import is_number, is_whole
from mlip.data.build_graph import as_builder
from mlip.data.graphs.base import GraphBuilder
from mlip.data.orbitals import shells as shells_in
from mlip.ops.orbital_blocks import OrbitalBlocks
from mlip.ops.tensor_product.base import LARGEST_DEGREE

LARGEST = {"num_channels": 1024, "num_layers": 64, "bottleneck": 1024}
"""A damaged number must not fill the memory."""

MOST_SHELLS = 200
"""Of an element."""


def check_choice(option: str, value: str, known: Sequence[str]) -> None:
    """Refuse what is none of the known words.

    Raises:
        ConfigError: names the option and the words.
    """
    if value not in known:
        near = did_you_mean(str(value), known)
        raise ConfigError(f"{option} must be one of {', '.join(known)}, got {value!r}.{near}")


def check_sizes(num_neighbors: float, num_pair_layers: int, lmax: int, lmax_edge: int | None, **sizes: int) -> None:
    """Refuse sizes that no network can have.

    Args:
        num_neighbors: positive.
        num_pair_layers: 1 to ``num_layers``.
        lmax, lmax_edge: degrees.
        sizes: those of :data:`LARGEST`.

    Raises:
        ConfigError: names the size.
    """
    if not is_number(num_neighbors) or num_neighbors <= 0:
        raise ConfigError(f"num_neighbors must be the average number of neighbours in the data, got {num_neighbors!r}.")
    for name, size in sizes.items():
        if not is_whole(size) or not 1 <= size <= LARGEST[name]:
            raise ConfigError(f"{name} must be a whole number from 1 to {LARGEST[name]}, got {size!r}.")
    for name, degree in (("lmax", lmax), ("lmax_edge", lmax if lmax_edge is None else lmax_edge)):
        if not is_whole(degree) or not 0 <= degree <= LARGEST_DEGREE:
            raise ConfigError(f"{name} must be a whole number from 0 to {LARGEST_DEGREE}, got {degree!r}.")
    if lmax_edge == 0 < lmax:
        raise ConfigError("With lmax_edge=0 no feature has a direction: raise it to 1 or more, or null for lmax.")
    layers = sizes["num_layers"]
    if not is_whole(num_pair_layers) or not 1 <= num_pair_layers <= layers:
        raise ConfigError(f"num_pair_layers must be from 1 to num_layers = {layers}, got {num_pair_layers!r}.")


def check_graph(builder: GraphBuilder) -> None:
    """Refuse graphs that lack pairs within the cutoff: their blocks would be zero, or half of what they are.

    Raises:
        ConfigError: says which graph to take.
    """
    if math.isfinite(builder.cutoff) and builder.description == as_builder(builder.cutoff).description:
        return
    raise ConfigError(f"A Hamiltonian network needs all pairs of atoms, model/graph=radius, got {builder.description}.")


def read_shells(
    elements: Sequence[str], basis: str | None, shells: Mapping[str, Sequence[int]] | None
) -> dict[str, tuple[int, ...]]:
    """Return the degrees of the shells of every element.

    They are compared with those of the basis where they are known, from our table or from PySCF.

    Raises:
        ConfigError: there are none, or not those of the basis.
    """
    if basis is None or shells is None:
        raise ConfigError(
            "A Hamiltonian network needs the basis of its orbitals, which data with Hamiltonians state, and these "
            "state none: take such data, e.g. data=qh9 with loss=[hamiltonian], or another model, e.g. model=facet."
        )
    if not isinstance(basis, str) or not isinstance(shells, Mapping):
        raise ConfigError(f"basis must be a name and shells degrees by element, got {basis!r}, {str(shells)[:60]}.")
    missing = [symbol for symbol in elements if symbol not in shells]
    if missing:
        raise ConfigError(f"shells must name the shells of every element, there are none of {', '.join(missing)}.")
    found = {}
    for symbol in elements:
        stated = shells[symbol]
        if not isinstance(stated, Sequence) or isinstance(stated, str) or len(stated) > MOST_SHELLS:
            raise ConfigError(
                f"shells of {symbol} must be a list of degrees such as [0, 0, 1], got {str(stated)[:60]}."
            )
        found[symbol] = tuple(stated)
        known = _known_shells(basis, symbol)
        if known is not None and known != found[symbol]:
            raise ConfigError(
                f"shells gives {symbol} {list(stated)}, but in {basis} it has {list(known)}: correct basis or shells."
            )
    return found


def _known_shells(basis: str, symbol: str) -> tuple[int, ...] | None:
    try:
        return shells_in(basis, atomic_numbers[symbol])
    except DataError:
        # PySCF, or its version, is not that of the training. The shells are in the model file.
        return None


def onsite_blocks(
    blocks: OrbitalBlocks, shells: Mapping[str, Sequence[int]], onsite: Mapping[str, Any] | None
) -> Tensor:
    """Return ``(elements, size, size)`` float64: the same number for every m of two shells of one degree.

    Args:
        blocks: layout.
        shells: degrees by element, in the order of the model's elements.
        onsite: by element and degree a matrix between the shells; None is zero.

    Raises:
        ConfigError: an element is missing, or a matrix is no symmetric one of numbers in the shape of its shells.
    """
    found = torch.zeros(len(shells), blocks.size, blocks.size, dtype=torch.float64)
    if onsite is None:
        return found
    for k, (symbol, degrees) in enumerate(shells.items()):
        start = 0
        for l, room in enumerate(blocks.counts):
            count = list(degrees).count(l)
            if count:
                end = start + count * (2 * l + 1)
                unit = torch.eye(2 * l + 1, dtype=torch.float64)
                found[k, start:end, start:end] = torch.kron(_onsite_matrix(onsite, symbol, l, count), unit)
            start += room * (2 * l + 1)
    return found


def _onsite_matrix(onsite: Mapping[str, Any], symbol: str, l: int, count: int) -> Tensor:
    try:
        values = torch.tensor(onsite[symbol][l], dtype=torch.float64)
    except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"onsite must have a matrix of numbers for degree {l} of {symbol}.") from error
    if values.shape != (count, count):
        raise ConfigError(f"onsite of degree {l} of {symbol} must be {count}x{count}, got {values.tolist()}.")
    if not values.isfinite().all() or not torch.equal(values, values.T):
        raise ConfigError(f"onsite of degree {l} of {symbol} must be symmetric and finite, got {values.tolist()}.")
    return values
