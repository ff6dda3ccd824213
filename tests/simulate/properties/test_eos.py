"""Equations of state against closed forms, ASE's and pymatgen's fits and the lattice sum of the pair model."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.eos import EquationOfState as AseEquation
from pymatgen.analysis.eos import BirchMurnaghan as PymatgenEquation
from scipy.optimize import minimize_scalar

from mlip.calculators.ase import MLIPCalculator
from mlip.core.errors import SimulationError, StructureError
from mlip.core.units import GPA
from mlip.simulate.properties.elastic import elastic_constants
from mlip.simulate.properties.eos import BirchMurnaghan, equation_of_state, fit_birch_murnaghan
from tests.simulate.pair_model import PairModel, fcc_energy

MODEL = PairModel()


@pytest.mark.parametrize("b0_prime", [2.5, 4.0, 5.7])
def test_fit_returns_the_curve_it_was_given(b0_prime: float) -> None:
    curve = BirchMurnaghan(v0=40.0, e0=-7.0, b0=0.6, b0_prime=b0_prime)
    volumes = np.linspace(35, 44, 7)
    found = fit_birch_murnaghan(volumes, curve.energy(volumes))
    np.testing.assert_allclose(
        [found.v0, found.e0, found.b0, found.b0_prime], [curve.v0, curve.e0, curve.b0, b0_prime], rtol=1e-8
    )


def test_copper_of_emt_as_ase_and_pymatgen_fit_it() -> None:
    result = equation_of_state(bulk("Cu"), EMT())
    v0, e0, b0 = AseEquation(result.volumes, result.energies, eos="birchmurnaghan").fit()
    assert (result.curve.v0, result.curve.e0, result.curve.b0) == pytest.approx((v0, e0, b0), rel=1e-7)
    other = PymatgenEquation(result.volumes, result.energies)
    other.fit()
    assert result.curve.b0_prime == pytest.approx(other.b1, rel=1e-4)
    assert result.curve.b0 / GPA == pytest.approx(134.337, abs=0.01)
    assert not result.warnings
    assert result.as_dict()["b0_GPa"] == pytest.approx(result.curve.b0 / GPA)


@pytest.mark.parametrize("relax_ions", [True, False])
def test_model_gives_the_bulk_modulus_of_its_lattice_sum(relax_ions: bool) -> None:
    best = minimize_scalar(lambda a: fcc_energy(MODEL, a), bounds=(3, 4), method="bounded", options={"xatol": 1e-9}).x
    v, h = best**3 / 4, 0.02
    energies = [fcc_energy(MODEL, (4 * (v + shift)) ** (1 / 3)) for shift in (-h, 0, h)]
    modulus = v * (energies[0] - 2 * energies[1] + energies[2]) / h**2
    atoms = bulk("Cu", "fcc", a=best + 0.05, cubic=True)
    result = equation_of_state(
        atoms, MLIPCalculator(MODEL, kernels="off"), span=0.02, relax_first=True, relax_ions=relax_ions, fmax=1e-4
    )
    assert result.curve.v0 / 4 == pytest.approx(v, rel=1e-4)
    assert result.curve.b0 == pytest.approx(modulus, rel=2e-3)
    assert result.residual < 1e-5
    np.testing.assert_allclose([s.get_potential_energy() for s in result.structures], result.energies, rtol=1e-12)


@pytest.mark.slow
def test_relaxed_ions_are_softer() -> None:
    atoms = bulk("Cu", cubic=True)
    atoms.symbols[0] = "Au"
    atoms.positions[0] += 0.1
    free, fixed = (equation_of_state(atoms, EMT(), relax_ions=relaxed, span=0.05) for relaxed in (True, False))
    assert (free.energies < fixed.energies - 1e-4).all()
    assert free.relaxed_ions
    assert not fixed.relaxed_ions


@pytest.mark.slow
def test_bulk_modulus_of_a_tetragonal_crystal_is_that_of_hydrostatic_pressure() -> None:
    """Reuss' mean of the elastic constants, which another function computes from stresses; Voigt's at fixed shape."""
    atoms = Atoms("CuAu", scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5]], cell=[2.7, 2.7, 3.6], pbc=True)
    constants = elastic_constants(atoms, EMT(), relax_first=True, fmax=1e-5)
    assert constants.moduli.bulk_voigt > 1.01 * constants.moduli.bulk_reuss
    free, kept = (
        equation_of_state(atoms, EMT(), relax_first=True, relax_shape=shape, span=0.01, fmax=1e-5)
        for shape in (True, False)
    )
    assert free.curve.b0 == pytest.approx(constants.moduli.bulk_reuss, rel=2e-3)
    assert kept.curve.b0 == pytest.approx(constants.moduli.bulk_voigt, rel=2e-3)
    np.testing.assert_allclose(free.volumes, kept.volumes, rtol=1e-6)
    assert free.relaxed_shape
    assert not kept.relaxed_shape


@pytest.mark.slow
def test_warnings_say_what_is_wrong() -> None:
    stretched = equation_of_state(bulk("Cu", a=3.9), EMT(), span=0.05)
    assert any("outside of the volumes" in text for text in stretched.warnings)
    rough = fit_birch_murnaghan(np.linspace(9, 13, 7), -(np.linspace(9, 13, 7) ** 2))
    assert rough is None
    atoms = bulk("Cu", cubic=True)
    atoms.set_constraint(FixAtoms([0]))
    assert "constraints" in equation_of_state(atoms, EMT()).warnings[0]
    jumping = equation_of_state(bulk("Cu"), Jumping())
    assert any("misses the energies" in text for text in jumping.warnings)


@pytest.mark.slow
def test_left_handed_cell_is_the_same_crystal() -> None:
    atoms = bulk("Cu", cubic=True)
    mirrored = atoms.copy()
    mirrored.set_cell(atoms.cell.array[[1, 0, 2]])
    assert np.linalg.det(mirrored.cell.array) < 0
    found = [equation_of_state(a, EMT(), relax_ions=False).curve.b0 for a in (atoms, mirrored)]
    assert found[0] == pytest.approx(found[1], rel=1e-9)


@pytest.mark.parametrize(
    ("atoms", "options", "match"),
    [
        (molecule("CH4"), {}, "a molecule"),
        (Atoms("Cu", cell=[3, 3, 0], pbc=True), {}, "Å³ per atom"),
        (Atoms("Cu", cell=[3, 3, np.nan], pbc=True), {}, "finite"),
        (bulk("Cu"), {"points": 4}, "at least 5 points"),
        (bulk("Cu"), {"span": 0.7}, "span of at most"),
        (bulk("Cu"), {"span": -0.1}, "positive"),
    ],
)
def test_refusals(atoms: Atoms, options: dict, match: str) -> None:
    with pytest.raises(SimulationError, match=match):
        equation_of_state(atoms, EMT(), **options)


def test_unknown_elements_are_refused() -> None:
    with pytest.raises(StructureError):
        equation_of_state(bulk("Ag"), MLIPCalculator(MODEL, kernels="off"))


class Jumping(EMT):
    """Adds 5 meV to the energy of larger cells."""

    def calculate(self, *args: object) -> None:
        super().calculate(*args)
        self.results["energy"] += 0.005 * (self.atoms.get_volume() > 12)
