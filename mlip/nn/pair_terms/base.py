"""The interface of pair terms, and the repulsive ones that end before bonds begin."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from ase.data import atomic_numbers as _number_of
from ase.data import covalent_radii
from torch import Tensor

from mlip.core.errors import ConfigError
from mlip.nn.edges import Edges
from mlip.ops.constants import ConstantsModule, as_float64
from mlip.ops.envelope.polynomial import Polynomial
from mlip.ops.segment import segment_sum


class PairTerm(ConstantsModule, ABC):
    """An energy of pairs of atoms that needs no network.

    Args:
        elements: chemical symbols of the model, in its order.
        cutoff: of the graph in Å; the term is exactly zero from there on.
    """

    def __init__(self, elements: Sequence[str], cutoff: float) -> None:
        super().__init__()
        self.elements, self.cutoff = tuple(elements), float(cutoff)

    @abstractmethod
    def forward(self, edges: Edges, species: Tensor) -> Tensor:
        """Return the energy of every atom.

        Args:
            edges: every pair appears in both directions.
            species: ``(atoms,)`` element indices.

        Returns:
            ``(atoms,)`` eV; half of each pair's energy.
        """


class Repulsion(PairTerm):
    """A core ``V_ij(r) f(r / r_end)``, with r_end a multiple of the sum of the covalent radii, or the cutoff if nearer.

    f is the polynomial envelope with p = 6 (DimeNet, arXiv 2003.03123): bonds are left to the network.

    Args:
        elements: chemical symbols of the model, in its order.
        cutoff: of the graph in Å; the repulsion ends there at the latest.
        scale: where the repulsion ends, in sums of covalent radii.
    """

    def __init__(self, elements: Sequence[str], cutoff: float, scale: float = 0.8) -> None:
        super().__init__(elements, cutoff)
        if not scale > 0:
            raise ConfigError(f"{type(self).__name__} needs scale > 0 (sums of covalent radii), got {scale}.")
        self.numbers = atomic_numbers_of(elements)
        self.register_constant("radii", as_float64([covalent_radii[z] * scale for z in self.numbers]))
        self.envelope = Polynomial(1.0, p=6)

    @abstractmethod
    def pair_energy(self, distances: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """Return V in eV ``(pairs,)`` at distances in Å, for the elements with the indices ``first`` and ``second``."""

    def forward(self, edges: Edges, species: Tensor) -> Tensor:
        first, second = species[edges.receivers], species[edges.senders]
        radii = self.constant_like("radii", edges.distances)
        # Two caesium atoms would repel each other beyond a cutoff of 3.5 Å, where the edge ends.
        end = (radii[first] + radii[second]).clamp(max=self.cutoff)
        energy = 0.5 * self.pair_energy(edges.distances, first, second) * self.envelope(edges.distances / end)
        return segment_sum(energy.double(), edges.receivers, species.shape[0])


def atomic_numbers_of(elements: Sequence[str]) -> list[int]:
    """Return the atomic numbers of chemical symbols.

    Raises:
        ConfigError: something that is not an element.
    """
    unknown = [symbol for symbol in elements if symbol not in _number_of or symbol == "X"]
    if unknown:
        raise ConfigError(f"Not chemical symbols: {', '.join(map(str, unknown))}.")
    return [_number_of[symbol] for symbol in elements]
