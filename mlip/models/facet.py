"""Facet: spline radial weights, uvu convolutions and an MLP on the sphere (arXiv 2509.08418)."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from e3nn.o3 import Irreps, spherical_harmonics
from torch import Tensor, nn

from mlip.core.errors import ConfigError
from mlip.data.graph import AtomGraph
from mlip.data.graphs.base import GraphBuilder
from mlip.models.base import AtomisticModel, graph_index
from mlip.nn.activations import Activation
from mlip.nn.convolution import Convolution
from mlip.nn.edge_vectors import edge_vectors, safe_norm
from mlip.nn.heads.energy import EnergyHead, atomic_numbers_of
from mlip.nn.layer_norm import EquivariantLayerNorm
from mlip.nn.linear import fit_channels
from mlip.nn.pair_repulsion import ZBL
from mlip.nn.radial_weights import EnvelopedBasis
from mlip.nn.sphere_mixer import ScalarMixer, SphereMixer
from mlip.ops.envelope.base import Envelope
from mlip.ops.layout import natural_irreps
from mlip.ops.radial.base import RadialBasis
from mlip.ops.segment import segment_sum
from mlip.ops.tensor_product.base import TensorProduct


class FacetLayer(nn.Module):
    """One interaction: ``h ← LayerNorm(Mixer(Convolution(h))) + h``.

    Args:
        irreps_in: features in.
        irreps_out: features out; the residual is padded or cut to it.
        convolution: factory that takes (irreps_in, irreps_out).
        activation: of the mixer.
        num_heads, resolution: of :class:`~mlip.nn.sphere_mixer.SphereMixer`.
        initial_scale: start of the residual branch's scales.
    """

    def __init__(
        self,
        irreps_in: Irreps,
        irreps_out: Irreps,
        convolution: Callable[[Irreps, Irreps], Convolution],
        activation: Activation,
        num_heads: int,
        resolution: tuple[int, int] | None,
        initial_scale: float,
    ) -> None:
        super().__init__()
        self.irreps_in, self.irreps_out = irreps_in, irreps_out
        self.convolution = convolution(irreps_in, irreps_out)
        if irreps_out.lmax:
            self.mixer: nn.Module = SphereMixer(irreps_out, activation, num_heads, resolution)
        else:
            self.mixer = ScalarMixer(irreps_out.dim, activation)
        self.norm = EquivariantLayerNorm(irreps_out, initial_scale)

    def forward(self, features: Tensor, *edges: Tensor) -> Tensor:
        """Update ``(atoms, irreps_in.dim)`` to ``(atoms, irreps_out.dim)``; ``edges`` go to the convolution."""
        update = self.norm(self.mixer(self.convolution(features, *edges)))
        return update + fit_channels(features, self.irreps_in, self.irreps_out)


class Facet(AtomisticModel):
    """An E(3)-equivariant potential without radial MLPs and without chains of tensor products.

    Args:
        elements: chemical symbols.
        cutoff: Å.
        num_neighbors: average number of neighbours in the training data.
        irreps_hidden: features between the layers, parities (-1)^l, scalars first, ragged multiplicities
            welcome (``128x0e+64x1o+32x2e``). The last layer keeps its scalars only.
        num_layers: interactions.
        lmax_edge: degree of the spherical harmonics of the edges.
        tensor_product: factory of a backend of :mod:`mlip.ops.tensor_product`.
        radial: factory of a basis of :mod:`mlip.ops.radial`, takes ``cutoff``.
        envelope: factory of an envelope of :mod:`mlip.ops.envelope`, takes ``cutoff``.
        activation: pointwise function of the mixers; a polynomial one makes the model exactly equivariant.
        head: factory of the energy head, takes ``irreps_in`` and ``elements``.
        num_heads: heads of the mixers.
        mixer_resolution: (latitudes, longitudes) of the mixers' grid, None for their default.
        neighbor_exponent: see :class:`~mlip.nn.convolution.Convolution`.
        initial_scale: start of the residual branches' scales; 0 starts as the identity.
        pair_repulsion: add the ZBL repulsion of nuclei at short range.
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
        activation: Activation,
        head: Callable[..., EnergyHead],
        num_heads: int = 2,
        mixer_resolution: Sequence[int] | None = None,
        neighbor_exponent: float = 0.7,
        initial_scale: float = 1.0,
        pair_repulsion: bool = False,
        graph: GraphBuilder | None = None,
    ) -> None:
        super().__init__(elements, cutoff, graph)
        hidden = self._check_hidden(irreps_hidden)
        if num_layers < 1:
            raise ConfigError(f"Facet needs num_layers >= 1, got {num_layers}.")
        if not num_neighbors > 0:
            raise ConfigError(f"Facet needs num_neighbors > 0 (the data's average), got {num_neighbors}.")
        scalars = Irreps([(hidden[0].mul, "0e")])
        self.irreps_edge = natural_irreps(lmax_edge)
        self.basis = EnvelopedBasis(radial(cutoff=self.cutoff), envelope(cutoff=self.cutoff))
        self.embedding = nn.Parameter(torch.randn(len(self.elements), scalars.dim))

        def convolution(irreps_in: Irreps, irreps_out: Irreps) -> Convolution:
            return Convolution(
                irreps_in,
                self.irreps_edge,
                irreps_out,
                tensor_product,
                self.basis.num_basis,
                num_neighbors,
                neighbor_exponent,
            )

        irreps = [scalars] + [hidden] * (num_layers - 1) + [scalars]
        resolution = None if mixer_resolution is None else tuple(mixer_resolution)
        self.layers = nn.ModuleList(
            FacetLayer(before, after, convolution, activation, num_heads, resolution, initial_scale)
            for before, after in pairwise(irreps)
        )
        self.irreps_out = scalars
        self.head = head(irreps_in=self.irreps_out, elements=self.elements)
        self.repulsion = ZBL(atomic_numbers_of(self.elements), self.cutoff) if pair_repulsion else None

    @staticmethod
    def _check_hidden(text: str) -> Irreps:
        try:
            hidden = Irreps(text)
        except ValueError as error:
            raise ConfigError(f"irreps_hidden='{text}' cannot be read; write e.g. '64x0e+64x1o+32x2e'.") from error
        natural = all(ir.p == (-1) ** ir.l for _, ir in hidden)
        increasing = [ir.l for _, ir in hidden] == sorted({ir.l for _, ir in hidden})
        empty = not len(hidden) or any(mul < 1 for mul, _ in hidden)
        if empty or not hidden[0].ir.is_scalar() or not natural or not increasing:
            raise ConfigError(
                f"irreps_hidden='{text}' must start with scalars and list each degree once with parity (-1)^l, "
                "e.g. '64x0e+64x1o+32x2e'."
            )
        return hidden

    @property
    def exactly_equivariant(self) -> bool:
        """True where every mixer's grid is exact for its activation."""
        return all(layer.mixer.exact for layer in self.layers)

    def forward(self, graph: AtomGraph) -> dict[str, Tensor]:
        """Return ``energies`` (atoms,) and ``energy`` (graphs,) in eV, float64."""
        dtype = self.embedding.dtype
        senders, receivers = graph.edge_index[0], graph.edge_index[1]
        batch = graph_index(graph)
        vectors = edge_vectors(graph.positions, graph.cell, graph.cell_shifts, senders, receivers, batch[receivers]).to(
            dtype
        )
        distances = safe_norm(vectors)
        # e3nn's own normalisation has a gradient of 1e12 at length zero; this one has a finite one.
        directions = vectors / torch.where(distances == 0, torch.ones_like(distances), distances)[:, None]
        harmonics = spherical_harmonics(
            [ir.l for _, ir in self.irreps_edge], directions, normalize=False, normalization="component"
        )
        basis = self.basis(distances)
        species = self.species_index[graph.atomic_numbers]
        features = self.embedding[species]
        for layer in self.layers:
            features = layer(features, harmonics, basis, senders, receivers)
        energies = self.head(features, species)
        if self.repulsion is not None:
            energies = energies + self.repulsion(vectors, species, senders, receivers).double()
        return {"energies": energies, "energy": segment_sum(energies, batch, graph.cell.shape[0])}
