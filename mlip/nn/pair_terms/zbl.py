"""Short-range repulsion of nuclei, where no data set has examples."""

from collections.abc import Sequence

from torch import Tensor

from mlip.nn.pair_terms.base import Repulsion
from mlip.ops.constants import as_float64
from mlip.ops.universal_repulsion import universal_repulsion


class ZBL(Repulsion):
    """The universal potential of Ziegler, Biersack and Littmark (1985), :mod:`mlip.ops.universal_repulsion`.

    Args:
        elements, cutoff, scale: as for :class:`~mlip.nn.pair_terms.base.Repulsion`.
    """

    def __init__(self, elements: Sequence[str], cutoff: float, scale: float = 0.8) -> None:
        super().__init__(elements, cutoff, scale)
        self.register_constant("z", as_float64(self.numbers))

    def pair_energy(self, distances: Tensor, first: Tensor, second: Tensor) -> Tensor:
        z = self.constant_like("z", distances)
        return universal_repulsion(z[first], z[second], distances)
