"""A classifier of shapes up to mirror image, and of their handedness: it shows what a tensor product can see."""

from collections.abc import Callable, Sequence

import torch
from e3nn.o3 import Irrep, Irreps
from torch import Tensor, nn

from mlip.core.errors import ConfigError
from mlip.data.graph import AtomGraph
from mlip.data.graphs.base import GraphBuilder
from mlip.models.base import LARGEST_MULTIPLICITY, AtomisticModel, check_features, check_num_layers, graph_index
from mlip.nn.activations import Activation
from mlip.nn.convolution import Convolution
from mlip.nn.edges import EdgeFeatures, Edges
from mlip.nn.layer_norm import EquivariantLayerNorm
from mlip.nn.linear import fit_channels
from mlip.nn.nonlinearity.base import Nonlinearity
from mlip.nn.radial_weights.base import RadialWeights
from mlip.nn.self_connection.base import SelfConnection
from mlip.nn.self_interaction import SelfInteraction
from mlip.ops.envelope.base import Envelope
from mlip.ops.layout import split_blocks
from mlip.ops.radial.base import RadialBasis
from mlip.ops.segment import segment_sum
from mlip.ops.tensor_product.base import LARGEST_DEGREE, TensorProduct

SCALAR, PSEUDOSCALAR = Irrep("0e"), Irrep("0o")


class Reached(nn.Module):
    """A block without those irreps of its output that are zero whatever its parameters.

    Args:
        block: has a ``tensor_product``, and a linear map of its input beside it.
        irreps_in: input of the block.
        irreps_out: output of the block, each irrep once.

    Attributes:
        irreps_out: what is left.
    """

    def __init__(self, block: Convolution | SelfInteraction, irreps_in: Irreps, irreps_out: Irreps) -> None:
        super().__init__()
        found = {ir for _, ir in irreps_in} | {ir for _, ir in block.tensor_product.irreps_out}
        self.block, self.irreps_all = block, irreps_out
        self.irreps_out = Irreps([(mul, ir) for mul, ir in irreps_out if ir in found])

    def forward(self, features: Tensor, *context: Edges | Tensor) -> Tensor:
        """Call the block and drop the columns."""
        return fit_channels(self.block(features, *context), self.irreps_all, self.irreps_out)


class ShapeLayer(nn.Module):
    """``h ← Gate(LayerNorm(SelfInteraction(Convolution(h))))``, without the interaction where a backend multiplies
    with spherical harmonics only.

    Args:
        irreps_in: features in, each irrep once.
        irreps_hidden: features wanted between convolution and interaction.
        irreps_out: features wanted out.
        convolution: factory that takes (irreps_in, irreps_out).
        tensor_product: factory of the backend.
        nonlinearity: factory, takes the irreps.

    Attributes:
        irreps_out: those of the wanted features that the backend reaches.
    """

    def __init__(
        self,
        irreps_in: Irreps,
        irreps_hidden: Irreps,
        irreps_out: Irreps,
        convolution: Callable[[Irreps, Irreps], Convolution],
        tensor_product: Callable[..., TensorProduct],
        nonlinearity: Callable[[Irreps], Nonlinearity],
    ) -> None:
        super().__init__()
        block = convolution(irreps_in, irreps_hidden)
        if block.tensor_product.filter_is_harmonics:
            self.convolution = Reached(convolution(irreps_in, irreps_out), irreps_in, irreps_out)
            self.interaction = None
            self.irreps_out = self.convolution.irreps_out
        else:
            self.convolution = Reached(block, irreps_in, irreps_hidden)
            between = self.convolution.irreps_out
            self.interaction = Reached(SelfInteraction(between, tensor_product, irreps_out), between, irreps_out)
            self.irreps_out = self.interaction.irreps_out
        # The product squares the features, layer after layer: without a norm they explode.
        self.norm = EquivariantLayerNorm(self.irreps_out, initial_scale=1.0)
        self.gate = nonlinearity(self.irreps_out)
        if self.gate.irreps_in != self.irreps_out:
            raise ConfigError(
                f"{type(self.gate).__name__} wants gates beside the features, which this model's norm does not know: "
                "choose model/nonlinearity=shared_gate."
            )

    def forward(self, features: Tensor, edges: Edges, species: Tensor) -> Tensor:
        """Map ``(atoms, irreps_in.dim)`` to ``(atoms, irreps_out.dim)``."""
        x = self.convolution(features, edges, species)
        return self.gate(self.norm(x if self.interaction is None else self.interaction(x)))


