"""Energy against volume: equilibrium volume, bulk modulus and its pressure derivative."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from mlip.core.errors import SimulationError
from mlip.core.units import GPA, MEV
from mlip.simulate.ensembles import require_positive
from mlip.simulate.properties.batches import count_unconverged, evaluate_all, relax_all
from mlip.simulate.properties.crystals import as_crystal, relaxed_crystal, without_constraints

MIN_POINTS = 5
"""Volumes: the curve has four parameters."""

POOR_FIT = 0.02
"""Share of the energy range that the residual may be."""


@dataclass(frozen=True)
class BirchMurnaghan:
    """The third-order Birch–Murnaghan curve (Birch, Phys. Rev. 71, 809 (1947)), of the cell as given.

    Attributes:
        v0: Å³, of least energy.
        e0: eV.
        b0: bulk modulus, eV/Å³.
        b0_prime: its derivative by the pressure.
    """

    v0: float
    e0: float
    b0: float
    b0_prime: float

    def energy(self, volume: np.ndarray) -> np.ndarray:
        """Return energies in eV: ``E0 + 9/2 B0 V0 f² (1 + (B0' − 4) f)`` with ``f = ((V0/V)^⅔ − 1) / 2``."""
        f = 0.5 * ((self.v0 / np.asarray(volume)) ** (2 / 3) - 1)
        return self.e0 + 4.5 * self.b0 * self.v0 * f**2 * (1 + (self.b0_prime - 4) * f)


@dataclass(frozen=True)
class EquationOfState:
    """Energies of cells of several volumes and the curve through them.

    Attributes:
        formula: of the cell.
        num_atoms: in the cell.
        volumes: (points,) Å³ of the cell.
        energies: (points,) eV of the cell.
        curve: None where the energies have no minimum.
        residual: root mean square difference of curve and energies, eV per atom; NaN without a curve.
        relaxed_ions: whether the positions were relaxed in each cell.
        relaxed_shape: whether the shape was relaxed at each volume.
        structures: the structures of the points.
        warnings: sentences about what looks wrong.
    """

    formula: str
    num_atoms: int
    volumes: np.ndarray
    energies: np.ndarray
    curve: BirchMurnaghan | None
    residual: float
    relaxed_ions: bool
    relaxed_shape: bool
    structures: tuple[Atoms, ...]
    warnings: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers with their units in the names, ready for JSON."""
        curve = self.curve
        return {
            "formula": self.formula,
            "num_atoms": self.num_atoms,
            "equation": "Birch-Murnaghan, third order",
            "relaxed_ions": self.relaxed_ions,
            "relaxed_shape": self.relaxed_shape,
            "v0_A3": curve and curve.v0,
            "v0_A3_per_atom": curve and curve.v0 / self.num_atoms,
            "b0_GPa": curve and curve.b0 / GPA,
            "b0_prime": curve and curve.b0_prime,
            "e0_eV": curve and curve.e0,
            "residual_meV_per_atom": None if curve is None else self.residual / MEV,
            "volumes_A3": self.volumes.tolist(),
            "energies_eV": self.energies.tolist(),
            "warnings": list(self.warnings),
        }


def equation_of_state(
    atoms: Atoms,
    calculator: Calculator,
    *,
    span: float = 0.08,
    points: int = 9,
    relax_ions: bool = True,
    relax_shape: bool = True,
    relax_first: bool = False,
    fmax: float = 0.005,
    max_steps: int = 500,
) -> EquationOfState:
    """Compute energies at volumes ``V (1 ± span)`` and fit the Birch–Murnaghan curve.

    Under pressure a crystal that is not cubic changes its shape too. With the shape relaxed at each volume the bulk
    modulus is the one of hydrostatic pressure (Reuss' mean of the elastic constants); with the shape kept it is that
    of a uniform strain (Voigt's), which may be several times as large in a layered crystal.

    Args:
        atoms: the crystal; not changed.
        calculator: of energies and forces, and, for the shape or with ``relax_first``, of the stress.
        span: largest relative change of the volume.
        points: number of volumes.
        relax_ions: relax the positions in each cell; otherwise fractional coordinates and the shape are kept.
        relax_shape: relax the shape at each volume too.
        relax_first: relax positions and cell first.
        fmax: eV/Å, limit of the relaxations.
        max_steps: of each relaxation.

    Raises:
        SimulationError: no crystal, or parameters that make no sense.
        StructureError: the calculator refuses the structure.
    """
    require_positive(span=span, fmax=fmax, max_steps=max_steps)
    if span > 0.5 or points < MIN_POINTS:
        raise SimulationError(
            f"An equation of state takes a span of at most 0.5 and at least {MIN_POINTS} points, got {span:g} and "
            f"{points}."
        )
    crystal = as_crystal(atoms, "An equation of state")
    warnings = list(without_constraints(atoms))
    if relax_first:
        crystal = as_crystal(relaxed_crystal(crystal, calculator, fmax, max_steps).atoms, "An equation of state")
    scaled = [_scaled(crystal, 1 + change) for change in np.linspace(-span, span, points)]
    if relax_ions:
        shape = {"relax_cell": True, "fix_volume": True} if relax_shape else {}
        results = relax_all(scaled, calculator, fmax, max_steps, "LBFGS", **shape)
        warnings += count_unconverged(results, "structures")
        scaled = [result.atoms for result in results]
        energies = np.array([result.after.energy for result in results])
    else:
        found = evaluate_all(scaled, calculator)
        scaled = [evaluation.attached_to(structure) for structure, evaluation in zip(scaled, found)]
        energies = np.array([evaluation.energy for evaluation in found])
    volumes = np.array([structure.get_volume() for structure in scaled])
    curve = fit_birch_murnaghan(volumes, energies)
    residual = np.nan if curve is None else float(np.sqrt(np.mean((curve.energy(volumes) - energies) ** 2)))
    warnings += _warnings(volumes, energies, curve, residual, len(crystal))
    return EquationOfState(
        crystal.get_chemical_formula(), len(crystal), volumes, energies, curve, residual / len(crystal), relax_ions,
        relax_ions and relax_shape, tuple(scaled), tuple(warnings),
    )  # fmt: skip


def fit_birch_murnaghan(volumes: np.ndarray, energies: np.ndarray) -> BirchMurnaghan | None:
    """Fit the third-order curve, which is a cubic polynomial in ``V^(−⅔)``: a linear problem.

    Args:
        volumes: (points,) Å³.
        energies: (points,) eV.

    Returns:
        The curve, or None if it has no minimum.
    """
    scale = float(np.mean(volumes))
    # In y − 1, which is small: powers of y would be nearly the same.
    x = (scale / volumes) ** (2 / 3) - 1
    cubic = np.polynomial.Polynomial.fit(x, energies, 3).convert()
    c, b, a = np.pad(cubic.deriv().coef, (0, 2))[:3]
    under_root = b * b - 4 * a * c
    if under_root <= 0 or (b <= 0 and a <= 0):
        return None
    # The root at which the slope 2ax + b is +√, written so that nothing cancels.
    root = np.sqrt(under_root)
    x0 = -2 * c / (b + root) if b > 0 else (root - b) / (2 * a)
    y0 = 1 + x0
    if y0 <= 0:
        return None
    # With y = y0 (1 + 2f): E = E0 + 2 y0² E'' f² + (4/3) y0³ E''' f³, by comparison with the curve above.
    quadratic, third = 2 * y0**2 * cubic.deriv(2)(x0), 4 / 3 * y0**3 * cubic.deriv(3)(x0)
    v0 = scale * y0**-1.5
    return BirchMurnaghan(float(v0), float(cubic(x0)), float(quadratic / (4.5 * v0)), float(4 + third / quadratic))


def _scaled(atoms: Atoms, ratio: float) -> Atoms:
    copy = atoms.copy()
    copy.set_cell(atoms.cell.array * ratio ** (1 / 3), scale_atoms=True)
    return copy


def _warnings(
    volumes: np.ndarray, energies: np.ndarray, curve: BirchMurnaghan | None, residual: float, num_atoms: int
) -> list[str]:
    spread = f"{volumes.min():.2f} to {volumes.max():.2f} Å³"
    if curve is None:
        return [f"The energies have no minimum near volumes of {spread}: no curve is fitted. Relax the cell first."]
    found = []
    if not volumes.min() < curve.v0 < volumes.max():
        found.append(
            f"The minimum ({curve.v0:.2f} Å³) lies outside of the volumes computed ({spread}) and is extrapolated: "
            "relax the cell first (--relax)."
        )
    if residual > POOR_FIT * float(np.ptp(energies)):
        found.append(
            f"The curve misses the energies by {residual / num_atoms / MEV:.3g} meV/atom (root mean square), "
            f"{100 * residual / float(np.ptp(energies)):.1f} % of their range: the structure changes on the way, or "
            "the span is too large."
        )
    return found
