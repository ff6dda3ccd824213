"""The ASE calculator: any `AtomisticModel` as energies, forces and stress in ASE's conventions."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from mlip.calculators.committee import Source, load_as_one, spread_properties, spread_results, spreads_to_predict
from mlip.calculators.structure_checks import (
    check_stress_defined,
    check_structure,
    given_inputs,
    stress_problem,
    unread_charge,
)
from mlip.core.errors import ConfigError, StructureError
from mlip.core.fields import SPREADS
from mlip.data.build_graph import graph_of
from mlip.data.graph import AtomGraph
from mlip.data.inputs import stated_inputs
from mlip.data.neighbours import SkinNeighbourList
from mlip.models.base import AtomisticModel
from mlip.models.build import parse_dtype
from mlip.nn.convolution import MANY_EDGES
from mlip.nn.derivatives import predict
from mlip.nn.tabulated import tabulate
from mlip.ops.kernels.choice import Kernels

log = logging.getLogger(__name__)

_STRESSES = {"stress", SPREADS["stress"]}


class MLIPCalculator(Calculator):
    """A model as an ASE calculator.

    >>> atoms.calc = MLIPCalculator("model.safetensors")  # doctest: +SKIP
    >>> atoms.get_potential_energy(), atoms.get_forces()  # doctest: +SKIP

    Results: ``energy`` and ``free_energy`` (eV, equal), ``energies`` (atoms,) eV, ``forces`` (atoms, 3) eV/Å,
    ``stress`` (6,) eV/Å³ in Voigt order xx yy zz yz xz xy, tension positive. The stress is the strain
    derivative over the volume of the cell; for slabs and wires its components along non-periodic directions
    are zero, and the volume is that of the cell as given, vacuum included. A molecule has none.

    A committee (several models, or a model with several readouts) has besides ``energy_std`` (eV), ``energies_std``
    (atoms,) eV, ``forces_std`` (atoms,) eV/Å and ``stress_std`` (eV/Å³) in the results: standard deviations over its
    members, see :func:`mlip.nn.derivatives.spread`. ``calc.get_property("forces_std", atoms)`` computes one.

    Forces and stress are computed only where they are asked for. What was asked for at one structure is
    computed at once at the next one, so an NPT run makes one backward pass a step, not two.

    The neighbour list is kept between calls while no atom can have come within the cutoff unseen. The model's own
    graph builder chooses the edges among its pairs, the same ones as in training; one that has no finite cutoff
    builds a graph at every call. A builder that needs tags takes those of the atoms (``atoms.set_tags``).

    A model that was trained with charge and spin needs them of every structure: ``atoms.info["charge"]`` and
    ``atoms.info["spin"]`` (the multiplicity 2S + 1), or ``charge`` and ``spin`` here. A model with a head for them
    has ``magmoms`` (atoms,) μB in the results: sizes, so that their sum is no moment of the cell.

    Attributes:
        model: the model in use, in evaluation mode; a copy of the one passed in, so that training on does
            not change numbers that ASE has cached.
        neighbours: the list with its skin; None if the graph has no finite cutoff.
        given: charge and spin of structures that do not state them.
    """

    implemented_properties = ["energy", "free_energy", "energies", "forces", "stress"]  # noqa: RUF012 - ASE's interface

    def __init__(
        self,
        model: Source | Sequence[Source],
        device: str | torch.device = "cpu",
        dtype: str | torch.dtype | None = None,
        skin: float = 0.5,
        charge: int | None = None,
        spin: int | None = None,
        kernels: Kernels | None = None,
    ) -> None:
        """Load or copy the model.

        Args:
            model: path of a model file, name of an imported model (``sevennet-0``), or a model. Several are a
                committee: results are the means over them.
            device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, …
            dtype: ``"float32"``, ``"float64"``, or None for the model's own. Energies are summed in float64
                either way. float64 takes 1.5–1.9 times as long and is worth it for phonons, tight
                relaxations (fmax below 1e-3 eV/Å) and energy-drift checks.
            skin: Å by which the neighbour list is wider than the cutoff; 0 builds it anew at every step.
            charge: total charge in e of structures that do not state it, for a model that reads it.
            spin: their multiplicity 2S + 1, likewise.
            kernels: ``auto``, ``on`` or ``off``, see :meth:`AtomisticModel.use_kernels`; None: as the model was
                trained. Unless it is off, convolutions of larger structures in float32 on a CPU take their radial
                weights from a table, see :func:`mlip.nn.tabulated.tabulate`.

        Raises:
            ModelFileError: the file is not a model file.
            ConfigError: unknown dtype, a device this machine does not have, a model without an energy, models that do
                not fit together, or a charge or spin for a model that does not read it.
        """
        super().__init__()
        device, dtype = resolve_device(device), parse_dtype(dtype)
        self.model = load_as_one(model, device, dtype)
        if "energy" not in self.model.fields:
            raise ConfigError(
                f"A calculator needs a model of the energy; {type(self.model).__name__} predicts "
                f"{', '.join(self.model.fields)}. {_instead(self.model)}"
            )
        self.model.eval().requires_grad_(False)
        if kernels is not None:
            self.model.use_kernels(kernels)
        self._tabulated = False
        self.implemented_properties = [*type(self).implemented_properties, *spread_properties(self.model)]
        if "magmoms" in self.model.fields:
            self.implemented_properties.append("magmoms")
        self.given = given_inputs(self.model, charge=charge, spin=spin)
        builder = self.model.graph_builder
        self.neighbours = SkinNeighbourList(builder.cutoff, skin) if math.isfinite(builder.cutoff) else None
        if not builder.smooth:
            log.warning(
                "This model's graph is not smooth (%s): energies jump and forces do not tell where the graph changes. "
                "Do not trust MD, phonons and tight relaxations; train with model/graph=radius for them.",
                builder.description,
            )
        if "forces" in self.model.fields:
            log.warning(
                "A head of this model gives forces by itself (direct_forces), not as the slope of its energy: energy "
                "is not conserved in MD, relaxations may stop beside the minimum, the stress is that of the energy. "
                "Do not trust MD and phonons; train with model/head=[energy] for them."
            )
        self._asked: set[str] = set()
        self._warned: set[str] = set()
        self._predict: Callable[[AtomGraph, Sequence[str]], dict[str, np.ndarray]] = self.predict

    def predict(self, graph: AtomGraph, fields: Sequence[str]) -> dict[str, np.ndarray]:
        """Evaluate a graph or a batch with the model as this calculator uses it: device, kernels and tables.

        Args:
            graph: on any device.
            fields: see :func:`mlip.nn.derivatives.predict`.
        """
        if not self._tabulated and graph.num_edges >= MANY_EDGES:
            self._tabulate()
        found = predict(self.model, graph.to(self.model.device), fields)
        return {name: value.cpu().numpy() for name, value in found.items()}

    def companion(self, predict: Callable[[AtomGraph, Sequence[str]], dict[str, np.ndarray]]) -> MLIPCalculator:
        """Return a calculator of the same model with structures of its own, whose graphs a function evaluates.

        Args:
            predict: does what :meth:`predict` does, e.g. for many calculators together.
        """
        other = copy.copy(self)
        Calculator.__init__(other)
        builder = self.model.graph_builder
        skin = None if self.neighbours is None else self.neighbours.skin
        other.neighbours = None if skin is None else SkinNeighbourList(builder.cutoff, skin)
        other._asked = set()
        other._predict = predict
        return other

    def _warn_once(self, message: str | None) -> None:
        """Log what a calculator and its companions have not said yet."""
        if message is not None and message not in self._warned:
            self._warned.add(message)
            log.warning("%s", message)

    def get_property(self, name: str, atoms: Atoms | None = None, allow_calculation: bool = True) -> Any:
        """Return one result, computing it if need be (ASE's interface)."""
        if allow_calculation and name in self.implemented_properties:
            self._asked.add(name)
        return super().get_property(name, atoms, allow_calculation)

    def check_state(self, atoms: Atoms, tol: float = 0.0) -> list[str]:
        """Return what changed since the last calculation (ASE's interface), out of what the model reads.

        Compares exactly; ASE's own comparison takes as long as a small model's step when asked three times.
        """
        last = self.atoms
        if last is None:
            return list(all_changes)
        same = {
            "positions": np.array_equal(last.positions, atoms.positions),
            "numbers": np.array_equal(last.numbers, atoms.numbers),
            "cell": np.array_equal(last.cell.array, atoms.cell.array),
            "pbc": np.array_equal(last.pbc, atoms.pbc),
        }
        needed = {*self.model.graph_builder.needs, *self.model.inputs}
        same |= {name: np.array_equal(last.arrays.get(name), atoms.arrays.get(name)) for name in needed}
        same |= {
            f"info {name}": np.array_equal(last.info.get(name), atoms.info.get(name)) for name in self.model.inputs
        }
        return [name for name, equal in same.items() if not equal]

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Compute the properties of a structure into ``self.results`` (ASE's interface).

        Raises:
            StructureError: no atoms, unknown elements, positions or energies that are not finite, periodic
                axes without volume, a charge or spin that is missing or unknown to the model.
            StressUndefinedError: the stress of a molecule, or of a cell without volume.
        """
        super().calculate(atoms, properties, system_changes)
        check_structure(self.atoms, self.model)
        self._warn_once(unread_charge(self.atoms, self.model))
        wanted = set(properties)
        if wanted & _STRESSES:
            check_stress_defined(self.atoms)
        if system_changes:
            wanted |= self._asked - _STRESSES
            if self._asked & _STRESSES and stress_problem(self.atoms) is None:
                wanted |= self._asked & _STRESSES
            self._asked = set(properties)
        self.results.update(self._evaluate(wanted))

    def _evaluate(self, wanted: set[str]) -> dict[str, Any]:
        """Run the model once, and the backward pass if a derivative is wanted."""
        pairs = None if self.neighbours is None else self.neighbours.update(self.atoms)
        inputs = stated_inputs(self.atoms, self.model.inputs, self.given)
        graph = graph_of(self.atoms, self.model.graph_builder, inputs, pairs)
        fields = ["energy", "energies"]
        if wanted & _STRESSES:
            fields.append("stress")
        if wanted & {"forces", SPREADS["forces"]} or "stress" in fields:
            # With the stress the forces come for free, and whoever asks for one mostly needs the other.
            fields.append("forces")
        fields += spreads_to_predict(self.model, {*wanted, *fields})
        predicted = self._predict(graph, fields)
        energy = float(predicted["energy"][0])
        forces = predicted.get("forces")
        if not np.isfinite(energy) or (forces is not None and not np.isfinite(forces).all()):
            raise StructureError(
                f"The model returned an energy of {energy} eV or forces that are not finite for this "
                "structure of "
                f"{len(self.atoms)} atoms: do two atoms coincide, or is the model damaged?"
            )
        results = {"energy": energy, "free_energy": energy, "energies": predicted["energies"]}
        if "magmoms" in predicted:
            results["magmoms"] = predicted["magmoms"]
        if forces is not None:
            results["forces"] = forces
        if "stress" in fields:
            results["stress"] = full_3x3_to_voigt_6_stress(predicted["stress"][0])
        return results | spread_results(predicted)

    def _tabulate(self) -> None:
        """Take radial weights from tables from now on, in what has many edges; float64 is for those who want digits."""
        self._tabulated = True
        # Not every model has convolutions, and a choice of kernels for them.
        kernels = getattr(self.model, "kernels", "off")
        if kernels != "off" and self.model.dtype == torch.float32 and self.model.device.type == "cpu":
            tabulate(self.model)


def _instead(model: AtomisticModel) -> str:
    if "hamiltonian" in model.fields:
        return "Use HamiltonianCalculator (mlip hamiltonian) for it."
    return "Evaluate it with mlip evaluate or mlip.nn.derivatives.predict."


def resolve_device(device: str | torch.device) -> torch.device:
    """Check that the device exists here.

    Raises:
        ConfigError: not a device, or one that this machine or this build of torch does not have.
    """
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"device must be such as 'cpu', 'cuda' or 'cuda:1', got '{device}'.") from error
    if resolved.type == "cuda" and (resolved.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device '{device}' is not here: torch {torch.__version__} sees {torch.cuda.device_count()} "
            "CUDA devices. "
            "Use device 'cpu', or install a CUDA build of torch."
        )
    return resolved
