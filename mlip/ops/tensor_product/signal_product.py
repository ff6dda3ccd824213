"""Products of signals: features are read as functions (or matrices), multiplied as such, and read back."""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from e3nn.o3 import Irrep, Irreps
from torch import Tensor

from mlip.core.errors import ConfigError
from mlip.ops.layout import split_blocks
from mlip.ops.tensor_product.base import Expressivity, Mode, Normalization, TensorProduct, Weights
from mlip.ops.tensor_product.coupling_power import coupling_power


@dataclass(frozen=True)
class Component:
    """One way in which a block of irreps enters a signal.

    Attributes:
        block: entry of the irreps.
        ir: its irrep.
        label: what tells several components of one block apart, up to the backend.
    """

    block: int
    ir: Irrep
    label: tuple[int, ...] = ()


class SignalProduct(TensorProduct):
    """``out_c3 = w3_c3 · P_c3[ (Σ w1_c1 E_c1 x1) · (Σ w2_c2 E_c2 x2) ]`` with a fixed product of signals.

    ``E`` embeds a component into the space of signals and ``P`` projects back. The relative weights of the paths
    are fixed by the product; weights ``degree`` are free for each component (each degree, where a degree has one
    component) and channel of both inputs and the output. In mode ``uvw`` they are the matrices of linear layers
    before and after a channel-wise product with as many channels as the widest output.

    Weights are ordered (first input, second input, output), inside by component and channel. In mode ``uvu``
    channels that a block does not have are zero, and every output channel has unit variance all the same.

    A backend writes :meth:`components`, :meth:`prepare` and :meth:`product`.

    Attributes:
        signals: which irreps have a signal, in words, for messages.
        sides: the components of both inputs and the output.
        dims: number of coefficients of each side, Σ (2l + 1) over its components.
        power: mean square over m3 of the coupling of each three components, normalisation ``none``.
    """

    supported_weights = ("degree", "none")
    signals: str

    def __init__(
        self,
        irreps_in1: Irreps,
        irreps_in2: Irreps,
        irreps_out: Irreps,
        mode: Mode = "uvu",
        weights: Weights | None = None,
        normalization: Normalization = "component",
    ) -> None:
        super().__init__(irreps_in1, irreps_in2, irreps_out, mode, weights, normalization)
        # Nobody who left the weights to the backend insists on these.
        self.able = "clebsch_gordan_dense" if weights != "degree" else "matrix"
        if mode == "uvw" and self.weights != "degree":
            raise ConfigError(f"Mode 'uvw' is nothing without its weights: give degree, got '{self.weights}'.")
        reached = sorted({path.ir_out for path in self.paths})
        self._settle(Irreps([(1, ir) for ir in reached]))
        if not self.sides[2]:
            raise ConfigError(
                f"{type(self).__name__} cannot reach {Irreps(irreps_out)} from {self.irreps_in1} and "
                f"{self.irreps_in2}; {self.able} can."
            )
        self._lay_out_channels(Irreps(irreps_out))
        self._normalise()
        self.set_up()

    # What a backend writes.

    @abstractmethod
    def components(self, side: int, block: int, ir: Irrep) -> list[Component]:
        """Return how an irrep enters the signal of a side (0, 1: inputs, 2: output); [] if it cannot."""

    @abstractmethod
    def prepare(self, scale: Tensor) -> None:
        """Register the constants for ``self.sides``; called again with other scales.

        Args:
            scale: ``(dims[2],)`` factors that :meth:`product` applies to its result.
        """

    @abstractmethod
    def product(self, a: Tensor, b: Tensor) -> Tensor:
        """Multiply coefficients as signals, channel by channel.

        Args:
            a: ``(rows, dims[0], channels)``.
            b: ``(rows, dims[1], channels or 1)``.

        Returns:
            ``(rows, dims[2], channels)``.
        """

    def takes(self, ir: Irrep) -> bool:
        return bool(self.components(0, 0, ir))

    # Set-up.

    def _settle(self, irreps_out: Irreps) -> None:
        """Find the components of all sides, and drop those of the output that no signal reaches."""
        self.sides = [
            [c for k, (_, ir) in enumerate(irreps) for c in self.components(side, k, ir)]
            for side, irreps in enumerate((self.irreps_in1, self.irreps_in2, irreps_out))
        ]
        for side, irreps in enumerate((self.irreps_in1, self.irreps_in2)):
            missing = [str(ir) for k, (_, ir) in enumerate(irreps) if k not in {c.block for c in self.sides[side]}]
            if missing:
                raise ConfigError(
                    f"{type(self).__name__} has no signal for {', '.join(missing)}: {self.signals}; "
                    f"{self.able} takes any irrep."
                )
        if not self.sides[2]:
            return
        self._measure()
        kept = [c for c, power in zip(self.sides[2], self.power.sum(dim=(0, 1)).tolist()) if power > 1e-20]
        irreps_kept = [ir for k, (_, ir) in enumerate(irreps_out) if k in {c.block for c in kept}]
        fewer = len(kept) < len(self.sides[2])
        self.sides[2] = [Component(irreps_kept.index(c.ir), c.ir, c.label) for c in kept]
        if fewer and kept:
            self._measure()
        self.irreps_out = Irreps([(1, ir) for ir in irreps_kept])

    def _measure(self) -> None:
        """Compute ``power`` from the product itself, without scales."""
        self.dims = [sum(c.ir.dim for c in side) for side in self.sides]
        self.prepare(torch.ones(self.dims[2], dtype=torch.float64))
        self.power = self.coupling_power()
        # Rounding of a grid is no signal.
        self.power = torch.where(self.power < 1e-20 * self.power.max().clamp(min=1e-300), 0.0, self.power)

    def coupling_power(self) -> Tensor:
        """Return ``(components1, components2, components3)``: Σ over m1, m2 and mean over m3 of the squared map."""
        return coupling_power(self.product, [[c.ir.l for c in side] for side in self.sides])

    def _lay_out_channels(self, wanted: Irreps) -> None:
        """Decide about channels, the output's multiplicities and the weights."""
        muls1, muls2 = [mul for mul, _ in self.irreps_in1], [mul for mul, _ in self.irreps_in2]
        self.num_channels = max(muls1)
        if self.mode == "uvuv":
            if len(set(muls1)) > 1 or len(set(muls2)) > 1:
                raise ConfigError(
                    f"{type(self).__name__} pairs whole signals in mode 'uvuv' and needs one multiplicity in each "
                    f"input, got {self.irreps_in1} and {self.irreps_in2}; without weights by degree "
                    "clebsch_gordan_dense takes ragged ones."
                )
            self.num_channels = muls1[0] * muls2[0]
        present = torch.ones(len(self.sides[0]), self.num_channels, dtype=torch.float64)
        if self.mode == "uvu":
            for k, c in enumerate(self.sides[0]):
                present[k, muls1[c.block] :] = 0.0
        if self.mode == "uvw":
            muls_out = {ir: mul for mul, ir in wanted}
            self.num_channels = max(muls_out[ir] for _, ir in self.irreps_out)
            present = present[:, :1].expand(-1, self.num_channels)
        self.signal_variance = torch.einsum("abc,au->cu", self.power * self._input_variance(), present)
        signal = [
            int((self.signal_variance[[c.block == k for c in self.sides[2]]].sum(0) > 0).sum())
            for k in range(len(self.irreps_out))
        ]
        if self.mode == "uvw":
            signal = [muls_out[ir] for _, ir in self.irreps_out]
        self.irreps_out = Irreps([(mul, ir) for mul, (_, ir) in zip(signal, self.irreps_out)])
        muls_out_list = [mul for mul, _ in self.irreps_out]
        if self.weights == "none":
            self.weight_sizes = [0, 0, 0]
        elif self.mode == "uvw":
            n = self.num_channels
            self.weight_sizes = [
                n * sum(muls[c.block] for c in side) for muls, side in zip((muls1, muls2, muls_out_list), self.sides)
            ]
        else:
            second = len(self.sides[1]) * (self.num_channels if self.mode == "uvu" else 1)
            if self.mode != "uvu":
                second = sum(muls2[c.block] for c in self.sides[1])
            self.weight_sizes = [
                sum(muls1[c.block] for c in self.sides[0]),
                second,
                sum(muls_out_list[c.block] for c in self.sides[2]),
            ]
        self.weight_numel = sum(self.weight_sizes)

    def _input_variance(self) -> float | Tensor:
        """Return the variance of a coefficient of each pair of input components."""
        if self.normalization != "norm":
            return 1.0
        first, second = (torch.tensor([1.0 / c.ir.dim for c in side], dtype=torch.float64) for side in self.sides[:2])
        return first[:, None, None] * second[None, :, None]

    def _normalise(self) -> None:
        """Scale every output component (and, with ragged multiplicities, channel) to the promised variance."""
        if self.normalization == "none":
            gains = torch.ones_like(self.signal_variance)
        else:
            gains = self.signal_variance.clamp(min=1e-300).rsqrt() * (self.signal_variance > 0)
            terms = torch.tensor([sum(c.block == d.block for d in self.sides[2]) for c in self.sides[2]])
            gains = gains / terms[:, None].double().sqrt()
            if self.normalization == "norm":
                gains = gains / torch.tensor([c.ir.dim for c in self.sides[2]]).double()[:, None].sqrt()
        dims = torch.tensor([c.ir.dim for c in self.sides[2]])
        common = gains.max(dim=1).values
        self.prepare(common.repeat_interleave(dims))
        ratio = gains / common.clamp(min=1e-300)[:, None]
        self.ragged_gain = bool((ratio - 1).abs().max() > 1e-12)
        if self.ragged_gain:
            self.register_constant("gain", ratio.repeat_interleave(dims, dim=0))

    # The product.

    def multiply(self, x1: Tensor, x2: Tensor, weight: Tensor | None) -> Tensor:
        w1, w2, w3 = (None, None, None) if self.weights == "none" else weight.split(self.weight_sizes, dim=-1)
        if self.mode == "uvuv":
            a, b = self._embed(0, x1, w1), self._embed(1, x2, w2)
            a = a.unsqueeze(3).expand(-1, -1, -1, b.shape[2]).flatten(2)
            b = b.unsqueeze(2).expand(-1, -1, self.irreps_in1[0].mul, -1).flatten(2)
        else:
            a, b = self._embed(0, x1, w1), self._embed(1, x2, w2)
        result = self.product(a, b)
        if self.ragged_gain:
            result = result * self.constant_like("gain", result)
        return self._read_back(result, w3)

    def _embed(self, side: int, x: Tensor, weight: Tensor | None) -> Tensor:
        """Return weighted coefficients ``(rows, dims[side], channels)``."""
        irreps = (self.irreps_in1, self.irreps_in2)[side]
        components = self.sides[side]
        muls = [irreps[c.block].mul for c in components]
        simple = len(components) == len(irreps) and len(set(muls)) == 1
        if weight is None and simple and (muls[0] == self.num_channels or self.mode != "uvw"):
            return x.unflatten(1, (self.dims[side], muls[0]))
        blocks = split_blocks(x, irreps)
        if self.mode == "uvw":
            mixes = weight.split([mul * self.num_channels for mul in muls], dim=-1)
            parts = [
                (blocks[c.block] * mul**-0.5) @ mix.unflatten(-1, (mul, self.num_channels))
                for c, mul, mix in zip(components, muls, mixes)
            ]
            return torch.cat(parts, dim=1)
        spread = self.mode == "uvu" and side == 1
        if weight is None:
            parts = [blocks[c.block] for c in components]
        else:
            scales = weight.split([self.num_channels] * len(muls) if spread else muls, dim=-1)
            parts = [blocks[c.block] * scale.unsqueeze(-2) for c, scale in zip(components, scales)]
        if self.mode == "uvu" and side == 0:
            pads = [self.num_channels - mul for mul in muls]
            parts = [torch.nn.functional.pad(part, (0, n)) if n else part for part, n in zip(parts, pads)]
        return torch.cat(parts, dim=1)

    def _read_back(self, result: Tensor, weight: Tensor | None) -> Tensor:
        """Weigh the output components, sum those of one irrep and flatten ``(rows, dims[2], channels)``."""
        muls = [self.irreps_out[c.block].mul for c in self.sides[2]]
        simple = len(self.sides[2]) == len(self.irreps_out) and set(muls) == {self.num_channels}
        if weight is None and simple:
            return result.flatten(1)
        parts = result.split([c.ir.dim for c in self.sides[2]], dim=1)
        if self.mode == "uvw":
            mixes = weight.split([mul * self.num_channels for mul in muls], dim=-1)
            parts = [
                (part * self.num_channels**-0.5) @ mix.unflatten(-1, (self.num_channels, mul))
                for part, mul, mix in zip(parts, muls, mixes)
            ]
        elif weight is None:
            parts = [part[:, :, :mul] for part, mul in zip(parts, muls)]
        else:
            parts = [
                part[:, :, :mul] * w.unsqueeze(-2) for part, mul, w in zip(parts, muls, weight.split(muls, dim=-1))
            ]
        blocks: list[Tensor | None] = [None] * len(self.irreps_out)
        for c, part in zip(self.sides[2], parts):
            blocks[c.block] = part if blocks[c.block] is None else blocks[c.block] + part
        return torch.cat([block.flatten(1) for block in blocks], dim=1)

    @property
    def expressivity(self) -> Expressivity:
        found = {
            (self.sides[0][a].ir.l, self.sides[1][b].ir.l, self.sides[2][c].ir.l)
            for a, b, c in (self.power > 0).nonzero().tolist()
        }
        return Expressivity("degree", any(sum(path) % 2 for path in found), tuple(sorted(found)))
