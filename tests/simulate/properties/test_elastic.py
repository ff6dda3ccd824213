"""Elastic constants against second derivatives of energies, pymatgen's algebra and known relations."""

import warnings

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.optimize import BFGS
from pymatgen.analysis.elasticity.elastic import ElasticTensor
from pymatgen.io.ase import AseAtomsAdaptor

from mlip.calculators.ase import MLIPCalculator
from mlip.core.errors import MlipError
from mlip.core.units import GPA
from mlip.simulate.properties.elastic import elastic_constants
from mlip.simulate.properties.elastic_moduli import moduli, young_modulus
from mlip.simulate.properties.eos import equation_of_state
from mlip.simulate.properties.symmetry import find_symmetry, invariant_tensor, standard_frame
from tests.simulate.pair_model import PairModel

PAIRS = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))


def energy_constants(atoms: Atoms, calculator: Calculator, wanted: list[tuple[int, int]], h: float = 0.004) -> list:
    """Second derivatives by Lagrangian strains of the energy with relaxed ions, over the volume; written separately."""

    def energy(strain: np.ndarray) -> float:
        lagrange = np.array([[strain[0], strain[5] / 2, strain[4] / 2],
                             [strain[5] / 2, strain[1], strain[3] / 2],
                             [strain[4] / 2, strain[3] / 2, strain[2]]])  # fmt: skip
        upper = np.linalg.cholesky(np.eye(3) + 2 * lagrange).T
        copy = atoms.copy()
        copy.set_cell(atoms.cell.array @ upper.T, scale_atoms=True)
        copy.calc = calculator
        BFGS(copy, logfile=None).run(fmax=1e-5, steps=200)
        return copy.get_potential_energy()

    found = []
    unit = np.eye(6) * h
    for i, j in wanted:
        plus, minus = unit[i] + unit[j], unit[i] - unit[j]
        if i == j:
            second = (energy(unit[i]) + energy(-unit[i]) - 2 * energy(0 * unit[i])) / h**2
        else:
            second = (energy(plus) + energy(-plus) - energy(minus) - energy(-minus)) / (4 * h**2)
        found.append(second / atoms.get_volume())
    return found


def test_cubic_copper() -> None:
    result = elastic_constants(bulk("Cu"), EMT(), relax_first=True)
    wanted = [(0, 0), (0, 1), (3, 3)]
    expected = energy_constants(result.structure, EMT(), wanted)
    np.testing.assert_allclose([result.as_given[p] for p in wanted], expected, rtol=2e-3)
    np.testing.assert_allclose(result.ieee, result.as_given, atol=1e-6)
    assert result.num_strained < 10
    assert result.asymmetry < 1e-6 * GPA
    assert result.spacegroup == "Fm-3m (225)"
    assert result.moduli.bulk / GPA == pytest.approx(134.478, abs=0.01)
    curve = equation_of_state(result.structure, EMT(), span=0.02, relax_ions=False).curve
    assert result.moduli.bulk == pytest.approx(curve.b0, rel=1e-3)


@pytest.mark.slow
def test_hexagonal_with_ions_that_move() -> None:
    result = elastic_constants(bulk("Cu", "hcp", a=2.55, c=4.16), EMT(), relax_first=True)
    wanted = [(0, 0), (0, 1), (0, 2), (2, 2), (3, 3), (5, 5)]
    expected = energy_constants(result.structure, EMT(), wanted)
    np.testing.assert_allclose([result.as_given[p] for p in wanted], expected, atol=0.4 * GPA)
    np.testing.assert_allclose(result.raw, result.ieee, atol=0.05 * GPA)
    clamped = elastic_constants(result.structure, EMT(), relax_ions=False)
    assert clamped.as_given[5, 5] - result.as_given[5, 5] > 3 * GPA
    assert result.ieee[5, 5] == pytest.approx((result.ieee[0, 0] - result.ieee[0, 1]) / 2, rel=1e-6)


@pytest.mark.slow
def test_turned_crystal_has_the_same_standard_tensor() -> None:
    atoms = bulk("Cu", "hcp", a=2.55, c=4.16)
    turned = atoms.copy()
    turned.rotate(37, (1, 2, 3), rotate_cell=True)
    first, second = (elastic_constants(a, EMT(), relax_first=True) for a in (atoms, turned))
    np.testing.assert_allclose(first.ieee, second.ieee, atol=0.02 * GPA)
    assert np.abs(first.as_given - second.as_given).max() > 5 * GPA
    assert first.moduli.shear == pytest.approx(second.moduli.shear, rel=1e-4)


