"""The interface of tensor products: irreps times irreps to irreps, with weights a row.

A backend states what it can honour; what it cannot is refused by name when it is built, not when it runs.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from e3nn.o3 import Irrep, Irreps
from torch import Tensor

from mlip.core.errors import ConfigError, ShapeError, did_you_mean
from mlip.ops.constants import ConstantsModule
from mlip.ops.kernels.convolution import convolution
from mlip.ops.segment import first_edges, is_ascending, segment_sum
from mlip.ops.tensor_product.paths import coupled_paths

Mode = Literal["uuu", "uvu", "uvuv", "uvw"]
"""How channels meet.

- ``uuu``: channel u with channel u; all multiplicities are the same, paths into one irrep are summed.
- ``uvu``: channel u of the first input with the single channel of the second; each path is a block of its own.
- ``uvuv``: every pair of channels (the full product); each path is a block of its own.
- ``uvw``: fully connected: every pair of channels to every channel of ``irreps_out``, paths summed.
"""

Weights = Literal["path_channel", "path", "degree", "none"]
"""What is free: a number for each path and channel, for each path, for each degree (of a signal) and channel of
both inputs and the output, or nothing."""

Normalization = Literal["component", "norm", "none"]
"""``component``: components of unit variance in and out. ``norm``: irreps of unit norm in and out. ``none``: the
plain operator that the backend's docstring defines."""

