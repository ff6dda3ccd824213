"""What a network over orbitals needs to know of its training data: the basis, its shells, the mean diagonal blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase.data import chemical_symbols

from mlip.core.errors import DataError
from mlip.data.orbitals import num_orbitals, orbital_table, shells
from mlip.data.sample import Sample

NAMES = ("basis", "functional", "shells", "onsite", "onsite_difference")
"""What is collected."""

NOT_STATED = "None"


def check_initial_guess(sample: Sample, functional: str | None) -> None:
    """Refuse an initial Hamiltonian that predictions, which compute it with the model's functional, will not have.

    Args:
        sample: with ``initial_functional`` in its info, where that is known.
        functional: of the model.

    Raises:
        DataError: another functional, or one that SPHNet's file does not state.
    """
    stated = sample.info.get("initial_functional")
    if None in (stated, functional) or stated == functional:
        return
    raise DataError(
        f"{sample.source}: the functional of its initial Hamiltonian is {stated}, the model adds to one of "
        f"{functional}. They differ by up to tenths of a Hartree: take data.dataset.initial_guess=compute (mlip data "
        "prepare), or model/target=hamiltonian."
    )


class OrbitalStatistics:
    """Collects them sample by sample; samples without a Hamiltonian are passed over.

    Hamiltonians that state no basis are of no use to such a network. Others may be trained on the same data.
    """

    def __init__(self) -> None:
        self._stated: dict[str, str] = {}
        self._sums: dict[str, dict[tuple[int, int], np.ndarray]] = {"onsite": {}, "onsite_difference": {}}
        self._counts: dict[int, int] = {}
        self._without_initial = 0

    def add(self, sample: Sample) -> None:
        """Add a sample.

        Raises:
            DataError: another basis or functional than the samples before, or a matrix that is not of that basis.
        """
        matrix = sample.labels.get("hamiltonian")
        if matrix is None:
            return
        for name in ("basis", "functional"):
            value = str(sample.info.get(name, NOT_STATED))
            known = self._stated.setdefault(name, value)
            if value != known:
                raise DataError(
                    f"{sample.source}: the {name} of its Hamiltonian is {value}, that of others {known}. One model "
                    "learns one level of theory."
                )
        numbers, basis = sample.atoms.numbers, self._stated["basis"]
        if basis == NOT_STATED:
            return
        size = num_orbitals(numbers, basis)
        if matrix.shape != (size, size):
            raise DataError(
                f"{sample.source}: its Hamiltonian has shape {matrix.shape}, but in {basis} it has {size} orbitals."
            )
        self._add("onsite", matrix, numbers, basis)
        initial = sample.labels.get("initial_hamiltonian")
        if initial is None:
            self._without_initial += 1
        else:
            self._add("onsite_difference", matrix - initial, numbers, basis)
        for number in numbers.tolist():
            self._counts[number] = self._counts.get(number, 0) + 1

    def _add(self, name: str, matrix: np.ndarray, numbers: np.ndarray, basis: str) -> None:
        table = orbital_table(numbers, basis)
        for atom, number in enumerate(numbers.tolist()):
            for degree in sorted(set(shells(basis, number))):
                rows = np.nonzero((table.atom == atom) & (table.degree == degree))[0]
                count, dim = len(rows) // (2 * degree + 1), 2 * degree + 1
                block = matrix[np.ix_(rows, rows)].reshape(count, dim, count, dim)
                # What does not turn: the mean over m of the entries with the same m.
                mean = np.einsum("umvm->uv", block) / dim
                key = (number, degree)
                self._sums[name][key] = self._sums[name].get(key, 0.0) + 0.5 * (mean + mean.T)

    def result(self) -> dict[str, Any]:
        """Return ``basis``, ``functional``, ``shells`` by symbol, and ``onsite`` and ``onsite_difference``.

        The last two are, for each symbol and degree l, the mean over atoms and m of the matrix between the shells of
        that degree, Hartree: of the Hamiltonian, and of its difference to the initial one. All are None where there
        are no Hamiltonians with a basis, the last also where a sample has no initial one.
        """
        if not self._counts:
            return dict.fromkeys(NAMES)
        basis = self._stated["basis"]
        elements = sorted(self._counts)
        functional = self._stated["functional"]
        return {
            "basis": basis,
            "functional": None if functional == NOT_STATED else functional,
            "shells": {chemical_symbols[number]: list(shells(basis, number)) for number in elements},
            "onsite": self._means("onsite", elements),
            "onsite_difference": None if self._without_initial else self._means("onsite_difference", elements),
        }

    def _means(self, name: str, elements: list[int]) -> dict[str, list[list[list[float]]]]:
        return {
            chemical_symbols[number]: [
                (self._sums[name][number, degree] / self._counts[number]).tolist()
                if (number, degree) in self._sums[name]
                else []
                for degree in range(max(degree for other, degree in self._sums[name] if other == number) + 1)
            ]
            for number in elements
        }
