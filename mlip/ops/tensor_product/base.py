"""The interface of tensor products: irreps times irreps to irreps, with weights a row.

A backend states what it can honour; what it cannot is refused by name when it is built, not when it runs.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, get_args

from e3nn.o3 import Irrep, Irreps
from torch import Tensor

from mlip.core.errors import ConfigError
from mlip.ops.constants import ConstantsModule
from mlip.ops.segment import segment_sum

Mode = Literal["uvu"]
"""How channels meet. ``uvu``: channel u of the first input with the single channel of the second."""


@dataclass(frozen=True)
class Expressivity:
    """What the bilinear maps of a backend can and cannot do.

    Attributes:
        weights: ``path`` (a free weight for each path and channel) or ``degree`` (one for each degree of
            each input and output, the relative weights of the paths being fixed).
        antisymmetric_paths: whether l1 + l2 + l3 odd (cross products) is reachable.
        paths: the reachable (l1, l2, l3).
    """

    weights: Literal["path", "degree"]
    antisymmetric_paths: bool
    paths: tuple[tuple[int, int, int], ...]


class TensorProduct(ConstantsModule, ABC):
    """A weighted bilinear equivariant map.

    Args:
        irreps_in1: features, any multiplicities, layout of :mod:`mlip.ops.layout`.
        irreps_in2: filter (spherical harmonics), multiplicity 1 each in mode ``uvu``.
        irreps_out: the irreps wanted; multiplicities are ignored in mode ``uvu``, they follow from the input.
        mode: see :data:`Mode`.

    Attributes:
        irreps_in1, irreps_in2: as given.
        irreps_out: what ``forward`` returns, one entry a block, not simplified.
        weight_numel: number of weights a row.
    """

    irreps_out: Irreps
    weight_numel: int
    supported_modes: tuple[str, ...] = get_args(Mode)

    def __init__(self, irreps_in1: Irreps, irreps_in2: Irreps, irreps_out: Irreps, mode: Mode = "uvu") -> None:
        super().__init__()
        name = type(self).__name__
        if mode not in self.supported_modes:
            raise ConfigError(f"{name} supports mode {', '.join(self.supported_modes)}, got '{mode}'.")
        self.irreps_in1, self.irreps_in2 = Irreps(irreps_in1), Irreps(irreps_in2)
        self.mode = mode
        if any(mul != 1 for mul, _ in self.irreps_in2):
            raise ConfigError(f"Mode 'uvu' needs multiplicity 1 in irreps_in2, got {self.irreps_in2}.")
        for irreps in (self.irreps_in1, self.irreps_in2):
            if len({ir for _, ir in irreps}) != len(irreps):
                raise ConfigError(f"{name} needs each irrep once in an input, got {irreps}; simplify it first.")
        self.paths = coupled_paths(self.irreps_in1, self.irreps_in2, Irreps(irreps_out))
        if not self.paths:
            raise ConfigError(
                f"{self.irreps_in1} and {self.irreps_in2} share no path into {Irreps(irreps_out)}: "
                "check the degrees and the parities."
            )

    @abstractmethod
    def forward(self, x1: Tensor, x2: Tensor, weight: Tensor) -> Tensor:
        """Multiply row by row.

        Args:
            x1: ``(rows, irreps_in1.dim)``.
            x2: ``(rows, irreps_in2.dim)``.
            weight: ``(rows, weight_numel)``.

        Returns:
            ``(rows, irreps_out.dim)``; of unit variance for independent inputs and weights of unit variance.
        """

    def convolve(
        self, x1: Tensor, x2: Tensor, weight: Tensor, senders: Tensor, receivers: Tensor, num_nodes: int
    ) -> Tensor:
        """Gather, multiply and sum: ``out[i] = Σ_{e: j→i} x1[j] ⊗ x2[e]`` with weights an edge.

        A backend overrides this where it can do better than the three steps one after the other; the
        result is the same.

        Args:
            x1: node features ``(nodes, irreps_in1.dim)``.
            x2: edge filters ``(edges, irreps_in2.dim)``.
            weight: ``(edges, weight_numel)``.
            senders, receivers: ``(edges,)`` node indices; receivers sorted.
            num_nodes: rows of the result.

        Returns:
            ``(num_nodes, irreps_out.dim)``.
        """
        return segment_sum(self(x1[senders], x2, weight), receivers, num_nodes)

    @property
    @abstractmethod
    def expressivity(self) -> Expressivity:
        """What this operator can represent."""


@dataclass(frozen=True)
class Path:
    """One coupling: block ``in1`` of the first input with block ``in2`` of the second into ``ir_out``."""

    in1: int
    in2: int
    ir_out: Irrep


def coupled_paths(irreps_in1: Irreps, irreps_in2: Irreps, irreps_out: Irreps) -> list[Path]:
    """Enumerate the paths, ordered by first input, second input and output degree."""
    wanted = {ir for _, ir in irreps_out}
    return [
        Path(i, j, ir)
        for i, (_, ir1) in enumerate(irreps_in1)
        for j, (_, ir2) in enumerate(irreps_in2)
        for ir in ir1 * ir2
        if ir in wanted
    ]
