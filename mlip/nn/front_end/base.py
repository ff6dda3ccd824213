"""The interface of front ends."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor

from mlip.nn.edges import Edges
from mlip.ops.constants import ConstantsModule


class FrontEnd(ConstantsModule, ABC):
    """Scalars of every atom, which the spherical layers start from.

    Args:
        elements: atomic numbers of the model, in its order.
        num_channels: scalars an atom.

    Attributes:
        continuous: False where the scalars jump with the positions by design.
        reach: Å within which it looks at other atoms, 0 if it does not; at most the model's cutoff.
    """

    continuous: bool = True
    reach: float = 0.0

    def __init__(self, elements: Sequence[int], num_channels: int) -> None:
        super().__init__()
        self.num_channels = num_channels

    @abstractmethod
    def forward(self, species: Tensor, edges: Edges, positions: Tensor, batch: Tensor, num_graphs: int) -> Tensor:
        """Return ``(atoms, num_channels)``, the same in every orientation.

        Args:
            species: ``(atoms,)`` element indices.
            edges: all pairs within the model's cutoff.
            positions: ``(atoms, 3)`` Å, axes in the order of the edges' vectors.
            batch: ``(atoms,)`` molecule of each atom.
            num_graphs: molecules.
        """
