"""Short-range repulsion of nuclei, where no data set has examples."""

from collections.abc import Sequence

import torch
from ase.data import covalent_radii
from torch import Tensor

from mlip.core.errors import ConfigError
from mlip.nn.edges import Edges
from mlip.nn.pair_terms.base import PairTerm, atomic_numbers_of
from mlip.ops.constants import as_float64
from mlip.ops.envelope.polynomial import Polynomial
from mlip.ops.segment import segment_sum

_COULOMB = 14.399645478425668
"""e²/(4πε₀) in eV·Å."""
_SCREENING = 0.46850
"""Prefactor of the universal screening length in Å, 0.8854 Bohr."""


class ZBL(PairTerm):
    """``V = k Z_i Z_j / r · φ(r/a)``, the universal potential of Ziegler, Biersack and Littmark (1985).

    φ(x) = 0.1818 e^(-3.2x) + 0.5099 e^(-0.9423x) + 0.2802 e^(-0.4029x) + 0.02817 e^(-0.2016x),
    a = 0.46850 / (Z_i^0.23 + Z_j^0.23) Å, switched off by a polynomial envelope at ``scale`` times the sum of
    the covalent radii, so that bonds are left to the network.

    Args:
        elements: chemical symbols of the model, in its order.
        cutoff: of the graph in Å; the repulsion ends there at the latest.
        scale: where the repulsion ends, in sums of covalent radii.
    """

    def __init__(self, elements: Sequence[str], cutoff: float, scale: float = 0.8) -> None:
        super().__init__(elements, cutoff)
        if not scale > 0:
            raise ConfigError(f"ZBL needs scale > 0 (sums of covalent radii), got {scale}.")
        numbers = atomic_numbers_of(elements)
        self.register_constant("z", as_float64(numbers))
        self.register_constant("radii", as_float64([covalent_radii[z] * scale for z in numbers]))
        self.register_constant("amplitudes", as_float64([0.1818, 0.5099, 0.2802, 0.02817]))
        self.register_constant("decays", as_float64([3.2, 0.9423, 0.4029, 0.2016]))
        self.envelope = Polynomial(1.0, p=6)

    def forward(self, edges: Edges, species: Tensor) -> Tensor:
        r, senders, receivers = edges.distances, edges.senders, edges.receivers
        vectors = edges.vectors
        z, radii = self.constant_like("z", vectors), self.constant_like("radii", vectors)
        zi, zj = z[species[receivers]], z[species[senders]]
        # Two caesium atoms would repel each other beyond a cutoff of 3.5 Å, where the edge ends.
        end = (radii[species[receivers]] + radii[species[senders]]).clamp(max=self.cutoff)
        x = r * (zi**0.23 + zj**0.23) / _SCREENING
        decays = self.constant_like("decays", vectors)
        screening = torch.exp(-x[:, None] * decays) @ self.constant_like("amplitudes", vectors)
        energy = 0.5 * _COULOMB * zi * zj / r * screening * self.envelope(r / end)
        return segment_sum(energy, receivers, species.shape[0])
