"""Averages of an elastic tensor over orientations, its stability and its anisotropy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mlip.core.units import GPA


@dataclass(frozen=True)
class Moduli:
    """What a polycrystal and a stability check need; moduli in eV/Å³.

    Voigt's averages (constant strain) are upper bounds, Reuss' (constant stress) lower ones, Hill's the means (Hill,
    Proc. Phys. Soc. A 65, 349 (1952)). Of an unstable crystal those of Reuss mean nothing.

    Attributes:
        bulk_voigt, bulk_reuss, shear_voigt, shear_reuss: bounds.
        smallest_eigenvalue: of the tensor in Kelvin's notation, in which it is a matrix with a basis of unit length.
    """

    bulk_voigt: float
    bulk_reuss: float
    shear_voigt: float
    shear_reuss: float
    smallest_eigenvalue: float

    @property
    def stable(self) -> bool:
        """Born's criterion: every strain costs energy (Mouhat, Coudert, Phys. Rev. B 90, 224104 (2014))."""
        return self.smallest_eigenvalue > 0

    @property
    def bulk(self) -> float:
        """Hill's bulk modulus, eV/Å³."""
        return (self.bulk_voigt + self.bulk_reuss) / 2

    @property
    def shear(self) -> float:
        """Hill's shear modulus, eV/Å³."""
        return (self.shear_voigt + self.shear_reuss) / 2

    @property
    def young(self) -> float:
        """Young's modulus of Hill's averages, eV/Å³."""
        return 9 * self.bulk * self.shear / (3 * self.bulk + self.shear)

    @property
    def poisson(self) -> float:
        """Poisson's ratio of Hill's averages."""
        return (3 * self.bulk - 2 * self.shear) / (6 * self.bulk + 2 * self.shear)

    @property
    def anisotropy(self) -> float:
        """Universal index, 0 if isotropic (Ranganathan, Ostoja-Starzewski, Phys. Rev. Lett. 101, 055504 (2008))."""
        return 5 * self.shear_voigt / self.shear_reuss + self.bulk_voigt / self.bulk_reuss - 6

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers with their units in the names, ready for JSON."""
        return {
            "bulk_voigt_GPa": self.bulk_voigt / GPA,
            "bulk_reuss_GPa": self.bulk_reuss / GPA,
            "bulk_hill_GPa": self.bulk / GPA,
            "shear_voigt_GPa": self.shear_voigt / GPA,
            "shear_reuss_GPa": self.shear_reuss / GPA,
            "shear_hill_GPa": self.shear / GPA,
            "young_hill_GPa": self.young / GPA,
            "poisson_hill": self.poisson,
            "universal_anisotropy": self.anisotropy,
            "stable": self.stable,
            "smallest_eigenvalue_GPa": self.smallest_eigenvalue / GPA,
        }


def moduli(tensor: np.ndarray) -> Moduli:
    """Average a tensor over orientations.

    Args:
        tensor: (6, 6) symmetric, eV/Å³, order xx yy zz yz xz xy, engineering shear strains.
    """
    kelvin = np.sqrt([1, 1, 1, 2, 2, 2])
    eigenvalues = np.linalg.eigvalsh(tensor * kelvin[:, None] * kelvin)
    compliance = np.linalg.pinv(tensor)
    (c_normal, c_coupled, c_shear), (s_normal, s_coupled, s_shear) = _sums(tensor), _sums(compliance)
    return Moduli(
        bulk_voigt=(c_normal + 2 * c_coupled) / 9,
        bulk_reuss=1 / (s_normal + 2 * s_coupled),
        shear_voigt=(c_normal - c_coupled + 3 * c_shear) / 15,
        shear_reuss=15 / (4 * (s_normal - s_coupled) + 3 * s_shear),
        smallest_eigenvalue=float(eigenvalues[0]),
    )


def _sums(tensor: np.ndarray) -> tuple[float, float, float]:
    """Return the sums over 11 22 33, over 12 13 23 and over 44 55 66."""
    normal = tensor[:3, :3]
    return float(np.trace(normal)), float(np.triu(normal, 1).sum()), float(np.trace(tensor[3:, 3:]))


def young_modulus(tensor: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Return Young's modulus along directions: ``1 / Σ S_ijkl n_i n_j n_k n_l``.

    Args:
        tensor: (6, 6), as for :func:`moduli`; must be stable.
        directions: (directions, 3) unit vectors.

    Returns:
        (directions,) in the units of the tensor.
    """
    x, y, z = directions.T
    strain = np.stack([x * x, y * y, z * z, y * z, x * z, x * y])
    return 1 / np.einsum("in,ij,jn->n", strain, np.linalg.inv(tensor), strain)
