"""Many-body products as candidates, and the chain of e3nn's products that computes powers of the features."""

from collections.abc import Callable
from functools import cached_property

import torch
from e3nn.o3 import Irreps
from e3nn.o3 import TensorProduct as E3nnTensorProduct
from torch import Tensor, nn

from mlip.benchmark.inputs import random_features, require_memory
from mlip.benchmark.plan import Plan
from mlip.benchmark.workload import Workload
from mlip.core.errors import ConfigError
from mlip.ops.kernels.choice import choose_kernels
from mlip.ops.layout import natural_irreps, to_e3nn
from mlip.ops.many_body.base import ManyBodyProduct
from mlip.ops.tensor_product.clebsch_gordan import restore_wigner_buffers
from mlip.ops.tensor_product.paths import coupled_paths


class ManyBodyCase:
    """Powers of features of all degrees up to L: hands out candidates of any size with the same random numbers.

    Args:
        plan: size and options; ``correlation`` is the highest power.
        setting: ``mimo``: degrees 0..L in, 0..L out (0..correlation · L where the plan is not truncated).
        lmax: the degree L.

    Raises:
        ConfigError: another setting, or inputs and outputs that need too much memory.
    """

    def __init__(self, plan: Plan, setting: str, lmax: int) -> None:
        if setting != "mimo":
            raise ConfigError(f"Many-body products are measured in the setting mimo, got {setting}.")
        self.plan = plan
        self.irreps_in = natural_irreps(lmax, plan.channels)
        self.irreps_out = natural_irreps(lmax if plan.truncated else plan.correlation * lmax, plan.channels)
        self.lmax = lmax
        require_memory(plan, "Inputs and outputs", plan.rows * (self.irreps_in.dim + self.irreps_out.dim))

    @cached_property
    def x(self) -> Tensor:
        """The features, ``(rows, irreps_in.dim)``."""
        return random_features(self.irreps_in, self.plan.rows, torch.Generator().manual_seed(self.lmax))

    def definition(self, operator: str, rows: int) -> None:
        """There is none: backends of one family of polynomials are compared with one another."""

    def candidate(self, factory: Callable[..., ManyBodyProduct], rows: int, dtype: torch.dtype) -> Workload:
        """Return a backend with its inputs: features, and one set of weights for all rows."""
        product = factory(self.irreps_in, self.irreps_out, self.plan.correlation)
        product = product.to(dtype=dtype, device=self.plan.device)
        choose_kernels(product, self.plan.kernels)
        polynomials = sum(term.count for term in product.terms)
        weight = self._place(_weight(product.weight_numel), dtype)
        inputs = (self._place(self.x[:rows], dtype), weight)
        width = product.irreps_out.dim
        return Workload(product, inputs, product.operator, polynomials, width, weights=product.weight_numel)

    def baseline(self, rows: int, dtype: torch.dtype) -> Workload:
        """Return repeated products of e3nn's with a weight for each power, degree and channel."""
        chain = E3nnPowers(self.irreps_in, self.irreps_out, self.plan.correlation)
        chain = chain.to(dtype=dtype, device=self.plan.device)
        restore_wigner_buffers(chain)
        inputs = (
            self._place(to_e3nn(self.x[:rows], self.irreps_in), dtype),
            self._place(_weight(chain.weight_numel), dtype),
        )
        note = "repeated products x ⊗ x ⊗ …, not the polynomials of the candidates"
        sizes = {"paths": chain.polynomials, "width": chain.dim_out, "weights": chain.weight_numel}
        return Workload(chain, inputs, "e3nn powers", **sizes, note=note)

    def _place(self, tensor: Tensor, dtype: torch.dtype) -> Tensor:
        return tensor.to(dtype=dtype, device=self.plan.device, copy=True).requires_grad_()


class E3nnPowers(nn.Module):
    """``Σ_ν w_ν x^{⊗ν}`` by multiplying with x again and again, channel by channel, in e3nn's layout.

    Intermediate powers keep every degree from which the output can still be reached.

    Args:
        irreps_in: features of natural parity, one multiplicity.
        irreps_out: degrees 0.. of natural parity.
        correlation: highest ν.
    """

    def __init__(self, irreps_in: Irreps, irreps_out: Irreps, correlation: int) -> None:
        super().__init__()
        lmax, channels = irreps_in.lmax, irreps_in[0].mul
        self.products = nn.ModuleList()
        self.taken: list[int] = []
        powers = [irreps_in]
        for nu in range(2, correlation + 1):
            highest = min(nu * lmax, irreps_out.lmax + (correlation - nu) * lmax)
            wanted = natural_irreps(highest, channels)
            paths = coupled_paths(powers[-1], irreps_in, wanted)
            order = [ir for _, ir in wanted]
            instructions = [(p.in1, p.in2, order.index(p.ir_out), "uuu", False, 1.0) for p in paths]
            self.products.append(E3nnTensorProduct(powers[-1], irreps_in, wanted, instructions))
            powers.append(wanted)
        self.taken = [min(power.lmax, irreps_out.lmax) + 1 for power in powers]
        self.polynomials = sum(self.taken)
        self.channels = channels
        self.sizes = [channels * n for n in self.taken]
        self.weight_numel = sum(self.sizes)
        self.dim_out = irreps_out.dim

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        """Return ``(rows, irreps_out.dim)`` for ``(rows, irreps_in.dim)`` and ``(weight_numel,)``."""
        power, total = x, x.new_zeros(len(x), self.dim_out)
        for k, part in enumerate(weight.split(self.sizes)):
            if k:
                power = self.products[k - 1](power, x)
            spread = [w[:, None].expand(-1, 2 * l + 1).flatten() for l, w in enumerate(part.split(self.channels))]
            width = self.channels * self.taken[k] ** 2
            term = power[:, :width] * torch.cat(spread)
            total = total + nn.functional.pad(term, (0, self.dim_out - width))
        return total


def _weight(numel: int) -> Tensor:
    return torch.randn(numel, generator=torch.Generator().manual_seed(numel))
