"""MACE: many-body messages from products of each atom's summed neighbourhood (arXiv 2206.07697)."""

from collections.abc import Callable, Mapping, Sequence

from e3nn.o3 import Irrep, Irreps
from torch import nn

from mlip.core.errors import ConfigError
from mlip.data.graphs.base import GraphBuilder
from mlip.models.base import check_num_layers
from mlip.models.convolution_network import read_hidden
from mlip.models.potential import Potential, check_factories
from mlip.nn.conditioning.base import Conditioning
from mlip.nn.convolution import Convolution
from mlip.nn.edges import EdgeFeatures
from mlip.nn.heads.base import Head
from mlip.nn.interaction import ManyBodyInteraction
from mlip.nn.pair_terms.base import PairTerm
from mlip.nn.radial_weights.base import RadialWeights
from mlip.nn.self_connection.base import SelfConnection
from mlip.ops.envelope.base import Envelope
from mlip.ops.many_body.base import ManyBodyProduct
from mlip.ops.radial.base import RadialBasis
from mlip.ops.tensor_product.base import TensorProduct


class MACE(Potential):
    """Few layers of high body order, with any tensor product and any many-body product.

    Args:
        elements: chemical symbols.
        cutoff: Å.
        num_neighbors: average number of neighbours in the training data.
        irreps_hidden: features between the layers, scalars 0e first, each irrep once. The number of scalars is
            the number of channels of the product. The last layer keeps its scalars only.
        num_layers: interactions.
        lmax_edge: degree of the harmonics of the edges and of the summed neighbourhoods that are multiplied.
        correlation: highest power, for all layers or one for each; the body order of a layer is one more.
        tensor_product: factory of a backend of :mod:`mlip.ops.tensor_product`.
        many_body: factory of a backend of :mod:`mlip.ops.many_body`.
        radial: factory of a basis of :mod:`mlip.ops.radial`, takes ``cutoff``.
        envelope: factory of an envelope of :mod:`mlip.ops.envelope`, takes ``cutoff``.
        radial_weights: factory, from basis to weights, of :mod:`mlip.nn.radial_weights`.
        self_connection: factory of a :mod:`mlip.nn.self_connection`; MACE's is ``species``.
        head, pair_term, conditioning: see :class:`~mlip.models.potential.Potential`.
        residual: see :class:`~mlip.nn.interaction.ManyBodyInteraction`, for all layers or one for each; None:
            all but the first.
        neighbor_exponent: see :class:`~mlip.nn.convolution.Convolution`.
        edge_parity: ``natural``: O(3); ``even``: all irreps are labelled even, the model knows rotations only.
        graph: builder of the graphs, see :mod:`mlip.data.graphs`; None for all pairs within the cutoff.
    """

    exactly_equivariant = True

    def __init__(
        self,
        *,
        elements: Sequence[str],
        cutoff: float,
        num_neighbors: float,
        irreps_hidden: str,
        num_layers: int,
        lmax_edge: int,
        correlation: int | Sequence[int],
        tensor_product: Callable[..., TensorProduct],
        many_body: Callable[..., ManyBodyProduct],
        radial: Callable[..., RadialBasis],
        envelope: Callable[..., Envelope],
        radial_weights: Callable[..., RadialWeights],
        self_connection: Callable[..., SelfConnection],
        head: Mapping[str, Callable[..., Head]],
        pair_term: Mapping[str, Callable[..., PairTerm]] | None = None,
        conditioning: Mapping[str, Callable[..., Conditioning]] | None = None,
        residual: bool | Sequence[bool] | None = None,
        neighbor_exponent: float = 1.0,
        edge_parity: str = "natural",
        graph: GraphBuilder | None = None,
    ) -> None:
        hidden = read_hidden(irreps_hidden, edge_parity)
        check_num_layers(num_layers)
        correlations = _for_each_layer("correlation", correlation, num_layers, int)
        if residual is None:
            residual = [False] + [True] * (num_layers - 1)
        residuals = _for_each_layer("residual", residual, num_layers, bool)
        scalars = hidden[:1]
        check_factories(
            tensor_product=tensor_product,
            many_body=many_body,
            radial_weights=radial_weights,
            self_connection=self_connection,
        )

        def layers(edges: EdgeFeatures) -> list[nn.Module]:
            found, before = [], scalars
            for wanted, power, carried in zip(
                [hidden] * (num_layers - 1) + [scalars], correlations, residuals, strict=True
            ):
                convolution = Convolution(
                    irreps_in=before,
                    irreps_edge=edges.irreps,
                    irreps_out=_summed(before, edges.irreps, hidden),
                    tensor_product=tensor_product,
                    num_basis=edges.num_basis,
                    num_neighbors=num_neighbors,
                    neighbor_exponent=neighbor_exponent,
                    elements=self.elements,
                    radial_weights=radial_weights,
                    self_connection=None,
                    linear_in=True,
                )
                layer = ManyBodyInteraction(
                    convolution, wanted, power, many_body, self_connection, self.elements, carried
                )
                found.append(layer)
                before = layer.irreps_out
            _check_reached(hidden, found)
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
            graph=graph,
        )


def _check_reached(hidden: Irreps, layers: Sequence[nn.Module]) -> None:
    """Refuse irreps that no layer has: they would be left out without a word."""
    reached = {ir for layer in layers[:-1] for _, ir in layer.irreps_out} | {hidden[0].ir}
    missing = [str(ir) for _, ir in hidden if ir not in reached]
    if missing:
        if len(layers) == 1:
            mend = "a single layer keeps its scalars only, so leave them out or set num_layers=2"
        else:
            mend = "leave them out, raise lmax_edge, or, for other parities, take model/many_body=symmetric_contraction"
        raise ConfigError(f"irreps_hidden={hidden} has {', '.join(missing)}, which no layer of this MACE has: {mend}.")


def _summed(features: Irreps, edge: Irreps, hidden: Irreps) -> Irreps:
    """Return the irreps of the summed neighbourhoods: degrees of the edges, as many channels as hidden scalars.

    Parities are those of the edges, as in MACE; both where ``hidden`` has others. Only what the convolution
    reaches: the rest would be zeros, of which products cost as much as of anything.
    """
    labels = {ir for _, ir in edge}
    if any(ir not in labels and ir.l <= edge.lmax for _, ir in hidden):
        labels |= {Irrep(ir.l, -ir.p) for ir in labels}
    reached = {ir for _, a in features for _, b in edge for ir in a * b}
    return Irreps([(hidden[0].mul, ir) for ir in sorted(labels & reached)])


def _for_each_layer(name: str, value: object, num_layers: int, kind: type) -> list:
    """Return a value for each layer from one for all or a list."""
    values = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value] * num_layers
    if len(values) != num_layers or any(type(item) is not kind for item in values):
        kind_name = {int: "a whole number", bool: "true or false"}[kind]
        raise ConfigError(f"{name} must be {kind_name}, or a list of {num_layers}, one for each layer; got {value!r}.")
    return values
