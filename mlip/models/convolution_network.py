"""The family of convolution networks: Facet, NequIP and SevenNet are configurations of it."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from e3nn.o3 import Irreps
from torch import Tensor, nn

from mlip.core.errors import ConfigError
from mlip.data.graphs.base import GraphBuilder
from mlip.models.base import LARGEST_MULTIPLICITY, check_features, check_num_layers
from mlip.models.potential import Potential, check_factories
from mlip.nn.activations import Activation
from mlip.nn.conditioning.base import Conditioning
from mlip.nn.convolution import Convolution
from mlip.nn.edges import EdgeFeatures, Edges
from mlip.nn.heads.base import Head
from mlip.nn.layer_norm import EquivariantLayerNorm
from mlip.nn.linear import fit_channels
from mlip.nn.nonlinearity.base import Nonlinearity
from mlip.nn.pair_terms.base import PairTerm
from mlip.nn.radial_weights.base import RadialWeights
from mlip.nn.self_connection.base import SelfConnection
from mlip.ops.envelope.base import Envelope
from mlip.ops.radial.base import RadialBasis
from mlip.ops.tensor_product.base import TensorProduct


class ConvolutionLayer(nn.Module):
    """``h ← Norm(Nonlinearity(Convolution(h))) + h``; norm and residual are optional.

    Args:
        convolution: from the features to the input of the nonlinearity.
        nonlinearity: block behind it.
        irreps_in: features in.
        norm: factory of a normalisation, takes the irreps; None for none.
        residual: add the features, padded or cut to the new irreps.
    """

    def __init__(
        self,
        convolution: Convolution,
        nonlinearity: Nonlinearity,
        irreps_in: Irreps,
        norm: Callable[[Irreps], EquivariantLayerNorm] | None,
        residual: bool,
    ) -> None:
        super().__init__()
        self.irreps_in, self.irreps_out = irreps_in, nonlinearity.irreps_out
        self.convolution, self.nonlinearity = convolution, nonlinearity
        self.norm = None if norm is None else norm(self.irreps_out)
        self.residual = residual

    def forward(self, features: Tensor, edges: Edges, species: Tensor) -> Tensor:
        """Update ``(atoms, irreps_in.dim)`` to ``(atoms, irreps_out.dim)``."""
        x = self.nonlinearity(self.convolution(features, edges, species))
        if self.norm is not None:
            x = self.norm(x)
        return x + fit_channels(features, self.irreps_in, self.irreps_out) if self.residual else x


class ConvolutionNetwork(Potential):
    """Layers of convolution and nonlinearity on any tensor product, with any radial weights.

    Args:
        elements: chemical symbols.
        cutoff: Å.
        num_neighbors: average number of neighbours in the training data.
        irreps_hidden: features between the layers, scalars 0e first, each irrep once, ragged multiplicities
            welcome (``128x0e+64x1o+32x2e``). The last layer has scalars 0e only; without a nonlinearity that
            creates irreps, a layer keeps those that its convolution can reach.
        num_layers: interactions.
        lmax_edge: degree of the spherical harmonics of the edges.
        tensor_product: factory of a backend of :mod:`mlip.ops.tensor_product`.
        radial: factory of a basis of :mod:`mlip.ops.radial`, takes ``cutoff``.
        envelope: factory of an envelope of :mod:`mlip.ops.envelope`, takes ``cutoff``.
        radial_weights: factory, from basis to weights, of :mod:`mlip.nn.radial_weights`.
        self_connection: factory of a :mod:`mlip.nn.self_connection`; None for none.
        nonlinearity: factory of a :mod:`mlip.nn.nonlinearity`, takes (irreps, activation).
        activation: pointwise function of the nonlinearity; a polynomial one keeps a mixer exactly equivariant.
        head, pair_term, conditioning: see :class:`~mlip.models.potential.Potential`.
        num_outputs: scalars of the last layer; None for as many as ``irreps_hidden`` has.
        norm: factory of a normalisation behind the nonlinearity; None for none.
        residual: add a layer's input to its output.
        linear_in, bias, neighbor_exponent, initial_messages: see :class:`~mlip.nn.convolution.Convolution`.
        edge_parity: ``natural``: O(3); ``even``: all irreps are labelled even, the model knows rotations only, and
            may couple degrees that inversion forbids (Facet's small model, SevenNet-0).
        solid_harmonics: see :class:`~mlip.models.potential.Potential`.
        graph: builder of the graphs, see :mod:`mlip.data.graphs`; None for all pairs within the cutoff.
    """

    def __init__(
        self,
        *,
        elements: Sequence[str],
        cutoff: float,
        num_neighbors: float,
        irreps_hidden: str,
        num_layers: int,
        lmax_edge: int,
        tensor_product: Callable[..., TensorProduct],
        radial: Callable[..., RadialBasis],
        envelope: Callable[..., Envelope],
        radial_weights: Callable[..., RadialWeights],
        self_connection: Callable[..., SelfConnection] | None,
        nonlinearity: Callable[..., Nonlinearity],
        activation: Activation,
        head: Mapping[str, Callable[..., Head]],
        pair_term: Mapping[str, Callable[..., PairTerm]] | None = None,
        conditioning: Mapping[str, Callable[..., Conditioning]] | None = None,
        num_outputs: int | None = None,
        norm: Callable[[Irreps], EquivariantLayerNorm] | None = None,
        residual: bool = False,
        linear_in: bool = False,
        bias: bool = False,
        neighbor_exponent: float = 0.5,
        initial_messages: float = 1.0,
        edge_parity: str = "natural",
        solid_harmonics: bool = False,
        graph: GraphBuilder | None = None,
    ) -> None:
        hidden = read_hidden(irreps_hidden, edge_parity)
        check_factories(tensor_product=tensor_product, radial_weights=radial_weights, nonlinearity=nonlinearity)
        if self_connection is not None:
            check_factories(self_connection=self_connection)
        check_num_layers(num_layers)
        if not isinstance(activation, Activation):
            raise ConfigError(f"activation must be one of mlip.nn.activations, got {activation!r}.")
        if num_outputs is not None and (type(num_outputs) is not int or not 0 < num_outputs <= LARGEST_MULTIPLICITY):
            raise ConfigError(f"num_outputs must be null or 1 to {LARGEST_MULTIPLICITY} scalars, got {num_outputs!r}.")
        scalars = hidden[:1]
        outputs = Irreps([(num_outputs or scalars.dim, "0e")])

        def layers(edges: EdgeFeatures) -> list[ConvolutionLayer]:
            convolution = partial(
                Convolution,
                irreps_edge=edges.irreps,
                tensor_product=tensor_product,
                num_basis=edges.num_basis,
                num_neighbors=num_neighbors,
                neighbor_exponent=neighbor_exponent,
                initial_messages=initial_messages,
                elements=self.elements,
                radial_weights=radial_weights,
                self_connection=self_connection,
                linear_in=linear_in,
                bias=bias,
            )
            found, before = [], scalars
            for wanted in [hidden] * (num_layers - 1) + [outputs]:
                after = nonlinearity(wanted, activation)
                _check_reachable(wanted, edges.irreps, after.creates_irreps)
                if not after.creates_irreps:
                    after = nonlinearity(_reachable(before, edges.irreps, wanted), activation)
                block = convolution(irreps_in=before, irreps_out=after.irreps_in)
                found.append(ConvolutionLayer(block, after, before, norm, residual))
                before = after.irreps_out
            return found

        super().__init__(
            elements=elements,
            cutoff=cutoff,
            num_scalars=scalars.dim,
            lmax_edge=lmax_edge,
            radial=radial,
            envelope=envelope,
            layers=layers,
            head=head,
            pair_term=pair_term,
            conditioning=conditioning,
            edge_parity=edge_parity,
            solid_harmonics=solid_harmonics,
            graph=graph,
        )

    @property
    def exactly_equivariant(self) -> bool:
        """True where every nonlinearity is exact."""
        return all(layer.nonlinearity.exact for layer in self.layers)


def read_hidden(text: str, edge_parity: str) -> Irreps:
    """Read features from a configuration: scalars 0e first, each irrep once, degrees ascending.

    Raises:
        ConfigError: they cannot be read, or are not like that, or have odd parities in a model that has none.
    """
    example = "64x0e+64x1o+32x2e" if edge_parity != "even" else "64x0e+64x1e+32x2e"
    try:
        hidden = Irreps(text)
    except ValueError as error:
        raise ConfigError(f"irreps_hidden='{text}' cannot be read; write e.g. '{example}'.") from error
    irreps = [ir for _, ir in hidden]
    degrees = [ir.l for ir in irreps]
    empty = not irreps or any(mul < 1 for mul, _ in hidden)
    check_features(text, hidden)
    if empty or not irreps[0].is_scalar() or degrees != sorted(degrees) or len(set(irreps)) < len(irreps):
        raise ConfigError(
            f"irreps_hidden='{text}' must start with scalars 0e and list each irrep once, degrees ascending, "
            f"e.g. '{example}'."
        )
    if edge_parity == "even" and any(ir.p != 1 for ir in irreps):
        raise ConfigError(
            f"irreps_hidden='{text}' has odd parities, which edge_parity=even never reaches; write e.g. '{example}'."
        )
    return hidden


def _check_reachable(hidden: Irreps, edge: Irreps, creates_irreps: bool) -> None:
    """Refuse irreps that stay zero however many layers there are: their weights would never be trained."""
    found, before = hidden[:1], Irreps()
    while len(found) > len(before):
        before, found = found, _reachable(found, edge, hidden)
    missing = [] if creates_irreps and found.lmax else [str(ir) for _, ir in hidden if ir not in found]
    if missing:
        raise ConfigError(
            f"irreps_hidden={hidden} has {', '.join(missing)}, which no layer reaches from scalars and edges {edge}: "
            "leave them out, add irreps that lead there, or raise lmax_edge."
        )


def _reachable(before: Irreps, edge: Irreps, wanted: Irreps) -> Irreps:
    """Return the wanted irreps that a convolution or a self-connection can fill."""
    found = {ir for _, ir in before} | {ir for _, a in before for _, b in edge for ir in a * b}
    return Irreps([(mul, ir) for mul, ir in wanted if ir in found])
