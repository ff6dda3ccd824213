"""The Gaunt tensor product: multiply functions on the sphere, point by point."""

import torch
from e3nn.o3 import Irreps
from torch import Tensor

from mlip.core.errors import ConfigError
from mlip.ops.layout import split_blocks
from mlip.ops.sphere_grid import exact_resolution, gauss_legendre_grid
from mlip.ops.tensor_product.base import Expressivity, Mode, TensorProduct


class GauntGrid(TensorProduct):
    """``out_l3 = w3_l3 · P_l3[(Σ w1_l1 x_l1 · Y_l1)(Σ w2_l2 y_l2 · Y_l2)]`` on an S² grid exact for the degrees.

    Features are read as functions on the sphere, multiplied there and projected back (Gaunt tensor products,
    arXiv 2401.10216, eq. 3; grid form of The Price of Freedom, arXiv 2506.13523). The relative weights of the
    paths are fixed by the Gaunt coefficients; weights are free for each degree and channel. Couplings with
    l1 + l2 + l3 odd do not exist in it, so parities must be natural, (-1)^l. Channels that a degree does not
    have are zero.
    """

    def __init__(self, irreps_in1: Irreps, irreps_in2: Irreps, irreps_out: Irreps, mode: Mode = "uvu") -> None:
        super().__init__(irreps_in1, irreps_in2, irreps_out, mode)
        for irreps in (self.irreps_in1, self.irreps_in2):
            if any(ir.p != (-1) ** ir.l for _, ir in irreps):
                raise ConfigError(
                    f"GauntGrid multiplies functions on the sphere and needs parities (-1)^l, got {irreps}. "
                    "Use clebsch_gordan_dense for other parities."
                )
        natural = [path for path in self.paths if path.ir_out.p == (-1) ** path.ir_out.l]
        degrees_out = sorted({path.ir_out for path in natural})
        channels = {
            ir: max(self.irreps_in1[path.in1].mul for path in natural if path.ir_out == ir) for ir in degrees_out
        }
        self.irreps_out = Irreps([(channels[ir], ir) for ir in degrees_out])
        self.channels = max(channels.values())
        self.degrees = [[ir.l for _, ir in irreps] for irreps in (self.irreps_in1, self.irreps_in2, self.irreps_out)]
        grid = gauss_legendre_grid(*exact_resolution(sum(max(l) for l in self.degrees)))
        values = [grid.to_grid(max(l)) for l in self.degrees]
        for k, side in enumerate(("in1", "in2")):
            self.register_constant(
                f"grid_{side}", torch.cat([values[k][:, l * l : (l + 1) ** 2] for l in self.degrees[k]], 1)
            )
        projector = values[2] * grid.weights[:, None]
        self.register_constant(
            "grid_out",
            torch.cat([projector[:, l * l : (l + 1) ** 2] * self._gain(l) for l in self.degrees[2]], 1).T,
        )
        muls = [mul for mul, _ in self.irreps_in1]
        self.weight_sizes = [sum(muls), len(self.degrees[1]) * self.channels, sum(channels.values())]
        self.weight_numel = sum(self.weight_sizes)

    def _gain(self, l3: int) -> float:
        """Scale output degree l3 to unit variance for component-normalised inputs."""
        # Var(out_m3) = Σ G² over (l1 m1)(l2 m2); summed over m3 and divided by 2 l3 + 1 it is the same for all m3.
        from e3nn.o3 import wigner_3j

        total = 0.0
        for l1 in self.degrees[0]:
            for l2 in self.degrees[1]:
                if abs(l1 - l2) <= l3 <= l1 + l2 and (l1 + l2 + l3) % 2 == 0:
                    zero = wigner_3j(l1, l2, l3, dtype=torch.float64)[l1, l2, l3].item()
                    total += (2 * l1 + 1) * (2 * l2 + 1) * zero**2
        return total**-0.5 if total else 0.0

    def forward(self, x1: Tensor, x2: Tensor, weight: Tensor) -> Tensor:
        w1, w2, w3 = weight.split(self.weight_sizes, dim=1)
        blocks, start = [], 0
        for (mul, _), block in zip(self.irreps_in1, split_blocks(x1, self.irreps_in1)):
            scaled = block * w1[:, None, start : start + mul]
            blocks.append(
                torch.nn.functional.pad(scaled, (0, self.channels - mul))
            ) if mul < self.channels else blocks.append(scaled)
            start += mul
        values1 = self.constant_like("grid_in1", x1) @ torch.cat(blocks, dim=1)
        w2 = w2.unflatten(1, (len(self.degrees[1]), self.channels))
        filters = [y * w2[:, k, None] for k, y in enumerate(split_blocks(x2, self.irreps_in2))]
        values2 = self.constant_like("grid_in2", x2) @ torch.cat(filters, dim=1)
        product = self.constant_like("grid_out", x1) @ (values1 * values2)
        outputs, row, start = [], 0, 0
        for mul, ir in self.irreps_out:
            block = product[:, row : row + ir.dim, :mul] * w3[:, None, start : start + mul]
            outputs.append(block.flatten(1))
            row, start = row + ir.dim, start + mul
        return torch.cat(outputs, dim=1)

    @property
    def expressivity(self) -> Expressivity:
        l1s, l2s, l3s = self.degrees
        paths = tuple(
            (l1, l2, l3)
            for l1 in l1s
            for l2 in l2s
            for l3 in l3s
            if abs(l1 - l2) <= l3 <= l1 + l2 and (l1 + l2 + l3) % 2 == 0
        )
        return Expressivity("degree", False, paths)
