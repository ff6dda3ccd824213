"""The interface of pair terms."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from ase.data import atomic_numbers as _number_of
from torch import Tensor

from mlip.core.errors import ConfigError
from mlip.nn.edges import Edges
from mlip.ops.constants import ConstantsModule


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


def atomic_numbers_of(elements: Sequence[str]) -> list[int]:
    """Return the atomic numbers of chemical symbols.

    Raises:
        ConfigError: something that is not an element.
    """
    unknown = [symbol for symbol in elements if symbol not in _number_of or symbol == "X"]
    if unknown:
        raise ConfigError(f"Not chemical symbols: {', '.join(map(str, unknown))}.")
    return [_number_of[symbol] for symbol in elements]
