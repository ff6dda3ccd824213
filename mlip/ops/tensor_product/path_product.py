"""Products with a free weight on every path: the part that all Clebsch–Gordan backends share."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import torch
from e3nn.o3 import Irreps
from torch import Tensor

from mlip.core.errors import ConfigError
from mlip.ops.kernels.choice import kernel_for
from mlip.ops.kernels.form import ConvolutionForm
from mlip.ops.layout import split_blocks
from mlip.ops.segment import segment_sum
from mlip.ops.tensor_product.base import Expressivity, Mode, Normalization, TensorProduct, Weights
from mlip.ops.tensor_product.fused import convolution_form, kernel_of, sources_of
from mlip.ops.tensor_product.paths import Path
from mlip.ops.wigner import wigner_3j


class PathProduct(TensorProduct):
    """``out_p = w_p · c_p · 3j(l1, l2, l3) · x1_l1 · x2_l2`` for every path p; every equivariant bilinear map.

    ``c_p`` is sqrt(2 l3 + 1) for normalisation ``component``, sqrt((2 l1 + 1)(2 l2 + 1)) for ``norm`` and 1 for
    ``none``. Where several terms are summed (modes ``uuu`` and ``uvw``) the first two are divided by the square
    root of their number. Weights are ordered by path, inside a path by (u), (u, v) or (u, v, w).

    A backend writes :meth:`couple`; modes and weights are done here. It may override :meth:`products` or
    :meth:`multiply` where it knows something faster.

    Args:
        kept_paths: see :meth:`keep`; None for all.

    Attributes:
        targets: block of the output that each path is added to.
        coefficients: c_p of each path, the square root included: that of the number of terms with all paths.
        options: arguments of the constructor besides those here, for a smaller product.
    """

    operator = "clebsch_gordan"
    has_kernels = True
    kernels = "auto"
    supported_weights = ("path_channel", "path", "none")

    def __init__(
        self,
        irreps_in1: Irreps,
        irreps_in2: Irreps,
        irreps_out: Irreps,
        mode: Mode = "uvu",
        weights: Weights | None = None,
        normalization: Normalization = "component",
        kept_paths: Sequence[int] | None = None,
    ) -> None:
        super().__init__(irreps_in1, irreps_in2, irreps_out, mode, weights, normalization)
        self.options: dict[str, Any] = {}
        self.irreps_wanted, self.all_paths = Irreps(irreps_out), self.paths
        self.kept_paths = list(range(len(self.paths))) if kept_paths is None else list(kept_paths)
        self.paths = [self.all_paths[number] for number in self.kept_paths]
        if mode == "uvw" and self.weights != "path_channel":
            raise ConfigError(f"Mode 'uvw' is nothing without its weights: give path_channel, got '{self.weights}'.")
        channels = [self._channels(path) for path in self.paths]
        if mode in ("uuu", "uvw"):
            wanted = Irreps(irreps_out)
            reached = {path.ir_out for path in self.paths}
            muls = {ir: mul if mode == "uvw" else channels[0] for mul, ir in wanted if ir in reached}
            self.irreps_out = Irreps([(muls[ir], ir) for ir in sorted(reached)])
            order = [ir for _, ir in self.irreps_out]
            self.targets = [order.index(path.ir_out) for path in self.paths]
        else:
            self.irreps_out = Irreps([(mul, path.ir_out) for mul, path in zip(channels, self.paths)])
            self.targets = list(range(len(self.paths)))
        self.coefficients = [self._coefficient(path) for path in self.paths]
        if self.weights == "none":
            self.weight_sizes = [0] * len(self.paths)
        elif self.weights == "path":
            self.weight_sizes = [1] * len(self.paths)
        else:
            out = [self.irreps_out[k].mul if mode == "uvw" else 1 for k in self.targets]
            self.weight_sizes = [mul * mul_out for mul, mul_out in zip(channels, out)]
        self.weight_numel = sum(self.weight_sizes)
        self.pairs = mode in ("uvuv", "uvw") and any(mul != 1 for mul, _ in self.irreps_in2)
        if self.pairs:
            for number in range(len(self.paths)):
                self.register_constant(f"symbol_{number}", self.symbol(number))
        self.set_up()

    def _channels(self, path: Path) -> int:
        """Return the number of channels that :meth:`couple` yields for a path."""
        mul1, mul2 = self.irreps_in1[path.in1].mul, self.irreps_in2[path.in2].mul
        return mul1 if self.mode in ("uuu", "uvu") else mul1 * mul2

    def _coefficient(self, path: Path) -> float:
        if self.normalization == "none":
            return 1.0
        dim1, dim2 = self.irreps_in1[path.in1].ir.dim, self.irreps_in2[path.in2].ir.dim
        square = float(path.ir_out.dim if self.normalization == "component" else dim1 * dim2)
        if self.mode in ("uuu", "uvw"):
            square /= self.num_terms(path, self.all_paths)
        return square**0.5

    def num_terms(self, path: Path, paths: Sequence[Path]) -> int:
        """Return how many terms are summed into the irrep of a path (modes ``uuu`` and ``uvw``) by some paths."""
        return sum(self._channels(p) if self.mode == "uvw" else 1 for p in paths if p.ir_out == path.ir_out)

    def symbol(self, number: int) -> Tensor:
        """Return ``c_p · 3j`` of a path, ``(2 l1 + 1, 2 l2 + 1, 2 l3 + 1)``, float64."""
        path = self.paths[number]
        l1, l2 = self.irreps_in1[path.in1].ir.l, self.irreps_in2[path.in2].ir.l
        return self.coefficients[number] * wigner_3j(l1, l2, path.ir_out.l)

    @abstractmethod
    def couple(self, blocks1: list[Tensor], blocks2: list[Tensor]) -> Iterator[Tensor]:
        """Yield path by path the product of the components, channel by channel.

        Args:
            blocks1: one ``(rows, 2 l1 + 1, channels)`` for each entry of ``irreps_in1``.
            blocks2: one ``(rows, 2 l2 + 1, channels or 1)`` for each entry of ``irreps_in2``.

        Yields:
            ``(rows, 2 l3 + 1, channels)``, the coefficient c_p included, weights not.
        """

    def multiply(self, x1: Tensor, x2: Tensor, weight: Tensor | None) -> Tensor:
        blocks1, blocks2 = split_blocks(x1, self.irreps_in1), split_blocks(x2, self.irreps_in2)
        return torch.cat(self._blocks(blocks1, blocks2, weight), dim=1)

    def sum_messages(
        self, x1: Tensor, x2: Tensor, weight: Tensor | None, senders: Tensor, receivers: Tensor, num_nodes: int
    ) -> Tensor:
        # Summing block by block leaves the concatenation to the nodes, which are far fewer than the edges.
        blocks1 = [block.index_select(0, senders) for block in split_blocks(x1, self.irreps_in1)]
        outputs = self._blocks(blocks1, split_blocks(x2, self.irreps_in2), weight)
        return torch.cat([segment_sum(block, receivers, num_nodes) for block in outputs], dim=1)

    def kernel_key(self, like: Tensor, num_edges: int | None = None) -> str | None:
        return kernel_for(self, like, lambda: kernel_of(self, like, num_edges))

    def kernel_sources(self, dtype: torch.dtype) -> list[str]:
        return sources_of(self, dtype)

    @cached_property
    def form(self) -> ConvolutionForm | None:
        """The coefficients of the convolution for a kernel, None where there is none for such a product."""
        return convolution_form(self)

    def _blocks(self, blocks1: list[Tensor], blocks2: list[Tensor], weight: Tensor | None) -> list[Tensor]:
        """Return the flat blocks of the output ``(rows, mul · dim)``."""
        outputs: list[Tensor | None] = [None] * len(self.irreps_out)
        for target, part in zip(self.targets, self.products(blocks1, blocks2, weight)):
            outputs[target] = part if outputs[target] is None else outputs[target] + part
        return [block.flatten(1) for block in outputs]

    def products(self, blocks1: list[Tensor], blocks2: list[Tensor], weight: Tensor | None) -> Iterator[Tensor]:
        """Yield the weighted product of every path, ``(rows, 2 l3 + 1, mul)``."""
        coupled = self._couple_pairs(blocks1, blocks2) if self.pairs else self.couple(blocks1, blocks2)
        weights = [None] * len(self.paths) if self.weights == "none" else weight.split(self.weight_sizes, dim=-1)
        for target, part, path_weight in zip(self.targets, coupled, weights):
            if path_weight is None:
                yield part
            elif self.mode == "uvw":
                yield part @ path_weight.unflatten(-1, (part.shape[2], self.irreps_out[target].mul))
            else:
                yield part * path_weight.unsqueeze(-2)

    def _couple_pairs(self, blocks1: list[Tensor], blocks2: list[Tensor]) -> Iterator[Tensor]:
        """Give both inputs a channel for every pair (u, v), path by path: multiplicities may be ragged."""
        for number, path in enumerate(self.paths):
            mul1, mul2 = self.irreps_in1[path.in1].mul, self.irreps_in2[path.in2].mul
            a = blocks1[path.in1].unsqueeze(3).expand(-1, -1, mul1, mul2).flatten(2)
            b = blocks2[path.in2].unsqueeze(2).expand(-1, -1, mul1, mul2).flatten(2)
            yield self.couple_path(number, a, b)

    def couple_path(self, number: int, block1: Tensor, block2: Tensor) -> Tensor:
        """Return what :meth:`couple` yields for one path: ``(rows, 2 l3 + 1, channels)``."""
        return torch.einsum("abc,rau,rbu->rcu", self.constant_like(f"symbol_{number}", block1), block1, block2)

    @property
    def weights_by_path(self) -> tuple[int, ...] | None:
        return None if self.weights == "none" else tuple(self.weight_sizes)

    def keep(self, paths: Sequence[int]) -> TensorProduct:
        if self.weights == "none":
            return super().keep(paths)
        numbers = list(paths)
        if not numbers or numbers != sorted(set(numbers)) or not 0 <= numbers[0] <= numbers[-1] < len(self.paths):
            raise ConfigError(
                f"The paths to keep must be some of 0 to {len(self.paths) - 1}, each once and ascending, got {numbers}."
            )
        kept = [self.kept_paths[number] for number in numbers]
        arguments = (self.irreps_in1, self.irreps_in2, self.irreps_wanted, self.mode, self.weights, self.normalization)
        return type(self)(*arguments, kept_paths=kept, **self.options)

    @property
    def expressivity(self) -> Expressivity:
        paths = tuple((self.irreps_in1[p.in1].ir.l, self.irreps_in2[p.in2].ir.l, p.ir_out.l) for p in self.paths)
        return Expressivity("path", any(sum(path) % 2 for path in paths), paths)
