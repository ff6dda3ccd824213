"""A self-connection that is the same for every element."""

from e3nn.o3 import Irreps
from torch import Tensor

from mlip.nn.linear import EquivariantLinear
from mlip.nn.self_connection.base import SelfConnection


class LinearSelfConnection(SelfConnection):
    """``Linear(h_i)``: Facet's and SevenNet-0's."""

    def __init__(self, irreps_in: Irreps, irreps_out: Irreps, elements: tuple[str, ...]) -> None:
        super().__init__(irreps_in, irreps_out, elements)
        self.linear = EquivariantLinear(self.irreps_in, self.irreps_out)

    def forward(self, features: Tensor, species: Tensor) -> Tensor:
        return self.linear(features)
