"""What each backend can represent next to what a call of it costs."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from e3nn.o3 import Irreps
from torch import Tensor

from mlip.benchmark.automatic import chooses, without_choice
from mlip.benchmark.counting import Cost, count
from mlip.benchmark.inputs import random_features, random_harmonics
from mlip.core.errors import MlipError
from mlip.ops.kernels.choice import choose_kernels
from mlip.ops.tensor_product.base import TensorProduct
from mlip.ops.tensor_product.paths import coupled_paths
from mlip.ops.tensor_product.reach import Reach, build_first, measure_reach
from mlip.ops.tensor_product.settings import setting_irreps

ROWS, CHANNELS = 64, 16
"""Size at which operations are counted; the counts a row and channel hardly depend on it."""


@dataclass(frozen=True)
class Expressiveness:
    """One backend in one setting.

    Attributes:
        backend, operator: name of its configuration, and the bilinear map it computes.
        setting, lmax, truncated: see :func:`mlip.ops.tensor_product.settings.setting_irreps`.
        mode: in which channels meet; ``uvu`` where the backend is a convolution with a filter of one channel.
        as_convolution: the second input has to be spherical harmonics.
        reach: measured with one channel; None if the backend refuses the setting.
        expected: dimension of the reachable set by counting, None where no count is known.
        cost: of a forward call with ``ROWS`` rows and ``CHANNELS`` channels in float32, None if refused or chosen.
        reason: why it is refused.
        chosen: the backend is one of several, chosen by measurement for each size: its cost is that of the chosen one.
    """

    backend: str
    operator: str
    setting: str
    lmax: int
    truncated: bool
    mode: str = ""
    as_convolution: bool = False
    reach: Reach | None = None
    expected: int | None = None
    cost: Cost | None = None
    reason: str = ""
    chosen: bool = False

    @property
    def flops(self) -> float | None:
        """Floating-point operations a row and channel, None if they cannot be counted."""
        return None if self.cost is None or self.cost.opaque else self.cost.flops / (ROWS * CHANNELS)

    @property
    def bytes(self) -> float | None:
        """Bytes moved a row and channel, None if they cannot be counted."""
        return None if self.cost is None or not self.cost.memory_known else self.cost.bytes / (ROWS * CHANNELS)


def survey(
    factories: dict[str, Callable[..., TensorProduct]],
    settings: Iterable[str],
    lmax: int,
    truncated: bool = False,
    progress: Callable[[str], None] = lambda text: None,
) -> list[Expressiveness]:
    """Describe every backend in every setting; outputs of both parities are asked for.

    Args:
        factories: backends by name.
        settings: see :data:`mlip.ops.tensor_product.settings.Setting`.
        lmax: the degree L.
        truncated: outputs up to L only.
        progress: is told what comes next.
    """
    rows = []
    for setting in settings:
        for name, factory in factories.items():
            progress(f"{setting} L={lmax}: {name}")
            rows.append(describe(name, factory, setting, lmax, truncated))
    return rows


def describe(
    name: str, factory: Callable[..., TensorProduct], setting: str, lmax: int, truncated: bool = False
) -> Expressiveness:
    """Measure the reach and the cost of one backend in one setting.

    Of a backend that chooses by measurement only the reach, by the first that it can choose: nothing is chosen here.
    """
    irreps = setting_irreps(setting, lmax, truncated=truncated)
    try:
        product = build_first(without_choice(factory), irreps)
        operator, harmonics = product.operator, product.filter_is_harmonics
        reach = measure_reach(product)
        larger = setting_irreps(setting, lmax, CHANNELS, truncated=truncated)
        cost = None if chooses(factory) else _forward_cost(build_first(factory, larger))
    except MlipError as error:
        return Expressiveness(name, "", setting, lmax, truncated, reason=str(error))
    return Expressiveness(
        *(name, operator, setting, lmax, truncated, product.mode, harmonics, reach),
        expected=expected_dimension(operator, irreps),
        cost=cost,
        chosen=chooses(factory),
    )


def expected_dimension(operator: str, irreps: tuple[Irreps, Irreps, Irreps]) -> int | None:
    """Return the dimension of the reachable set with one channel by counting.

    Clebsch–Gordan: the number of paths. Gaunt: a free scale for each degree of both inputs and the output, less two,
    because a common factor of one input can be taken out of the output: 4L + 1 for all degrees up to L and all
    outputs, 3L + 1 for outputs up to L.

    Args:
        operator: as in :class:`TensorProduct`.
        irreps: natural inputs and the wanted outputs, each irrep once.
    """
    paths = coupled_paths(*irreps)
    if operator == "clebsch_gordan":
        return len(paths)
    if operator == "gaunt":
        outputs = {path.ir_out for path in paths if path.ir_out.p == (-1) ** path.ir_out.l}
        return len(irreps[0]) + len(irreps[1]) + len(outputs) - 2
    return None


def _forward_cost(product: TensorProduct) -> Cost:
    generator = torch.Generator().manual_seed(0)
    product = product.to(torch.float32)
    # Operations are counted where they can be seen.
    choose_kernels(product, "off")
    x1 = random_features(product.irreps_in1, ROWS, generator)
    x2: Tensor = random_features(product.irreps_in2, ROWS, generator)
    if product.filter_is_harmonics:
        x2 = random_harmonics(product.irreps_in2, ROWS, generator).float()
    weight = torch.randn(product.weight_numel, generator=generator) if product.weight_numel else None
    with torch.no_grad():
        return count(lambda: product(x1, x2, weight))
