"""One ionic step of a VASP run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlip.core.errors import DataError


@dataclass
class VaspStep:
    """What a step of a file says, in eV and Å; the stress in ASE's sign, eV/Å³.

    Attributes:
        energy_sigma0: extrapolated to no smearing, "energy(sigma->0)".
        free_energy: with the electrons' entropy, "TOTEN"; the forces are its gradient.
        converged: whether the electrons converged, None if the file does not say.
        num_scf: electronic steps.
    """

    symbols: list[str]
    positions: np.ndarray
    cell: np.ndarray
    free_energy: float
    energy_sigma0: float
    forces: np.ndarray
    stress: np.ndarray | None
    magmoms: np.ndarray | None
    fixed: np.ndarray | None
    converged: bool | None
    num_scf: int


def numbers_of(text: str, where: str) -> np.ndarray:
    """Return the numbers in a text.

    Raises:
        DataError: there is none, or something else, such as the stars that Fortran writes for too large numbers.
    """
    try:
        values = np.array(text.split(), dtype=np.float64)
    except ValueError as error:
        raise DataError(f"{where}: numbers were expected, got {' '.join(text.split())[:60]!r}.") from error
    if not values.size:
        raise DataError(f"{where}: a number was expected, nothing is there.")
    return values
