"""Per-atom energies from invariant features."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from e3nn.o3 import Irreps
from torch import Tensor, nn

from mlip.core.errors import ConfigError
from mlip.nn.activations import Activation
from mlip.nn.heads.base import Head, num_scalars
from mlip.ops.constants import as_float64


class Readout(nn.Module):
    """One number from scalars: linear, or through hidden layers without bias.

    Args:
        num_channels: scalars in.
        hidden: widths of the hidden layers.
        activation: after each hidden layer; None for none (a product of matrices).
    """

    def __init__(self, num_channels: int, hidden: Sequence[int] = (), activation: Activation | None = None) -> None:
        super().__init__()
        self.activation = activation
        widths = [num_channels, *hidden, 1]
        self.weights = nn.ParameterList(nn.Parameter(torch.randn(a, b)) for a, b in pairwise(widths))

    def forward(self, scalars: Tensor) -> Tensor:
        """Map ``(atoms, num_channels)`` to ``(atoms,)``."""
        *hidden, last = self.weights
        for weight in hidden:
            scalars = scalars @ (weight * weight.shape[0] ** -0.5)
            if self.activation is not None:
                scalars = self.activation(scalars)
        return (scalars @ (last * last.shape[0] ** -0.5)).squeeze(1)


class EnergyHead(Head):
    """``E_i = E0_z + s · (scale_z · e_i + shift_z)``, ``e_i`` a readout of the last layer or the sum of all layers'.

    E0 are fixed reference energies of the elements (isolated atoms, or a least-squares fit) and stay in
    float64 whatever the dtype of the model: total energies of 10⁴ eV have a resolution of 1 meV in
    float32. ``scale_z`` starts at one and ``s · shift_z`` at the average binding energy of the data, which
    would otherwise take hundreds of steps to learn; both are learned from there.

    Args:
        irreps_layers: features after each layer; each must begin with scalars 0e.
        elements: symbols in the order of the species index.
        atomic_energies: E0 in eV by symbol; every element must have one.
        scale: s in eV, e.g. the RMS of the forces (in eV/Å) of the training data.
        shift: average of ``(E - Σ E0) / atoms`` in eV over the training data; None counts as zero.
        all_layers: read all layers (MACE, arXiv 2206.07697) instead of the last one; all but the last linearly.
        hidden: widths of the hidden layers of the last layer's readout.
        activation: between these; None: they are linear (SevenNet-0).
        learned_scales: learn ``scale_z`` and ``shift_z``; if not, they stay as they start, and are no parameters.
    """

    provides = ("energies",)
    per_element = ("scales", "shifts")

    def __init__(
        self,
        irreps_layers: Sequence[Irreps],
        elements: tuple[str, ...],
        atomic_energies: dict[str, float],
        scale: float = 1.0,
        shift: float | None = None,
        all_layers: bool = False,
        hidden: Sequence[int] = (),
        activation: Activation | None = None,
        learned_scales: bool = True,
    ) -> None:
        super().__init__(irreps_layers, elements)
        missing = [symbol for symbol in elements if symbol not in atomic_energies]
        if missing:
            raise ConfigError(f"atomic_energies lacks {', '.join(missing)}; give one energy (eV) for each element.")
        if scale is None or not scale > 0:
            hint = " The data have no forces to take it from: set statistics.force_rms." if scale is None else ""
            raise ConfigError(f"EnergyHead needs scale > 0 eV, got {scale}.{hint}")
        read = self.irreps_layers if all_layers else self.irreps_layers[-1:]
        self.num_scalars = [num_scalars(irreps, "EnergyHead") for irreps in read]
        self.readouts = nn.ModuleList(
            [Readout(count) for count in self.num_scalars[:-1]] + [Readout(self.num_scalars[-1], hidden, activation)]
        )
        self.scale, self.shift = float(scale), float(shift or 0.0)
        scales, shifts = torch.ones(len(elements)), torch.full((len(elements),), self.shift / self.scale)
        self.register_parameter("scales", nn.Parameter(scales) if learned_scales else None)
        self.register_parameter("shifts", nn.Parameter(shifts) if learned_scales else None)
        self.per_element = type(self).per_element if learned_scales else ()
        self.register_constant(
            "atomic_energies", as_float64([atomic_energies[symbol] for symbol in elements]), keep_dtype=True
        )

    def forward(self, features: Sequence[Tensor], species: Tensor, batch: Tensor, num_graphs: int) -> dict[str, Tensor]:
        read = features[-len(self.readouts) :]
        total = sum(f(x[:, :count]) for f, x, count in zip(self.readouts, read, self.num_scalars))
        if self.scales is None:
            return {"energies": self.atomic_energies[species] + (self.scale * total).double() + self.shift}
        learned = self.scale * (self.scales[species] * total + self.shifts[species])
        return {"energies": self.atomic_energies[species] + learned.double()}
