"""WALoss: errors of a Hamiltonian between the true molecular orbitals instead of between atomic orbitals."""

from __future__ import annotations

import numpy as np
import torch
from ase.data import chemical_symbols
from torch import Tensor

from mlip.core.errors import ConfigError, DataError
from mlip.core.numbers import is_number
from mlip.data.graph import AtomGraph
from mlip.data.molecular_orbitals import closed_shells, molecular_orbitals
from mlip.training.losses.base import Loss
from mlip.training.losses.penalties import Penalty
from mlip.training.losses.weights import WeightSchedule

_SHALLOWEST_CORE = 0.05
"""Of -Z², Hartree: 1s levels are at -0.14 Z² (He) to -0.45 Z², valence levels above -0.02 Z²."""


class WavefunctionAlignment(Loss):
    """Penalty of the predicted matrix over the true orbitals C, which should be the diagonal of their energies ε.

        E_kl = w_kl (Cᵀ H C - diag(ε))_kl,    H C_true = S C_true diag(ε)

    To first order E_kk is the error of the orbital energy ε_k, and E_kl / (ε_k - ε_l) how much of orbital l is mixed
    into k. An error that is the same between all atomic orbitals is a large one between molecular orbitals, the more
    so the larger the molecule, which the loss of the matrix alone does not see (Li et al., WANet, arXiv 2502.19227).
    Use it beside ``loss=[hamiltonian]``. Closed-shell molecules; the data must have overlaps
    (``data.dataset.overlap=compute``).

    Args:
        weight, penalty: as for every :class:`~mlip.training.losses.base.Loss`.
        occupied: w of entries with an occupied orbital in row or column, which decide the density and its energy.
        virtual: w of entries between two unoccupied orbitals.

    Raises:
        ConfigError: a factor is negative or no number.
    """

    required = ("hamiltonian",)
    needs = ("overlap",)

    def __init__(
        self, weight: float | WeightSchedule, penalty: Penalty, occupied: float = 1.0, virtual: float = 0.1
    ) -> None:
        super().__init__(weight, penalty)
        for name, value in (("occupied", occupied), ("virtual", virtual)):
            if not is_number(value) or value < 0:
                raise ConfigError(f"{name} is a factor of errors, zero or more, got {value!r}.")
        self.occupied, self.virtual = float(occupied), float(virtual)

    def errors(self, predictions: dict[str, Tensor], graph: AtomGraph) -> Tensor:
        """Return E of all molecules row by row, ``(Σ orbitals²,)``, Hartree.

        Raises:
            DataError: a molecule has an odd number of electrons or an effective core potential, or its overlap is none.
        """
        differences = predictions["hamiltonian"] - graph.hamiltonian
        charges = graph.get("charge", torch.zeros_like(graph.num_orbitals)).tolist()
        atoms = graph.get("ptr", torch.tensor([0, graph.num_nodes])).diff().tolist()
        found, start = [], 0
        for number, numbers in enumerate(graph.atomic_numbers.split(atoms)):
            true = graph.matrices("hamiltonian")[number]
            overlap = graph.matrices("overlap")[number]
            size = len(true)
            difference = differences[start : start + size * size].view(size, size)
            start += size * size
            coefficients, weights = self._orbitals(true, overlap, numbers, int(charges[number]))
            errors = weights * (coefficients.T @ difference @ coefficients)
            # Combinations of orbitals that the overlap rules out leave rows without an error.
            missing = size - len(errors)
            found.append(torch.nn.functional.pad(errors, (0, missing, 0, missing)).flatten())
        return torch.cat(found)

    def _orbitals(self, true: Tensor, overlap: Tensor, numbers: Tensor, charge: int) -> tuple[Tensor, Tensor]:
        """Return C, ``(orbitals, kept)``, and w, ``(kept, kept)``, of a molecule."""
        try:
            orbitals = molecular_orbitals(true.double().cpu().numpy(), overlap.double().cpu().numpy())
            heaviest = int(numbers.max())
            if heaviest > 2 and orbitals.energies[0] > -_SHALLOWEST_CORE * heaviest**2:
                raise DataError(
                    f"the lowest orbital is at {orbitals.energies[0]:.4g} Hartree, too high for the 1s orbital of "
                    f"{chemical_symbols[heaviest]}. The electrons of effective core potentials are not counted here: "
                    "leave the loss out."
                )
            occupied = closed_shells(len(orbitals.energies), int(numbers.sum()) - charge) > 0
        except DataError as error:
            raise DataError(f"The loss of wave functions cannot be computed: {error}") from error
        weights = np.where(occupied[:, None] | occupied, self.occupied, self.virtual)
        return true.new_tensor(orbitals.coefficients), true.new_tensor(weights)
