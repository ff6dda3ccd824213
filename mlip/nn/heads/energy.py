"""Per-atom energies from invariant features."""

from collections.abc import Mapping, Sequence

import torch
from e3nn.o3 import Irreps
from torch import Tensor, nn

from mlip.core.errors import ConfigError
from mlip.nn.activations import Activation
from mlip.nn.heads.base import Head, num_scalars
from mlip.nn.readout import Readout
from mlip.ops.constants import as_float64


class EnergyHead(Head):
    """``E_i = E0_z + s · (scale_z · c · e_i + shift_z + d)``, ``e_i`` a readout of the last layer or the sum of all.

    E0 are fixed reference energies of the elements (isolated atoms, or a least-squares fit) and stay in
    float64 whatever the dtype of the model: total energies of 10⁴ eV have a resolution of 1 meV in
    float32. ``scale_z`` starts at one and ``s · shift_z`` at the average binding energy of the data, which
    would otherwise take hundreds of steps to learn; both are learned from there.

    Args:
        irreps_layers: features after each layer; each must begin with scalars 0e.
        elements: symbols in the order of the species index.
        atomic_energies: E0 in eV by symbol; every element must have one.
        scale: s in eV, e.g. the RMS of the forces (in eV/Å) of the training data; or s_z by symbol.
        shift: ``s · shift_z`` at the start, in eV: the average of ``(E - Σ E0) / atoms`` over the training data, or by
            symbol; None counts as zero.
        all_layers: read all layers (MACE, arXiv 2206.07697) instead of the last one; all but the last linearly.
        hidden: widths of the hidden layers of the last layer's readout.
        activation: between these; None: they are linear (SevenNet-0).
        learned_scales: learn ``scale_z`` and ``shift_z``; if not, they stay as they start, and are no parameters.
        learned_common: learn c and d, which all elements share, from 1 and 0: instead of those of the elements, or
            besides them (Facet, arXiv 2509.08418). If not, they are no parameters and stay 1 and 0.
        dropout: of the scalars in front of the last linear map, in training only (Facet's recipe has 0.15).

    Raises:
        ConfigError: an element without a number, a scale that is not positive, or a number that is not finite.
    """

    provides = ("energies",)

    def __init__(
        self,
        irreps_layers: Sequence[Irreps],
        elements: tuple[str, ...],
        atomic_energies: Mapping[str, float],
        scale: float | Mapping[str, float] = 1.0,
        shift: float | Mapping[str, float] | None = None,
        all_layers: bool = False,
        hidden: Sequence[int] = (),
        activation: Activation | None = None,
        learned_scales: bool = True,
        learned_common: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(irreps_layers, elements)
        references = _of_elements("atomic_energies", atomic_energies, self.elements)
        scales = _of_elements("scale", scale, self.elements)
        shifts = _of_elements("shift", 0.0 if shift is None else shift, self.elements)
        if not bool((scales > 0).all()):
            raise ConfigError(f"EnergyHead needs scale > 0 eV, got {scale}.")
        read = self.irreps_layers if all_layers else self.irreps_layers[-1:]
        self.num_scalars = [num_scalars(irreps, "EnergyHead") for irreps in read]
        self.readouts = nn.ModuleList(
            [Readout(count, dropout=dropout) for count in self.num_scalars[:-1]]
            + [Readout(self.num_scalars[-1], hidden, activation, dropout)]
        )
        starts = {"scales": torch.ones(len(self.elements)), "shifts": (shifts / scales).float()}
        for name, start in starts.items():
            self.register_parameter(name, nn.Parameter(start) if learned_scales else None)
        for name, start in {"common_scale": torch.ones(1), "common_shift": torch.zeros(1)}.items():
            self.register_parameter(name, nn.Parameter(start) if learned_common else None)
        self.register_constant("atomic_energies", references, keep_dtype=True)
        self.register_constant("fixed_shifts", torch.zeros_like(shifts) if learned_scales else shifts, keep_dtype=True)
        self.register_constant("fixed_scales", scales)

    def forward(self, features: Sequence[Tensor], species: Tensor, batch: Tensor, num_graphs: int) -> dict[str, Tensor]:
        read = features[-len(self.readouts) :]
        total = sum(f(x[:, :count]) for f, x, count in zip(self.readouts, read, self.num_scalars))
        if self.common_scale is not None:
            total = self.common_scale * total
        if self.scales is not None:
            total = self.scales[species] * total + self.shifts[species]
        if self.common_shift is not None:
            total = total + self.common_shift
        learned = self.fixed_scales[species] * total
        return {"energies": (self.atomic_energies + self.fixed_shifts)[species] + learned.double()}

    def reference_energies(self) -> dict[str, float]:
        energies = self.atomic_energies + self.fixed_shifts
        if self.shifts is not None:
            energies = energies + (self.fixed_scales * self.shifts.detach()).double()
        return dict(zip(self.elements, energies.tolist()))


def _of_elements(name: str, value: float | Mapping[str, float] | None, elements: tuple[str, ...]) -> Tensor:
    """Return (elements,) float64 from a number or from numbers by symbol.

    Raises:
        ConfigError: an element has none, or it is no finite number.
    """
    if isinstance(value, Mapping):
        missing = [symbol for symbol in elements if symbol not in value]
        if missing:
            raise ConfigError(f"{name} lacks {', '.join(missing)}; give one energy (eV) for each element.")
        values = [value[symbol] for symbol in elements]
    else:
        values = [value] * len(elements)
    if any(isinstance(x, bool) or not isinstance(x, int | float) for x in values):
        hint = " The data have no forces to take it from: set statistics.force_rms." if value is None else ""
        raise ConfigError(f"EnergyHead needs {name} in eV, one number or one for each element, got {value}.{hint}")
    found = as_float64(values)
    if not bool(torch.isfinite(found).all()):
        raise ConfigError(f"EnergyHead needs {name} in eV that are finite, got {value}.")
    return found
