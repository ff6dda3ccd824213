"""Miller indices mean planes of the cell that is stated: areas are those of the reciprocal lattice."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.spacegroup import crystal

from mlip.core.errors import SimulationError
from mlip.simulate.properties.defects import surface_energies
from mlip.simulate.properties.miller import indices_in, oriented, plane_cell
from mlip.simulate.properties.slabs import cut_slabs, gap

OLIVINE = crystal(
    ["Li", "Fe", "P", "O", "O", "O"],
    [(0, 0, 0), (0.282, 0.25, 0.975), (0.095, 0.25, 0.418), (0.097, 0.25, 0.743), (0.457, 0.25, 0.206),
     (0.166, 0.046, 0.285)],
    spacegroup=62, cellpar=[10.33, 6.01, 4.69, 90, 90, 90],
)  # fmt: skip
VANADIA = crystal(
    ["V", "O", "O"], [(0.242, 0.975, 0.025), (0.1, 0.21, 0.2), (0.39, 0.69, 0.29)],
    spacegroup=14, cellpar=[5.743, 4.517, 5.375, 90, 122.61, 90],
)  # fmt: skip
CORUNDUM = {"symbols": ["Al", "O"], "basis": [(0, 0, 0.3521), (0.3065, 0, 0.25)], "spacegroup": 167,
            "cellpar": [4.76, 4.76, 12.99, 90, 90, 120]}  # fmt: skip


def area(atoms: Atoms) -> float:
    return float(np.linalg.norm(np.cross(*atoms.cell.array[:2])))


def areas(atoms: Atoms, *miller: int) -> set[float]:
    return {round(area(slab.atoms), 2) for slab in cut_slabs(atoms, miller, 3, 6)[0]}


def expected(atoms: Atoms, *miller: int) -> float:
    """Area of the plane's cell of the lattice that a file's cell spans: V |h a* + k b* + l c*|."""
    return round(atoms.get_volume() * float(np.linalg.norm(miller @ atoms.cell.reciprocal().array)), 2)


@pytest.mark.parametrize(("atoms", "miller"), [(OLIVINE, (0, 0, 1)), (VANADIA, (1, 1, 1)), (VANADIA, (1, 0, 0))])
def test_the_files_own_setting_holds(atoms: Atoms, miller: tuple[int, int, int]) -> None:
    assert areas(atoms, *miller) == {expected(atoms, *miller)}
    assert plane_cell(atoms).given


def test_olivine_100_is_across_its_longest_axis() -> None:
    turned = OLIVINE.copy()
    turned.rotate(40, (1, 2, 3), rotate_cell=True)
    assert areas(turned, 1, 0, 0) == {28.19}  # b c, not a b = 62.08
    # Axes in another order: Pnma is now Pbnm.
    other = Atoms(OLIVINE.numbers, cell=OLIVINE.cell.lengths()[[2, 0, 1]], pbc=True)
    other.set_scaled_positions(OLIVINE.get_scaled_positions()[:, [2, 0, 1]])
    assert areas(other, 1, 0, 0) == {62.08}


def test_primitive_cells_and_supercells_mean_the_conventional_cell() -> None:
    cells = [bulk("Cu"), bulk("Cu", cubic=True), bulk("Cu", cubic=True) * (2, 1, 3)]
    for miller, wanted in (((1, 1, 1), 3**0.5 / 4), ((1, 0, 0), 0.5), ((2, 1, 0), 5**0.5 / 2)):
        assert [areas(atoms, *miller) for atoms in cells] == 3 * [{round(wanted * 3.61**2, 2)}]
    assert [plane_cell(atoms).given for atoms in cells] == [False, True, True]
    for atoms in cells:
        np.testing.assert_allclose(plane_cell(atoms).as_dict()["a_A"], 3.61)


def test_rhombohedral_crystals_have_hexagonal_axes() -> None:
    hexagonal, rhombohedral = (crystal(**CORUNDUM, primitive_cell=primitive) for primitive in (False, True))
    assert len(rhombohedral) == 10
    for atoms, given in ((hexagonal, True), (rhombohedral, False)):
        cell = plane_cell(atoms)
        assert cell.given == given
        assert cell.hexagonal
        assert "c = 12.9900" in str(cell)
        assert areas(atoms, 0, 0, 1) == {expected(hexagonal, 0, 0, 1)}
        # The obverse setting has lattice points at (⅔ ⅓ ⅓), so that (1 0 2) is not, and (0 1 2) is, a sparse plane.
        assert areas(atoms, 1, 0, 0) == {expected(hexagonal, 1, 0, 0)}


@pytest.mark.parametrize("atoms", [bulk("Mg"), bulk("ZnO", "wurtzite", a=3.25, c=5.2)])
def test_axes_in_another_order(atoms: Atoms) -> None:
    other = Atoms(atoms.numbers, cell=atoms.cell.array[[2, 0, 1]], positions=atoms.positions, pbc=True)
    assert plane_cell(other).given
    assert not plane_cell(other).hexagonal
    assert areas(other, 1, 0, 0) == areas(atoms, 0, 0, 1)


def test_a_centred_cell_is_told_from_one_that_only_looks_like_it() -> None:
    """L1₀ in the cubic cell of its parent has twice the atoms of its own tetragonal cell."""
    ordered = bulk("Cu", cubic=True)
    ordered.symbols[[0, 1]] = "Au"
    cell = plane_cell(ordered)
    assert cell.given is False
    np.testing.assert_allclose(sorted(np.linalg.norm(cell.vectors, axis=1)), [3.61 / 2**0.5, 3.61 / 2**0.5, 3.61])


def test_slabs_are_the_crystal() -> None:
    """Small in the plane, thick enough, with the vacuum that was asked for and neighbours as in the crystal."""
    rng = np.random.default_rng(1)
    for _ in range(50):
        plane = rng.integers(-5, 6, 3)
        plane[0] = plane[0] or 1
        plane //= np.gcd.reduce(plane)
        lattice = 4 * np.eye(3) + rng.normal(size=(3, 3))
        turn = oriented(lattice, plane)
        assert round(np.linalg.det(turn)) == 1
        np.testing.assert_array_equal(np.abs(turn @ plane), [0, 0, 1])
    for miller in ((1, 1, 1), (2, 1, 1), (3, 1, 2)):
        for slab in cut_slabs(bulk("NaCl", "rocksalt", a=5.6), miller, 7, 8)[0]:
            assert gap(slab.atoms) > 8
            distances = (slab.atoms * (2, 2, 1)).get_all_distances(mic=True)
            assert distances[distances > 0].min() == pytest.approx(2.8)
    with pytest.raises(SimulationError, match="no whole indices"):
        indices_in(np.eye(3), (1, 0, 0), np.diag([1.37, 1, 1]))


def test_what_indices_refer_to_is_recorded() -> None:
    result = surface_energies(bulk("Cu", a=3.5899), EMT(), [(1, 1, 1)], thickness=5, vacuum=6, fmax=0.1)
    values = result.as_dict()["miller_indices_refer_to"]
    assert values["is_cell_as_given"] is False
    assert [values[key] for key in ("a_A", "b_A", "c_A", "gamma_deg")] == pytest.approx([3.5899, 3.5899, 3.5899, 90])
    with pytest.raises(SimulationError, match="hexagonal axes; here they refer to the conventional cell"):
        surface_energies(bulk("Cu", a=3.5899), EMT(), [(1, 1, -2, 0)])