LARGEST_DEGREE = 12
"""Highest degree of an input; outputs may have twice that."""


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
        irreps_in1: features, each irrep once, layout of :mod:`mlip.ops.layout`.
        irreps_in2: features or a filter (spherical harmonics), each irrep once.
        irreps_out: the irreps wanted; multiplicities matter in mode ``uvw`` only.
        mode: see :data:`Mode`.
        weights: see :data:`Weights`; None takes the first that the backend supports.
        normalization: see :data:`Normalization`.

    Attributes:
        irreps_in1, irreps_in2: as given.
        irreps_out: what ``forward`` returns, one entry a block.
        weight_numel: number of weights a row.
        operator: the bilinear map. Backends with the same operator and options give the same numbers.
        filter_is_harmonics: the second input must be spherical harmonics of unit vectors (component
            normalisation): the backend reads the direction from them.
        has_kernels: whether there are generated kernels for some convolutions of this backend.
        kernels: whether convolutions run as generated kernels where there are any, see
            :data:`mlip.ops.kernels.choice.Kernels`.

    Raises:
        ConfigError: irreps that share no path, or something that the backend cannot honour.
    """

    irreps_out: Irreps
    weight_numel: int
    operator: str
    filter_is_harmonics: bool = False
    has_kernels: bool = False
    kernels: str = "off"
    supported_modes: tuple[str, ...] = get_args(Mode)
    supported_weights: tuple[str, ...] = get_args(Weights)

    def __init__(
        self,
        irreps_in1: Irreps,
        irreps_in2: Irreps,
        irreps_out: Irreps,
        mode: Mode = "uvu",
        weights: Weights | None = None,
        normalization: Normalization = "component",
    ) -> None:
        super().__init__()
        self.irreps_in1, self.irreps_in2 = Irreps(irreps_in1), Irreps(irreps_in2)
        self.mode, self.normalization = mode, normalization
        self.weights = self.supported_weights[0] if weights is None else weights
        self._check_options()
        self._check_irreps()
        wanted = Irreps(irreps_out)
        if mode == "uvw" and (len({ir for _, ir in wanted}) != len(wanted) or any(mul < 1 for mul, _ in wanted)):
            raise ConfigError(f"Mode 'uvw' needs each irrep once in the output, got {wanted}; simplify it first.")
        self.paths = coupled_paths(self.irreps_in1, self.irreps_in2, wanted)
        if not self.paths:
            raise ConfigError(
                f"{self.irreps_in1} and {self.irreps_in2} share no path into {wanted}: "
                "check the degrees and the parities."
            )

    def set_up(self) -> None:
        """Register constants; called once, when irreps, channels and weights have been laid out."""

    def _check_options(self) -> None:
        name = type(self).__name__
        able = self._alternative()
        for option, value, known, supported in (
            ("mode", self.mode, get_args(Mode), self.supported_modes),
            ("weights", self.weights, get_args(Weights), self.supported_weights),
            ("normalization", self.normalization, get_args(Normalization), get_args(Normalization)),
        ):
            if value not in known:
                raise ConfigError(
                    f"{option} must be one of {', '.join(known)}, got '{value}'.{did_you_mean(str(value), known)}"
                )
            if value not in supported:
                raise ConfigError(f"{name} supports {option} {', '.join(supported)}, got '{value}'; {able} can do it.")

    def _alternative(self) -> str:
        """Return the name of a backend that takes what has been asked for, whatever the mode and the irreps."""
        if self.weights != "degree":
            return "clebsch_gordan_dense"
        natural = all(ir.p == (-1) ** ir.l for irreps in (self.irreps_in1, self.irreps_in2) for _, ir in irreps)
        return "gaunt_grid" if natural else "matrix"

    def _check_irreps(self) -> None:
        name = type(self).__name__
        for irreps in (self.irreps_in1, self.irreps_in2):
            if len({ir for _, ir in irreps}) != len(irreps) or any(mul < 1 for mul, _ in irreps):
                raise ConfigError(f"{name} needs each irrep once in an input, got {irreps}; simplify it first.")
            if len(irreps) and irreps.lmax > LARGEST_DEGREE:
                raise ConfigError(f"Inputs may have degrees up to {LARGEST_DEGREE}, got {irreps}.")
        muls1, muls2 = ({mul for mul, _ in irreps} for irreps in (self.irreps_in1, self.irreps_in2))
        if self.mode == "uvu" and muls2 - {1}:
            raise ConfigError(f"Mode 'uvu' needs multiplicity 1 in irreps_in2, got {self.irreps_in2}.")
        if self.mode == "uuu" and len(muls1 | muls2) > 1:
            raise ConfigError(
                f"Mode 'uuu' multiplies channel by channel and needs the same multiplicity everywhere, "
                f"got {self.irreps_in1} and {self.irreps_in2}."
            )

    def forward(self, x1: Tensor, x2: Tensor, weight: Tensor | None = None) -> Tensor:
        """Multiply row by row.

        Args:
            x1: ``(rows, irreps_in1.dim)``.
            x2: ``(rows, irreps_in2.dim)``.
            weight: ``(rows, weight_numel)``, or ``(weight_numel,)`` for all rows; None where there is none.

        Returns:
            ``(rows, irreps_out.dim)``; with the default normalisation of unit variance for independent inputs
            and weights of unit variance.

        Raises:
            ShapeError: a tensor of another shape, or tensors of different dtypes.
        """
        self._check_shapes(x1, x2, weight)
        return self.multiply(x1, x2, weight)

    @abstractmethod
    def multiply(self, x1: Tensor, x2: Tensor, weight: Tensor | None) -> Tensor:
        """Do what :meth:`forward` promises; the shapes have been checked."""

    def convolve(
        self,
        x1: Tensor,
        x2: Tensor,
        weight: Tensor | None,
        senders: Tensor,
        receivers: Tensor,
        num_nodes: int,
        starts: Tensor | None = None,
    ) -> Tensor:
        """Gather, multiply and sum: ``out[i] = Σ_{e: j→i} x1[j] ⊗ x2[e]`` with weights an edge.

        It is one generated kernel where :meth:`kernel_key` names one and receivers are sorted, else plain torch.
        A backend overrides :meth:`sum_messages` where it can do better than the three steps one after the other.

        Args:
            x1: node features ``(nodes, irreps_in1.dim)``.
            x2: edge filters ``(edges, irreps_in2.dim)``.
            weight: ``(edges, weight_numel)``, ``(weight_numel,)`` or None.
            senders, receivers: ``(edges,)`` node indices; receivers sorted.
            num_nodes: rows of the result.
            starts: ``(num_nodes + 1,)``, :func:`~mlip.ops.segment.first_edges` of the receivers where it is known.

        Returns:
            ``(num_nodes, irreps_out.dim)``.

        Raises:
            ShapeError: a tensor of another shape, or tensors of different dtypes.
            ConfigError: a kernel is demanded and there can be none.
        """
        self._check_edges(x1, x2, weight, senders, receivers)
        key = self.kernel_key(x1, len(x2))
        if key is None or weight is None or (starts is None and not is_ascending(receivers)):
            return self.sum_messages(x1, x2, weight, senders, receivers, num_nodes)
        starts = first_edges(receivers, num_nodes) if starts is None else starts
        return convolution(x1, x2, weight.expand(len(x2), -1), senders, starts, key)

    def kernel_key(self, like: Tensor, num_edges: int | None = None) -> str | None:
        """Return the key of the generated kernel for convolutions of tensors like this one, None for plain torch.

        Args:
            like: for dtype and device.
            num_edges: of a call; None: many.

        Raises:
            ConfigError: a kernel is demanded and there can be none.
        """
        return None

    def kernel_sources(self, dtype: torch.dtype) -> list[str]:
        """Return the C++ of all kernels that convolutions may ask for on a CPU, to build it before."""
        return []

    def sum_messages(
        self, x1: Tensor, x2: Tensor, weight: Tensor | None, senders: Tensor, receivers: Tensor, num_nodes: int
    ) -> Tensor:
        """Do what :meth:`convolve` promises; the shapes have been checked."""
        return segment_sum(self.multiply(x1[senders], x2, weight), receivers, num_nodes)

    @property
    @abstractmethod
    def expressivity(self) -> Expressivity:
        """What this operator can represent."""

    def takes(self, ir: Irrep) -> bool:
        """Whether features of an irrep can be an input of such a product; by default any can."""
        return True

    @property
    def weights_by_path(self) -> tuple[int, ...] | None:
        """How many weights each of the ``paths`` has, in the order of the weights; None if weights are no paths'."""
        return None

    def keep(self, paths: Sequence[int]) -> "TensorProduct":
        """Return a smaller product: the numbers of this one where the weights of all other paths are zero.

        Irreps that none of the paths reaches are not in its ``irreps_out``.

        Args:
            paths: indices into ``paths``, ascending.

        Raises:
            ConfigError: the paths have no weights of their own, or there are no such paths.
        """
        raise ConfigError(
            f"{type(self).__name__} has no weights for each path, of which some could be left out; "
            "clebsch_gordan_dense has."
        )

    def _check_edges(self, x1: Tensor, x2: Tensor, weight: Tensor | None, senders: Tensor, receivers: Tensor) -> None:
        for label, index in (("senders", senders), ("receivers", receivers)):
            if tuple(index.shape) != (len(x2),):
                raise ShapeError(
                    f"{type(self).__name__} needs {label} of shape ({len(x2)},), one for each edge, "
                    f"got {tuple(index.shape)}."
                )
        self._check_shapes(x1[:1].expand(len(x2), -1) if len(x1) else x1.new_empty(len(x2), x1.shape[-1]), x2, weight)

    def _check_shapes(self, x1: Tensor, x2: Tensor, weight: Tensor | None) -> None:
        name, rows = type(self).__name__, x1.shape[0]
        for label, tensor, irreps in (("x1", x1, self.irreps_in1), ("x2", x2, self.irreps_in2)):
            if tensor.dim() != 2 or tensor.shape[0] != rows or tensor.shape[1] != irreps.dim:
                raise ShapeError(
                    f"{name} needs {label} of shape ({rows}, {irreps.dim}) for {irreps}, got {tuple(tensor.shape)}."
                )
            if tensor.dtype != x1.dtype:
                raise ShapeError(
                    f"{name} needs tensors of one dtype, got {x1.dtype} for x1 and {tensor.dtype} for {label}."
                )
        if weight is not None and weight.dtype != x1.dtype:
            raise ShapeError(
                f"{name} needs tensors of one dtype, got {x1.dtype} for x1 and {weight.dtype} for weights."
            )
        if weight is None:
            if self.weight_numel:
                raise ShapeError(f"{name} needs {self.weight_numel} weights a row, got none.")
        elif tuple(weight.shape) not in ((rows, self.weight_numel), (self.weight_numel,)):
            raise ShapeError(
                f"{name} needs weights of shape ({rows}, {self.weight_numel}) or ({self.weight_numel},), "
                f"got {tuple(weight.shape)}."
            )
