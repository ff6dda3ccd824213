"""What all potentials share: edges, species embedding, layers, heads and pair terms, in this order."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from e3nn.o3 import Irreps
from torch import Tensor, nn

from mlip.core.errors import ConfigError
from mlip.core.fields import TOTALS
from mlip.data.graph import AtomGraph
from mlip.data.graphs.base import GraphBuilder
from mlip.models.base import AtomisticModel, graph_index
from mlip.nn.conditioning.base import Conditioning
from mlip.nn.edges import EdgeFeatures
from mlip.nn.heads.base import Head
from mlip.nn.pair_terms.base import PairTerm
from mlip.ops.envelope.base import Envelope
from mlip.ops.radial.base import RadialBasis
from mlip.ops.segment import segment_sum
from mlip.ops.tensor_product.base import LARGEST_DEGREE, TensorProduct

EDGE_PARITIES = ("natural", "even")


class Potential(AtomisticModel):
    """Message passing from species embeddings to fields.

    A subclass builds the layers; each maps ``(features, edges, species)`` to new features and states
    ``irreps_in`` and ``irreps_out``. Heads see the features after every layer.

    Args:
        elements: chemical symbols.
        cutoff: Å.
        num_scalars: channels of the species embedding, ``num_scalars x 0e``, which the first layer takes.
        lmax_edge: degree of the spherical harmonics of the edges.
        radial: factory of a basis of :mod:`mlip.ops.radial`, takes ``cutoff``.
        envelope: factory of an envelope of :mod:`mlip.ops.envelope`, takes ``cutoff``.
        layers: factory of the layers, takes the :class:`~mlip.nn.edges.EdgeFeatures`.
        head: factories of heads by name; they take ``irreps_layers`` and ``elements``.
        pair_term: factories of pair terms by name; they take ``elements`` and ``cutoff``.
        conditioning: factories of inputs of the embedding by name; they take ``num_channels``.
        edge_parity: ``natural``, or ``even`` for a model that is equivariant to rotations only.
        solid_harmonics: multiply the harmonics of degree l by ``|r|^l``; not every tensor product can.
        graph: builder of the graphs, see :mod:`mlip.data.graphs`; None for all pairs within the cutoff.

    Attributes:
        inputs: fields of a structure, besides its atoms, that a graph must hold, and the values they may have.
    """

    def __init__(
        self,
        *,
        elements: Sequence[str],
        cutoff: float,
        num_scalars: int,
        lmax_edge: int,
        radial: Callable[..., RadialBasis],
        envelope: Callable[..., Envelope],
        layers: Callable[[EdgeFeatures], Sequence[nn.Module]],
        head: Mapping[str, Callable[..., Head]],
        pair_term: Mapping[str, Callable[..., PairTerm]] | None = None,
        conditioning: Mapping[str, Callable[..., Conditioning]] | None = None,
        edge_parity: str = "natural",
        solid_harmonics: bool = False,
        graph: GraphBuilder | None = None,
    ) -> None:
        super().__init__(elements, cutoff, graph)
        if edge_parity not in EDGE_PARITIES:
            raise ConfigError(f"edge_parity must be one of {', '.join(EDGE_PARITIES)}, got '{edge_parity}'.")
        check_factories(radial=radial, envelope=envelope, layers=layers)
        if type(lmax_edge) is not int or not 0 <= lmax_edge <= LARGEST_DEGREE:
            raise ConfigError(f"lmax_edge must be a whole number from 0 to {LARGEST_DEGREE}, got {lmax_edge!r}.")
        self.symmetry = "O3" if edge_parity == "natural" else "SO3"
        self.edges = EdgeFeatures(lmax_edge, radial, envelope, self.cutoff, edge_parity, solid_harmonics)
        self.embedding = nn.Parameter(torch.randn(len(self.elements), num_scalars))
        built = _modules("conditioning", conditioning, Conditioning, num_channels=num_scalars)
        self.conditioning = nn.ModuleDict(built)
        self.inputs = {part.field: part.values for part in built.values()}
        self.layers = nn.ModuleList(layers(self.edges))
        if solid_harmonics:
            self._check_filters()
        heads = _modules(
            "head", head, Head, irreps_layers=[layer.irreps_out for layer in self.layers], elements=self.elements
        )
        self.heads = nn.ModuleDict(heads)
        terms = _modules("pair_term", pair_term, PairTerm, elements=self.elements, cutoff=self.cutoff)
        self.pair_terms = nn.ModuleDict(terms)
        self.fields = self._provided(heads)

    def _check_filters(self) -> None:
        for module in self.layers.modules():
            if isinstance(module, TensorProduct) and module.filter_is_harmonics:
                raise ConfigError(
                    f"{type(module).__name__} reads directions from harmonics of unit vectors, which solid_harmonics "
                    "are not: take model/tensor_product=clebsch_gordan_dense or clebsch_gordan_sparse."
                )

    def _provided(self, heads: Mapping[str, Head]) -> tuple[str, ...]:
        owner: dict[str, str] = {}
        for name, head in heads.items():
            for field in head.provides:
                if field in owner:
                    raise ConfigError(
                        f"Two heads, '{owner[field]}' and '{name}', provide '{field}': choose one of them."
                    )
                owner[field] = name
            if head.symmetry == "SO3" and self.symmetry == "O3":
                raise ConfigError(
                    f"The head '{name}' finds vectors 1e only, which inversion leaves as they are; forces are polar "
                    "vectors 1o: add them to model.irreps_hidden."
                )
        if not owner:
            raise ConfigError("A model needs a head, e.g. model/head=[energy].")
        if len(self.pair_terms) and "energies" not in owner:
            raise ConfigError("Pair terms add to energies, and no head provides them: add model/head=[energy].")
        if len(self.pair_terms) and "forces" in owner:
            raise ConfigError(
                f"Pair terms would have no part in the forces of the head '{owner['forces']}', which are no slopes of "
                "the energy: leave one of them out."
            )
        return (*(total for part, total in TOTALS.items() if part in owner), *owner)

    @property
    def irreps_out(self) -> Irreps:
        """Features after the last layer."""
        return self.layers[-1].irreps_out

    @property
    @abstractmethod
    def exactly_equivariant(self) -> bool:
        """Whether equivariance holds to rounding."""

    def forward(self, graph: AtomGraph) -> dict[str, Tensor]:
        """Return the fields of the heads, float64, and with ``energies`` also their sum ``energy``, eV."""
        batch = graph_index(graph)
        num_graphs = graph.cell.shape[0]
        species = self.species_index[graph.atomic_numbers]
        edges = self.edges(graph, batch, self.embedding.dtype)
        x = self.embedding[species]
        for part in self.conditioning.values():
            x = x + part(graph, batch)
        features = []
        for layer in self.layers:
            x = layer(x, edges, species)
            features.append(x)
        result: dict[str, Tensor] = {}
        for head in self.heads.values():
            found = head(features, species, batch, num_graphs)
            result |= head.in_training(found, graph.positions, batch, num_graphs) if self.training else found
        for term in self.pair_terms.values():
            pair = term(edges, species).double()
            for part in TOTALS.keys() & result.keys():
                result[part] = result[part] + pair.view(-1, *[1] * (result[part].ndim - 1))
        for part, total in TOTALS.items():
            if part in result:
                result[total] = segment_sum(result[part], batch, num_graphs)
        return result


def check_factories(**factories: Any) -> None:
    """Refuse what is no factory: the name of a component, or a component that has been built already.

    Raises:
        ConfigError: names the option.
    """
    for option, factory in factories.items():
        if not callable(factory) or isinstance(factory, nn.Module):
            if factory is None:
                raise ConfigError(f"{option} cannot be null: choose one with model/{option}=NAME.")
            raise ConfigError(f"{option} must be a component with _partial_: true, got {factory!r}.")


def _modules(
    option: str, factories: Mapping[str, Callable[..., nn.Module]] | None, kind: type[nn.Module], **arguments: Any
) -> dict[str, nn.Module]:
    """Build a mapping of factories, refusing what is not a module of the kind."""
    if factories is not None and not isinstance(factories, Mapping):
        raise ConfigError(f"{option} must be components by name, such as model/{option}=[NAME], got {factories!r}.")
    built = {}
    for name, factory in (factories or {}).items():
        module = factory(**arguments) if callable(factory) else factory
        if not isinstance(module, kind):
            raise ConfigError(
                f"{option}.{name} must be a {kind.__name__} of mlip with _partial_: true, got {factory!r}."
            )
        built[name] = module
    return built
