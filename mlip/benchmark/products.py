"""Tensor products as candidates: every backend, and the same product in e3nn."""

import inspect
from collections.abc import Callable
from functools import cached_property

import torch
from e3nn.o3 import Irreps
from e3nn.o3 import TensorProduct as E3nnTensorProduct
from torch import Tensor

from mlip.benchmark.automatic import chooses, without_choice
from mlip.benchmark.definition import NAME, gaunt_definition
from mlip.benchmark.inputs import random_features, random_harmonics, require_memory
from mlip.benchmark.plan import BASELINE, Plan
from mlip.benchmark.workload import Workload
from mlip.core.errors import ConfigError, MlipError
from mlip.ops.kernels.choice import choose_kernels
from mlip.ops.layout import from_e3nn, split_blocks, to_e3nn
from mlip.ops.tensor_product.base import TensorProduct
from mlip.ops.tensor_product.clebsch_gordan import restore_wigner_buffers
from mlip.ops.tensor_product.paths import coupled_paths
from mlip.ops.tensor_product.reach import build_first, measure_reach
from mlip.ops.tensor_product.settings import setting_irreps


class ProductCase:
    """One setting and degree: hands out candidates of any size with the same random numbers.

    Args:
        plan: size and options; ``operator`` is ``interaction`` or ``convolution``.
        setting, lmax: see :func:`mlip.ops.tensor_product.settings.setting_irreps`.

    Raises:
        ConfigError: a setting without a path, or inputs and outputs that need too much memory.
    """

    def __init__(self, plan: Plan, setting: str, lmax: int) -> None:
        self.plan = plan
        self.irreps1, in2, self.irreps_out = setting_irreps(
            setting, lmax, plan.channels, antisymmetric=plan.antisymmetric, truncated=plan.truncated
        )
        self.convolution = plan.operator == "convolution"
        self.mode = "uvu" if self.convolution else plan.mode
        self.irreps2 = Irreps([(1, ir) for _, ir in in2]) if self.mode == "uvu" else in2
        self.weighted = self.convolution or plan.weights == "free" or self.mode == "uvw"
        self.paths = coupled_paths(self.irreps1, self.irreps2, self.irreps_out)
        self.lmax = lmax
        # Every path product has a block for each path in uvu and uvuv; what all backends have is enough here.
        width = self.irreps_out.dim * (plan.channels if self.mode == "uvuv" else 1)
        require_memory(plan, "Inputs and outputs", plan.rows * (self.irreps1.dim + self.irreps2.dim + width))

    @cached_property
    def x1(self) -> Tensor:
        """The first input, ``(rows, irreps1.dim)``."""
        return random_features(self.irreps1, self.plan.rows, torch.Generator().manual_seed(2 * self.lmax))

    @cached_property
    def x2(self) -> Tensor:
        """The second input, ``(rows, irreps2.dim)``."""
        features = random_harmonics if self.convolution else random_features
        return features(self.irreps2, self.plan.rows, torch.Generator().manual_seed(2 * self.lmax + 1)).float()

    def candidate(self, factory: Callable[..., TensorProduct], rows: int, dtype: torch.dtype) -> Workload:
        """Return a backend with its inputs.

        Args:
            factory: takes three irreps and the options of :class:`TensorProduct`.
            rows: the first rows of the inputs are taken.
            dtype: of product and inputs.

        Raises:
            ConfigError: the backend refuses, needs harmonics where there are none, or too much memory.
        """
        weights = None if self.weighted else "none"
        irreps = (self.irreps1, self.irreps2, self.irreps_out)
        if chooses(factory):
            # It measures when it is built, with weights of every row but in mode uvw.
            plain = without_choice(factory)(*irreps, mode=self.mode, weights=weights)
            sets = 1 if self.mode == "uvw" else self.plan.rows
            numbers = self.plan.rows * plain.irreps_out.dim + sets * plain.weight_numel
            require_memory(self.plan, "Outputs and weights of its measurement", numbers)
        product = factory(*irreps, mode=self.mode, weights=weights, **self._size_of_run(factory))
        if product.filter_is_harmonics and not self.convolution:
            raise ConfigError("It is a convolution with spherical harmonics: measure it with --operator convolution.")
        sizes = {"width": product.irreps_out.dim, "weights": product.weight_numel}
        self._require_room(**sizes)
        product = product.to(dtype=dtype, device=self.plan.device)
        choose_kernels(product, self.plan.kernels)
        inputs = [self._place(self.x1[:rows], dtype), self._place(self.x2[:rows], dtype)]
        if product.weight_numel:
            inputs.append(self._place(self._weight(product.weight_numel, rows), dtype))
        paths = len(set(product.expressivity.paths))
        note = f"chose {product.choice}" if hasattr(product, "choice") else ""
        return Workload(product, tuple(inputs), product.operator, paths, **sizes, note=note)

    def definition(self, operator: str, rows: int) -> tuple[str, Tensor] | None:
        """Return name and float64 result of an independent way to compute an operator, None where there is none.

        Args:
            operator: as in :class:`TensorProduct`.
            rows: the first rows of the inputs are taken.
        """
        if operator != "gaunt":
            return None
        inputs = [
            split_blocks(x[:rows].double(), irreps) for x, irreps in ((self.x1, self.irreps1), (self.x2, self.irreps2))
        ]
        degrees = [ir.l for _, ir in self.irreps_out if ir.p == (-1) ** ir.l]
        weights = (lambda numel: torch.atleast_2d(self._weight(numel, rows).double())) if self.weighted else None
        return NAME, gaunt_definition(tuple(inputs), degrees, self.mode, weights)

    def _require_room(self, width: int, weights: int) -> None:
        rows = self.plan.rows
        require_memory(self.plan, "Outputs and weights", rows * width + weights * (rows if self.convolution else 1))

    def _size_of_run(self, factory: Callable[..., TensorProduct]) -> dict[str, object]:
        """Return rows, dtype and device for a backend that wants to know them, to choose by them.

        Always those of the run, also for the few rows of a check: a choice is a measurement of its own.
        """
        known = {"rows": self.plan.rows, "dtype": self.plan.dtype, "device": self.plan.device}
        wanted = inspect.signature(factory).parameters
        return {name: value for name, value in known.items() if name in wanted}

    def baseline(self, rows: int, dtype: torch.dtype) -> Workload:
        """Return e3nn's product with all paths, in e3nn's layout: what it would cost in a model of e3nn's."""
        irreps_out, targets = self._e3nn_outputs()
        counts = [
            self.irreps1[path.in1].mul
            * (self.irreps2[path.in2].mul if self.mode in ("uvuv", "uvw") else 1)
            * (self.plan.channels if self.mode == "uvw" else 1)
            for path in self.paths
        ]
        sizes = {"width": irreps_out.dim, "weights": sum(counts) if self.weighted else 0}
        self._require_room(**sizes)
        product = self._e3nn_product(irreps_out, targets)
        product = product.to(dtype=dtype, device=self.plan.device)
        restore_wigner_buffers(product)
        inputs = [
            self._place(to_e3nn(self.x1[:rows], self.irreps1), dtype),
            self._place(to_e3nn(self.x2[:rows], self.irreps2), dtype),
        ]
        if product.weight_numel:
            inputs.append(self._place(self._weight(product.weight_numel, rows), dtype))
        return Workload(
            product,
            tuple(inputs),
            "clebsch_gordan",
            len(self.paths),
            standard=lambda result: from_e3nn(result, irreps_out),
            **sizes,
        )

    def _e3nn_outputs(self) -> tuple[Irreps, list[int]]:
        """Return the output and the block of each path, in the order of our path products."""
        if self.mode in ("uuu", "uvw"):
            order = sorted({path.ir_out for path in self.paths})
            irreps_out = Irreps([(self.plan.channels, ir) for ir in order])
            targets = [order.index(path.ir_out) for path in self.paths]
        else:
            muls = [
                self.irreps1[path.in1].mul * (self.irreps2[path.in2].mul if self.mode == "uvuv" else 1)
                for path in self.paths
            ]
            irreps_out = Irreps([(mul, path.ir_out) for mul, path in zip(muls, self.paths)])
            targets = list(range(len(self.paths)))
        return irreps_out, targets

    def _e3nn_product(self, irreps_out: Irreps, targets: list[int]) -> E3nnTensorProduct:
        instructions = [
            (path.in1, path.in2, target, self.mode, self.weighted, 1.0) for path, target in zip(self.paths, targets)
        ]
        # Built with its own defaults: component normalisation, terms of a sum divided by the root of their number.
        return E3nnTensorProduct(
            self.irreps1,
            self.irreps2,
            irreps_out,
            instructions,
            shared_weights=not self.convolution,
            internal_weights=False,
        )

    def _weight(self, numel: int, rows: int) -> Tensor:
        """Return weights of every row in a convolution, else one set for all rows."""
        generator = torch.Generator().manual_seed(numel)
        if self.convolution:
            return torch.randn((self.plan.rows, numel), generator=generator)[:rows]
        return torch.randn(numel, generator=generator)

    def _place(self, tensor: Tensor, dtype: torch.dtype) -> Tensor:
        return tensor.to(dtype=dtype, device=self.plan.device, copy=True).requires_grad_()


LARGEST_MEASURED_DEGREE = 6
"""Up to here the reachable set is measured along with the times; beyond, the rank takes minutes."""


def reachable_dimensions(
    plan: Plan, setting: str, lmax: int, factories: dict[str, Callable[..., TensorProduct]]
) -> dict[str, int]:
    """Return the dimension of the set of maps that one channel reaches, by backend; e3nn reaches every path."""
    irreps = setting_irreps(setting, lmax, antisymmetric=plan.antisymmetric, truncated=plan.truncated)
    dimensions = {BASELINE: len(coupled_paths(*irreps))}
    if lmax > LARGEST_MEASURED_DEGREE:
        return dimensions
    for name, factory in factories.items():
        try:
            dimensions[name] = measure_reach(build_first(without_choice(factory), irreps)).dimension
        except MlipError:
            # Said where the product itself is built.
            continue
    return dimensions