@pytest.mark.slow
def test_model_batched_obeys_cauchy() -> None:
    """Central pair forces in a Bravais lattice without stress: C12 = C44."""
    calculator = MLIPCalculator(PairModel(), kernels="off")
    result = elastic_constants(bulk("Cu", a=3.4, cubic=True), calculator, relax_first=True)
    assert result.as_given[0, 1] == pytest.approx(result.as_given[3, 3], rel=2e-3)
    assert not result.warnings


@pytest.mark.parametrize("seed", range(3))
def test_moduli_as_pymatgen(seed: int) -> None:
    matrix = np.random.default_rng(seed).normal(size=(6, 6))
    tensor = matrix @ matrix.T + 5 * np.eye(6)
    found, other = moduli(tensor), ElasticTensor.from_voigt(tensor)
    mine = [found.bulk_voigt, found.bulk_reuss, found.bulk, found.shear_voigt, found.shear_reuss, found.shear]
    np.testing.assert_allclose(
        mine, [other.k_voigt, other.k_reuss, other.k_vrh, other.g_voigt, other.g_reuss, other.g_vrh]
    )
    assert found.anisotropy == pytest.approx(other.universal_anisotropy)
    assert found.poisson == pytest.approx(other.homogeneous_poisson)
    # E along n from the strain that a stress along n makes, with full tensors.
    n = np.array([1.0, 2.0, -0.5]) / np.sqrt(5.25)
    strain = np.einsum("ijkl,k,l->ij", np.asarray(other.compliance_tensor), n, n)
    assert young_modulus(tensor, n[None])[0] == pytest.approx(1 / (n @ strain @ n))
    assert found.stable
    tensor[3, 3] = -1
    assert not moduli(tensor).stable


@pytest.mark.parametrize(
    "atoms",
    [
        bulk("Cu"),
        bulk("Mg"),
        bulk("In"),
        bulk("ZnO", "wurtzite", a=3.25, c=5.2),
        Atoms("Cu", cell=[3.0, 4.1, 3.5], pbc=True),
        Atoms("Cu", cell=[3.0, 4.1, 5.0, 90, 100, 90], pbc=True),
    ],
    ids=["cubic", "hexagonal", "tetragonal", "wurtzite", "orthorhombic", "monoclinic"],
)
def test_standard_orientation_as_pymatgen(atoms: Atoms) -> None:
    atoms.rotate(50, (1, -2, 0.5), rotate_cell=True)
    rng = np.random.default_rng(1)
    tensor = rng.normal(size=(6, 6))
    tensor = tensor + tensor.T
    symmetry = find_symmetry(atoms, 1e-3)
    symmetric = invariant_tensor(tensor, symmetry.rotations)
    other = ElasticTensor.from_voigt(tensor)
    structure = AseAtomsAdaptor.get_structure(atoms)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        np.testing.assert_allclose(symmetric, other.fit_to_structure(structure).voigt, atol=1e-8)
        mine = invariant_tensor(symmetric, [standard_frame(symmetry)])
        np.testing.assert_allclose(mine, other.convert_to_ieee(structure).voigt, atol=1e-8)


@pytest.mark.slow
def test_unstable_crystal_is_said_to_be() -> None:
    result = elastic_constants(bulk("Cu", "bcc", a=2.86), EMT(), relax_first=True)
    assert not result.moduli.stable
    assert "unstable (Born)" in result.warnings[0]


@pytest.mark.parametrize(
    ("atoms", "options", "match"),
    [
        (molecule("CH4"), {}, "a molecule"),
        (bulk("Cu", a=3.7), {}, r"needs a relaxed crystal.*--relax"),
        (bulk("Cu"), {"strain": 0.2}, "at most 0.05"),
        (bulk("Cu", a=3.8), {"relax_first": True, "max_steps": 1}, "not relaxed to"),
        (Atoms("Cu2", [[0, 0, 0], [0, 0, 0]], cell=[3, 3, 3], pbc=True), {"relax_first": True}, "overlap"),
    ],
)
def test_refusals(atoms: Atoms, options: dict, match: str) -> None:
    with pytest.raises(MlipError, match=match):
        elastic_constants(atoms, EMT(), **options)
