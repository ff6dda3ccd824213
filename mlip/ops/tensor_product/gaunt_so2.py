"""The Gaunt product with harmonics of edges: in the frame of the edge, one latitude axis for every order."""

import math

import numpy as np
import torch
from e3nn.o3 import Irrep
from torch import Tensor

from mlip.ops.edge_rotation import EdgeRotation, check_directions, edge_direction_columns, pair_sizes
from mlip.ops.layout import split_blocks
from mlip.ops.sphere_grid import exact_resolution
from mlip.ops.spherical_harmonics import spherical_harmonics
from mlip.ops.tensor_product.gaunt_product import GauntProduct
from mlip.ops.wigner import gaunt_coefficients


class GauntSO2(GauntProduct):
    """The numbers of ``gaunt_grid`` where the second input is harmonics of edges, ``x2 = Y(r̂)``.

    In the frame of the edge the filter is symmetric about the polar axis, ``g(θ) = Σ_l2 w_l2 sqrt(2 l2 + 1)
    Y_l2,0(θ)``, so it multiplies the azimuthal orders of the features one by one (arXiv 2401.10216, section on
    equivariant convolutions): ``f_m(θ) = Σ_l1 Y_l1m(θ) x_l1m``, times g, and back. There is one axis left, θ,
    and Gauss–Legendre latitudes are exact on it with the integer part of (L1 + L2 + L3) / 2 + 1 points: fewer
    than the L1 + L2 + 1 frequencies of the product in a Fourier basis along θ, and values are multiplied where
    Fourier coefficients are convolved.

    It takes about a fifth of the multiplications of ``gaunt_grid`` at degree 6, in many more passes over memory,
    so on a CPU it is the slower one up to degree 3 and about as fast at 5 and 6.

    Zero vectors (``Y_0 = 1``, all else 0) have the filter of degree 0 alone. ``irreps_in2`` and its gradient are
    as for :class:`~mlip.ops.tensor_product.so2.SO2`.
    """

    filter_is_harmonics = True
    supported_modes = ("uvu", "uvw")

    def set_up(self) -> None:
        self.direction = edge_direction_columns(self.irreps_in2, type(self).__name__, "gaunt_grid")
        self.turned_irreps = sorted({c.ir for c in [*self.sides[0], *self.sides[2]] if c.ir.l})
        if self.turned_irreps:
            self.rotation = EdgeRotation(self.turned_irreps, self.max_order)

    @property
    def max_order(self) -> int:
        """Largest |m| that both the first input and the output have."""
        first, _, third = self.degrees
        return min(max(first), max(third, default=0))

    def coupling_power(self) -> Tensor:
        first, second, third = self.degrees
        power = torch.zeros(len(first), len(second), len(third), dtype=torch.float64)
        for i, l1 in enumerate(first):
            for j, l2 in enumerate(second):
                for k, l3 in enumerate(third):
                    if abs(l1 - l2) <= l3 <= l1 + l2 and (l1 + l2 + l3) % 2 == 0:
                        power[i, j, k] = gaunt_coefficients(l1, l2, l3).square().sum() / (2 * l3 + 1)
        return power

    def prepare(self, scale: Tensor) -> None:
        first, second, third = self.degrees
        latitudes, _ = exact_resolution(max(first) + max(second) + max(third, default=0))
        nodes, weights = (torch.from_numpy(array) for array in np.polynomial.legendre.leggauss(latitudes))
        meridian = torch.stack([torch.zeros_like(nodes), nodes, (1 - nodes.square()).sqrt()], dim=1)
        # On the meridian x = 0 the azimuthal factor of order m >= 0 is one; -m shares its column.
        columns = spherical_harmonics(max(first + second + third), meridian)
        zonal = torch.tensor([(2 * l + 1) ** 0.5 for l in second], dtype=torch.float64)
        self.register_constant("filter_values", columns[:, [l * l + l for l in second]] * zonal)
        scales = torch.stack([part[0] for part in scale.split([2 * l + 1 for l in third])]) if third else scale
        for m in range(self.max_order + 1):
            self.register_constant(f"to_values_{m}", columns[:, [l * l + l + m for l in first if l >= m]])
            kept = [k for k, l in enumerate(third) if l >= m]
            back = columns[:, [third[k] ** 2 + third[k] + m for k in kept]] * scales[kept]
            # The mean of three component-normalised harmonics is sqrt(4π) ∫ YYY; that of cos² is 1/2.
            mean = weights / (4 if m else 2) / math.sqrt(4 * math.pi)
            self.register_constant(f"from_values_{m}", (back * mean[:, None]).T.contiguous())

    def product(self, a: Tensor, b: Tensor) -> Tensor:
        raise NotImplementedError("The direction of the filter is needed too; multiply does not come here.")

    def multiply(self, x1: Tensor, x2: Tensor, weight: Tensor | None) -> Tensor:
        if self.direction is not None:
            check_directions(x2[:, self.direction], type(self).__name__)
        w1, w2, w3 = (None, None, None) if self.weights == "none" else weight.split(self.weight_sizes, dim=-1)
        frames = self._frames(x2)
        result = self._multiply_columns(self._embed(0, x1, w1), self._filter_values(x2, w2), frames)
        if self.ragged_gain:
            result = result * self.constant_like("gain", result)
        return self._read_back(result, w3)

    def _frames(self, x2: Tensor) -> dict[Irrep, Tensor]:
        """Return for every irrep but the scalars its matrix to the frame of the edge."""
        if not self.turned_irreps:
            return {}
        # Without a direction there are scalars only, which are the same in any frame.
        direction = x2.new_zeros(len(x2), 3) if self.direction is None else x2[:, self.direction] * 3**-0.5
        return dict(zip(self.turned_irreps, self.rotation(direction)))

    def _filter_values(self, x2: Tensor, weight: Tensor | None) -> Tensor:
        """Return the weighted filter at the latitudes, ``(latitudes, rows, 1, channels or 1)``."""
        present = x2.new_ones(len(x2), 1)
        if self.direction is not None:
            present = (x2[:, self.direction].detach().square().sum(dim=1, keepdim=True) > 1.5).to(x2.dtype)
        blocks = split_blocks(x2, self.irreps_in2)
        sizes = torch.stack([block[:, 0] if block.shape[1] == 1 else present for block in blocks])
        if weight is not None:
            channels = weight.unflatten(-1, (len(blocks), self.num_channels))
            sizes = sizes * (channels.unsqueeze(1) if weight.dim() == 1 else channels.transpose(0, 1))
        values = self.constant_like("filter_values", sizes) @ sizes.flatten(1)
        return values.unflatten(1, (len(x2), 1, sizes.shape[2]))

    def _multiply_columns(self, a: Tensor, values: Tensor, frames: dict[Irrep, Tensor]) -> Tensor:
        """Turn ``(rows, dims[0], channels)`` to the frame, multiply order by order and turn back."""
        blocks = [
            block if c.ir.l == 0 else torch.bmm(frames[c.ir], block)
            for c, block in zip(self.sides[0], a.split([c.ir.dim for c in self.sides[0]], dim=1))
        ]
        # Components m and -m, side by side; degrees first, so that each step is one large matrix product.
        pairs = [block.split(pair_sizes(block.shape[1]), dim=1) for block in blocks]
        orders: list[list[Tensor]] = [[] for _ in self.sides[2]]
        for m in range(self.max_order + 1):
            x = torch.stack([parts[m] for parts in pairs if len(parts) > m])
            column = (self.constant_like(f"to_values_{m}", x) @ x.flatten(1)).unflatten(1, x.shape[1:])
            column = (column * values).flatten(1)
            projected = (self.constant_like(f"from_values_{m}", x) @ column).unflatten(1, x.shape[1:])
            kept = [k for k, c in enumerate(self.sides[2]) if c.ir.l >= m]
            for k, part in zip(kept, projected):
                orders[k].append(part)
        outputs = [torch.cat(parts, dim=1) for parts in orders]
        return torch.cat(
            [
                block if c.ir.l == 0 else torch.bmm(frames[c.ir].transpose(1, 2), block)
                for c, block in zip(self.sides[2], outputs)
            ],
            dim=1,
        )