class ShapeClassifier(AtomisticModel):
    """Scores of shapes up to mirror image from 0e features, handedness from 0o features, averaged over the atoms.

    Features start as scalars; each layer keeps those of ``irreps_hidden`` that the tensor product reaches from
    the layer before and can multiply again. Where it never reaches 0o (Gaunt products of natural parities: no path
    with l1 + l2 + l3 odd) the chirality is exactly zero, and mirror images are the same to the model (The Price of
    Freedom, arXiv 2506.13523).

    Args:
        elements: chemical symbols.
        cutoff: Å.
        num_neighbors: average number of neighbours in the training data.
        num_classes: shapes up to mirror image.
        irreps_hidden: features wanted, each irrep once, both parities, with 0e; the last layer keeps 0e and 0o.
        num_layers: convolutions.
        lmax_edge: degree of the spherical harmonics of the edges.
        tensor_product: factory of a backend of :mod:`mlip.ops.tensor_product`.
        radial: factory of a basis of :mod:`mlip.ops.radial`, takes ``cutoff``.
        envelope: factory of an envelope of :mod:`mlip.ops.envelope`, takes ``cutoff``.
        radial_weights: factory, from basis to weights, of :mod:`mlip.nn.radial_weights`.
        self_connection: factory of a :mod:`mlip.nn.self_connection`.
        nonlinearity: factory of a :mod:`mlip.nn.nonlinearity`, takes (irreps, activation).
        activation: pointwise function of the scalars.
        neighbor_exponent: see :class:`~mlip.nn.convolution.Convolution`.
        graph: builder of the graphs, see :mod:`mlip.data.graphs`; None for all pairs within the cutoff.

    Attributes:
        irreps_out: features of the last layer: 0e, and 0o where it is reached.
    """

    fields = ("class_scores", "chirality")

    def __init__(
        self,
        *,
        elements: Sequence[str],
        cutoff: float,
        num_neighbors: float,
        num_classes: int,
        irreps_hidden: str,
        num_layers: int,
        lmax_edge: int,
        tensor_product: Callable[..., TensorProduct],
        radial: Callable[..., RadialBasis],
        envelope: Callable[..., Envelope],
        radial_weights: Callable[..., RadialWeights],
        self_connection: Callable[..., SelfConnection],
        nonlinearity: Callable[..., Nonlinearity],
        activation: Activation,
        neighbor_exponent: float = 0.5,
        graph: GraphBuilder | None = None,
    ) -> None:
        super().__init__(elements, cutoff, graph)
        hidden = _check_hidden(irreps_hidden)
        check_num_layers(num_layers)
        for name, value, least, most in (
            ("num_classes", num_classes, 2, LARGEST_MULTIPLICITY),
            ("lmax_edge", lmax_edge, 0, LARGEST_DEGREE),
        ):
            if type(value) is not int or not least <= value <= most:
                raise ConfigError(f"{name} must be a whole number from {least} to {most}, got {value!r}.")
        if not isinstance(activation, Activation):
            raise ConfigError(f"activation must be one of mlip.nn.activations, got {activation!r}.")
        irreps = Irreps([(mul, ir) for mul, ir in hidden if ir == SCALAR])
        ends = Irreps([(mul, ir) for mul, ir in hidden if ir.l == 0])
        self.edges = EdgeFeatures(lmax_edge, radial, envelope, self.cutoff)
        self.embedding = nn.Parameter(torch.randn(len(self.elements), irreps.dim))

        def convolution(irreps_in: Irreps, irreps_out: Irreps) -> Convolution:
            return Convolution(
                irreps_in,
                self.edges.irreps,
                irreps_out,
                tensor_product,
                self.edges.num_basis,
                num_neighbors,
                neighbor_exponent,
                self.elements,
                radial_weights,
                self_connection,
            )

        def gate(wanted: Irreps) -> Nonlinearity:
            return nonlinearity(wanted, activation)

        probe = tensor_product(irreps, self.edges.irreps, hidden, mode="uvu")
        inner = Irreps([(mul, ir) for mul, ir in hidden if probe.takes(ir)])
        self.layers = nn.ModuleList()
        for wanted in [inner] * (num_layers - 1) + [ends]:
            self.layers.append(ShapeLayer(irreps, inner, wanted, convolution, tensor_product, gate))
            irreps = self.layers[-1].irreps_out
        self.irreps_out = irreps
        muls = {ir: mul for mul, ir in irreps}
        self.activation = activation
        self.mix = nn.Parameter(torch.randn(muls[SCALAR], muls[SCALAR]))
        self.mix_bias = nn.Parameter(torch.zeros(muls[SCALAR]))
        self.scores = nn.Parameter(torch.randn(muls[SCALAR], num_classes))
        self.scores_bias = nn.Parameter(torch.zeros(num_classes))
        pseudo = muls.get(PSEUDOSCALAR, 0)
        self.register_parameter("handedness", nn.Parameter(torch.randn(pseudo)) if pseudo else None)

    @property
    def exactly_equivariant(self) -> bool:
        """True where every nonlinearity is exact."""
        return all(layer.gate.exact for layer in self.layers)

    @property
    def silent_fields(self) -> tuple[str, ...]:
        """Fields that are zero for every structure: the chirality where 0o is not reached."""
        return () if self.handedness is not None else ("chirality",)

    def forward(self, graph: AtomGraph) -> dict[str, Tensor]:
        """Return ``class_scores`` (graphs, num_classes) and ``chirality`` (graphs,), float64."""
        batch, num_graphs = graph_index(graph), graph.cell.shape[0]
        features = self._features(graph, batch)
        atoms = segment_sum(features.new_ones(len(batch), 1), batch, num_graphs)
        pooled = segment_sum(features, batch, num_graphs) / atoms
        blocks = {ir: block[:, 0] for (_, ir), block in zip(self.irreps_out, split_blocks(pooled, self.irreps_out))}
        scale = self.mix.shape[0] ** -0.5
        hidden = self.activation(blocks[SCALAR] @ (self.mix * scale) + self.mix_bias)
        scores = hidden @ (self.scores * scale) + self.scores_bias
        # Without pseudo-scalars an empty sum: exactly zero, and still part of the autograd graph.
        pseudo = blocks.get(PSEUDOSCALAR, pooled[:, :0])
        if self.handedness is not None:
            pseudo = pseudo * (self.handedness * self.handedness.shape[0] ** -0.5)
        return {"class_scores": scores.double(), "chirality": pseudo.sum(dim=1).double()}

    def _features(self, graph: AtomGraph, batch: Tensor) -> Tensor:
        """Return the features of the last layer ``(atoms, irreps_out.dim)``."""
        edges = self.edges(graph, batch, self.embedding.dtype)
        species = self.species_index[graph.atomic_numbers]
        features = self.embedding[species]
        for layer in self.layers:
            features = layer(features, edges, species)
        return features


def _check_hidden(text: str) -> Irreps:
    try:
        hidden = Irreps(text)
    except ValueError as error:
        raise ConfigError(f"irreps_hidden='{text}' cannot be read; write e.g. '8x0e+8x0o+8x1o+8x1e'.") from error
    irreps = [ir for _, ir in hidden]
    check_features(text, hidden)
    if SCALAR not in irreps or len(set(irreps)) != len(irreps) or any(mul < 1 for mul, _ in hidden):
        raise ConfigError(
            f"irreps_hidden='{text}' must list each irrep once and hold scalars 0e, e.g. '8x0e+8x0o+8x1o+8x1e'."
        )
    return hidden
