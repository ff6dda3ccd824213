"""MACE's layer: messages summed over neighbours, then polynomials of the sum."""

from collections.abc import Callable

from e3nn.o3 import Irreps
from torch import Tensor, nn

from mlip.core.errors import ConfigError
from mlip.nn.convolution import Convolution
from mlip.nn.edges import Edges
from mlip.nn.linear import EquivariantLinear
from mlip.nn.many_body import ManyBody
from mlip.nn.self_connection.base import SelfConnection
from mlip.ops.many_body.base import ManyBodyProduct


class ManyBodyInteraction(nn.Module):
    """``A = Convolution(h)``; ``h ← Linear(ManyBody(A)) + SelfConnection(h)`` (MACE, arXiv 2206.07697, eqs. 8-11).

    Without ``residual`` the self-connection is not a branch beside the product but a map of A before it: the new
    features then hold nothing of an atom itself but its element, so that an atom without neighbours has none.
    (mace-torch: RealAgnosticResidualInteractionBlock and RealAgnosticInteractionBlock.)

    Args:
        convolution: from the features to A, without a self-connection of its own; A has the same multiplicity for
            each irrep.
        irreps_out: features wanted, each irrep once.
        correlation: highest power of A.
        many_body: factory of a backend of :mod:`mlip.ops.many_body`.
        self_connection: factory, takes (irreps_in, irreps_out, elements).
        elements: symbols in the order of the species index.
        residual: whether the features are carried on.

    Attributes:
        irreps_in: features in.
        irreps_out: features out: those wanted that the product or the self-connection reaches.
    """

    def __init__(
        self,
        convolution: Convolution,
        irreps_out: Irreps,
        correlation: int,
        many_body: Callable[..., ManyBodyProduct],
        self_connection: Callable[..., SelfConnection],
        elements: tuple[str, ...],
        residual: bool,
    ) -> None:
        super().__init__()
        self.irreps_in = convolution.irreps_in
        self.convolution = convolution
        irreps_sum = convolution.irreps_out
        wanted = Irreps([(1, ir) for _, ir in irreps_out])
        self.many_body = ManyBody(irreps_sum, wanted, len(elements), correlation, many_body)
        carried = {ir for _, ir in self.irreps_in} if residual else set()
        reached = {ir for _, ir in self.many_body.irreps_out} | carried
        self.irreps_out = Irreps([(mul, ir) for mul, ir in irreps_out if ir in reached])
        if not len(self.irreps_out) or not self.irreps_out[0].ir.is_scalar():
            raise ConfigError(
                f"No product of up to {correlation} of {irreps_sum} reaches the scalars of {irreps_out}: raise the "
                "correlation or lmax_edge."
            )
        self.linear = EquivariantLinear(self.many_body.irreps_out, self.irreps_out)
        self.residual = residual
        self.self_connection = (
            self_connection(self.irreps_in, self.irreps_out, elements)
            if residual
            else self_connection(irreps_sum, irreps_sum, elements)
        )

    def forward(self, features: Tensor, edges: Edges, species: Tensor) -> Tensor:
        """Update ``(atoms, irreps_in.dim)`` to ``(atoms, irreps_out.dim)``; ``species``: ``(atoms,)`` indices."""
        summed = self.convolution(features, edges, species)
        if not self.residual:
            return self.linear(self.many_body(self.self_connection(summed, species), species))
        return self.linear(self.many_body(summed, species)) + self.self_connection(features, species)
