"""The interface of heads: from node features to fields."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

from e3nn.o3 import Irreps
from torch import Tensor

from mlip.core.errors import ConfigError
from mlip.ops.constants import ConstantsModule


class Head(ConstantsModule, ABC):
    """A map from the node features of a model to fields of the field table.

    Args:
        irreps_layers: features after each layer, in order.
        elements: chemical symbols in the order of the species index.

    Attributes:
        provides: the fields that it adds.
        symmetry: ``SO3`` if its fields are right only in a model that knows no inversion.
    """

    provides: tuple[str, ...]
    symmetry: Literal["O3", "SO3"] = "O3"

    def __init__(self, irreps_layers: Sequence[Irreps], elements: tuple[str, ...]) -> None:
        super().__init__()
        self.irreps_layers = [Irreps(irreps) for irreps in irreps_layers]
        self.elements = tuple(elements)

    @abstractmethod
    def forward(self, features: Sequence[Tensor], species: Tensor, batch: Tensor, num_graphs: int) -> dict[str, Tensor]:
        """Return the fields it provides, in float64, rows as the field table says.

        Args:
            features: ``(atoms, irreps.dim)`` after each layer.
            species: ``(atoms,)`` element indices.
            batch: ``(atoms,)`` graph of every atom.
            num_graphs: number of graphs.
        """

    def in_training(
        self, fields: dict[str, Tensor], positions: Tensor, batch: Tensor, num_graphs: int
    ) -> dict[str, Tensor]:
        """Return the fields that a model in training mode gives; here those of ``forward``.

        Args:
            fields: what ``forward`` returned.
            positions: ``(atoms, 3)`` Å, float64.
            batch, num_graphs: as for ``forward``.
        """
        return fields

    def reference_energies(self) -> dict[str, float]:
        """Return by symbol, in eV, what it counts the energy of an atom from; nothing if it predicts no energies."""
        return {}


def num_scalars(irreps: Irreps, name: str) -> int:
    """Return the number of scalars 0e, which must be the first block.

    Raises:
        ConfigError: they are not; ``name`` is who wants them.
    """
    if not len(irreps) or not irreps[0].ir.is_scalar():
        raise ConfigError(f"{name} needs scalars 0e as the first block of its input, got {irreps}.")
    return irreps[0].mul
