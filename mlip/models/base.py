"""What every model is: a module that turns a graph into a dict of fields."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import torch
from ase.data import atomic_numbers as _number_of
from ase.data import chemical_symbols
from e3nn.o3 import Irreps
from torch import Tensor

from mlip.core.errors import ConfigError, did_you_mean
from mlip.data.build_graph import as_builder
from mlip.data.elements import check_elements
from mlip.data.graph import AtomGraph
from mlip.data.graphs.base import GraphBuilder
from mlip.data.inputs import Inputs, check_inputs
from mlip.nn.convolution import Convolution
from mlip.ops.constants import ConstantsModule
from mlip.ops.kernels.choice import Kernels, choose_kernels
from mlip.ops.tensor_product.base import LARGEST_DEGREE

Symmetry = Literal["O3", "SO3"]

LARGEST_MULTIPLICITY = 16_384
"""Channels of an irrep: e3nn writes lists of that length, and a damaged number would fill the memory."""

LARGEST_NUM_LAYERS = 100
"""Interactions: receptive fields grow with each, and a damaged number would build for minutes."""


class AtomisticModel(ConstantsModule, ABC):
    """A map from :class:`~mlip.data.graph.AtomGraph` to fields.

    ``forward`` is pure: it changes neither the graph nor itself. Forces and stress are not its business,
    :func:`mlip.nn.derivatives.predict` derives them from the energy, for every model in the same way.

    Args:
        elements: chemical symbols the model knows; kept sorted by atomic number.
        cutoff: radius in Å from which on an edge counts nothing.
        graph: builder of the graphs that the model is trained and evaluated on; None for the radius graph.

    Attributes:
        graph_builder: builds the graphs of the model, in training, evaluation and the calculator alike.
        fields: what ``forward`` returns, names of the field table.
        inputs: what it reads of a structure besides its atoms, names of :data:`mlip.core.fields.INPUTS`, and the values
            that each may have.
        needs: labels that ``forward`` reads, such as ``initial_hamiltonian``.
        silent_fields: fields that are exactly zero whatever the structure (a handedness that nothing reaches).
        symmetry: the group under which predictions transform as the field table says.
        kernels: whether generated kernels are used, see :meth:`use_kernels`.
        continuous: False where predictions jump with the positions by design: a gate that leaves out the weaker pairs.
        exactly_equivariant: False where a documented approximation (an aliasing grid) breaks it slightly.
        config: the plain configuration it was built from; what a model file stores.
        metadata: the card of the model file it came from; empty for a new model.
    """

    fields: tuple[str, ...] = ("energy", "energies")
    inputs: Inputs = MappingProxyType({})
    needs: tuple[str, ...] = ()
    silent_fields: tuple[str, ...] = ()
    symmetry: Symmetry = "O3"
    continuous: bool = True
    kernels: Kernels = "auto"

    def __init__(self, elements: Sequence[str], cutoff: float, graph: GraphBuilder | None = None) -> None:
        super().__init__()
        if not 0 < cutoff < float("inf"):
            raise ConfigError(f"cutoff must be a positive number of Å, got {cutoff}.")
        self.elements = sort_elements(elements)
        self.cutoff = float(cutoff)
        self.graph_builder = self._check_graph(graph)
        self.config: dict[str, Any] = {}
        self.metadata: dict[str, Any] = {}
        # One past the end: an element that slipped through the checks is an IndexError, not the last element.
        index = torch.full((len(chemical_symbols),), len(self.elements), dtype=torch.long)
        for k, symbol in enumerate(self.elements):
            index[_number_of[symbol]] = k
        self.register_constant("species_index", index, keep_dtype=True)

    def _check_graph(self, graph: GraphBuilder | None) -> GraphBuilder:
        if graph is None:
            return as_builder(self.cutoff)
        if not isinstance(graph, GraphBuilder):
            raise ConfigError(f"graph must be a graph builder such as model/graph=radius, got {graph!r}.")
        if graph.cutoff < self.cutoff:
            raise ConfigError(
                f"The graph ends at {graph.cutoff} Å, the model's cutoff is {self.cutoff} Å: edges would vanish before "
                "they count nothing. Give both the same cutoff."
            )
        return graph

    @property
    @abstractmethod
    def exactly_equivariant(self) -> bool:
        """Whether equivariance holds to rounding."""

    @abstractmethod
    def forward(self, graph: AtomGraph) -> dict[str, Tensor]:
        """Return the ``fields`` in float64, rows as the field table says.

        A potential returns at least ``energies`` (atoms,) and ``energy`` (graphs,) in eV.
        """

    def begin_step(self, step: int) -> None:
        """Called by the training before every step, counted from 0; what depends on the step is set here."""

    def use_kernels(self, kernels: Kernels) -> None:
        """Choose whether convolutions run as generated kernels; numbers agree to rounding, weights are the same.

        Args:
            kernels: ``auto`` (where they can be had and there is enough to do), ``on`` (an error where they cannot be
                had) or ``off`` (plain torch).

        Raises:
            ConfigError: none of these.
        """
        self.kernels = choose_kernels(self, kernels)
        if self.kernels == "off":
            for part in self.modules():
                if isinstance(part, Convolution):
                    part.replace_messages(None)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What to say to whoever has trained this model, in sentences."""
        return ()

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the weights."""
        return next(p.dtype for p in self.parameters() if p.is_floating_point())

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.parameters()).device

    @property
    def num_parameters(self) -> int:
        """Number of parameters, frozen or not."""
        return sum(p.numel() for p in self.parameters())

    def check_elements(self, atomic_numbers: Sequence[int]) -> None:
        """Refuse elements the model was not trained on.

        Raises:
            StructureError: names the unknown elements and the known ones.
        """
        check_elements(atomic_numbers, self.elements)

    def check_inputs(self, given: Mapping[str, Any]) -> None:
        """Refuse a structure or a batch that lacks an input, or has a value that the model was not trained on.

        Args:
            given: arrays by name, of the inputs or of more.

        Raises:
            StructureError: names the input and what it may be.
        """
        check_inputs(given, self.inputs)


def check_num_layers(num_layers: object) -> None:
    """Refuse what is no number of layers.

    Raises:
        ConfigError: says what it may be.
    """
    if type(num_layers) is not int or not 1 <= num_layers <= LARGEST_NUM_LAYERS:
        raise ConfigError(f"num_layers must be a whole number from 1 to {LARGEST_NUM_LAYERS}, got {num_layers!r}.")


def check_features(text: str, irreps: Irreps) -> None:
    """Refuse features of a size that nobody means.

    Raises:
        ConfigError: says how many channels, or which degrees, there may be.
    """
    if any(mul > LARGEST_MULTIPLICITY for mul, _ in irreps):
        raise ConfigError(f"irreps_hidden='{text}' has more than {LARGEST_MULTIPLICITY} channels of an irrep.")
    if any(ir.l > LARGEST_DEGREE for _, ir in irreps):
        raise ConfigError(f"irreps_hidden='{text}' has degrees above {LARGEST_DEGREE}.")


def sort_elements(elements: Sequence[str]) -> tuple[str, ...]:
    """Return distinct chemical symbols sorted by atomic number.

    Raises:
        ConfigError: the list is empty or holds something that is not an element.
    """
    known = chemical_symbols[1:]
    for symbol in elements:
        if symbol not in known:
            raise ConfigError(f"'{symbol}' is not a chemical symbol.{did_you_mean(str(symbol), known)}")
    if not elements:
        raise ConfigError("A model needs at least one element; the list of elements is empty.")
    return tuple(sorted(set(elements), key=_number_of.__getitem__))


def graph_index(graph: AtomGraph) -> Tensor:
    """Return the graph of every atom ``(atoms,)``: the batch vector, or zeros for a single graph."""
    batch = graph.get("batch")
    if batch is not None:
        return batch
    return torch.zeros(graph.positions.shape[0], dtype=torch.long, device=graph.positions.device)
