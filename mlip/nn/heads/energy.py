"""Per-atom energies from invariant features."""

import torch
from ase.data import atomic_numbers as _number_of
from e3nn.o3 import Irreps
from torch import Tensor, nn

from mlip.core.errors import ConfigError
from mlip.ops.constants import ConstantsModule, as_float64


class EnergyHead(ConstantsModule):
    """``E_i = E0_z + s · (scale_z · e_i + shift_z)``, ``e_i = Linear(h_i)``.

    E0 are fixed reference energies of the elements (isolated atoms, or a least-squares fit) and stay in
    float64 whatever the dtype of the model: total energies of 10⁴ eV have a resolution of 1 meV in
    float32. ``scale_z`` starts at one and ``s · shift_z`` at the average binding energy of the data, which
    would otherwise take hundreds of steps to learn; both are learned from there.

    Args:
        irreps_in: features; must hold scalars 0e.
        elements: symbols in the order of the species index.
        atomic_energies: E0 in eV by symbol; every element must have one.
        scale: s in eV, e.g. the RMS of the forces (in eV/Å) of the training data.
        shift: average of ``(E - Σ E0) / atoms`` in eV over the training data; None counts as zero.

    Attributes:
        provides: fields this head adds.
    """

    provides = ("energies",)

    def __init__(
        self,
        irreps_in: Irreps,
        elements: tuple[str, ...],
        atomic_energies: dict[str, float],
        scale: float = 1.0,
        shift: float | None = None,
    ) -> None:
        super().__init__()
        missing = [symbol for symbol in elements if symbol not in atomic_energies]
        if missing:
            raise ConfigError(f"atomic_energies lacks {', '.join(missing)}; give one energy (eV) for each element.")
        if scale is None or not scale > 0:
            hint = " The data have no forces to take it from: set statistics.force_rms." if scale is None else ""
            raise ConfigError(f"EnergyHead needs scale > 0 eV, got {scale}.{hint}")
        scalars = [mul for mul, ir in Irreps(irreps_in) if ir.is_scalar()]
        if not scalars or not Irreps(irreps_in)[0].ir.is_scalar():
            raise ConfigError(f"EnergyHead needs scalars 0e as the first block of its input, got {irreps_in}.")
        self.num_scalars = scalars[0]
        self.readout = nn.Parameter(torch.randn(self.num_scalars))
        self.scales = nn.Parameter(torch.ones(len(elements)))
        self.shifts = nn.Parameter(torch.full((len(elements),), float(shift or 0.0) / scale))
        self.register_constant(
            "atomic_energies", as_float64([atomic_energies[symbol] for symbol in elements]), keep_dtype=True
        )
        self.scale = float(scale)

    def forward(self, features: Tensor, species: Tensor) -> Tensor:
        """Return ``(atoms,)`` eV in float64 from ``(atoms, irreps_in.dim)`` and element indices ``(atoms,)``."""
        readout = features[:, : self.num_scalars] @ (self.readout * self.num_scalars**-0.5)
        learned = self.scale * (self.scales[species] * readout + self.shifts[species])
        return self.atomic_energies[species] + learned.double()


def atomic_numbers_of(elements: tuple[str, ...] | list[str]) -> list[int]:
    """Return the atomic numbers of chemical symbols, refusing what is not an element."""
    unknown = [symbol for symbol in elements if symbol not in _number_of or symbol == "X"]
    if unknown:
        raise ConfigError(f"Not chemical symbols: {', '.join(map(str, unknown))}.")
    return [_number_of[symbol] for symbol in elements]
