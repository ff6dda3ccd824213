"""Slabs and molecules that a program has wrapped into their cells are those that it has not."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import fcc100
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms

from mlip.core.errors import SimulationError
from mlip.simulate.properties.adsorption import adsorption_energies
from mlip.simulate.properties.molecules import make_whole
from mlip.simulate.properties.slabs import gap, in_one_piece


def copper(size: tuple[int, int, int] = (1, 1, 3)) -> Atoms:
    """Its lowest layer is a little below the cell."""
    slab = fcc100("Cu", size, a=3.6, vacuum=8, periodic=True)
    slab.positions[:, 2] -= slab.positions[:, 2].min() + 0.02
    slab.set_constraint(FixAtoms(mask=slab.get_tags() > 1))
    return slab


def wrapped(atoms: Atoms) -> Atoms:
    copy = atoms.copy()
    copy.wrap()
    assert np.abs(copy.positions - atoms.positions).max() > 5
    return copy


def test_a_layer_at_the_other_end_of_the_cell() -> None:
    slab = copper()
    as_it_is, cut = (
        adsorption_energies(atoms, Atoms("H"), EMT(), [(0, 0)], max_steps=20) for atoms in (slab, wrapped(slab))
    )
    assert as_it_is.energies[0] < -1
    assert cut.energies == pytest.approx(as_it_is.energies, abs=1e-6)
    np.testing.assert_allclose(cut.structures[0].positions, as_it_is.structures[0].positions, atol=1e-6)


def test_the_upper_layer_stays_in_a_tilted_cell() -> None:
    slab = copper((1, 1, 4))
    slab.set_cell([*slab.cell.array[:2], [1.0, 0.5, slab.cell[2, 2]]])
    np.testing.assert_array_equal(in_one_piece(slab).positions, slab.positions)
    for left_handed in (False, True):
        if left_handed:
            slab.set_cell(slab.cell.array * [[1], [1], [-1]])
        for part in ([0], [0, 1, 2], [1, 2, 3]):
            parted = slab.copy()
            parted.positions[part] += slab.cell[2]
            whole = in_one_piece(parted)
            assert gap(parted) == pytest.approx(gap(slab))
            np.testing.assert_allclose(whole.positions[3], parted.positions[3], rtol=0, atol=0)
            np.testing.assert_allclose(whole.positions - whole.positions[3], slab.positions - slab.positions[3])


def carbon_monoxide() -> Atoms:
    return Atoms("CO", [[-0.3, 0, -0.4], [0.3, 0, 0.6]], cell=[12] * 3, pbc=True)


def test_a_molecule_in_parts_of_its_box() -> None:
    slab = copper((2, 2, 2))
    as_it_is, cut = (
        adsorption_energies(slab, atoms, EMT(), [(0, 0)], max_steps=5)
        for atoms in (carbon_monoxide(), wrapped(carbon_monoxide()))
    )
    assert cut.energies == pytest.approx(as_it_is.energies, abs=1e-6)
    assert not any("pieces" in text for text in cut.warnings)


def test_whole_along_bonds_in_a_skewed_box() -> None:
    benzene = Atoms("C6", [[1.4 * np.cos(a), 1.4 * np.sin(a), 0] for a in np.arange(6) * np.pi / 3])
    benzene.set_cell([[8, 0, 0], [4, 8, 0], [1, 2, 8]])
    benzene.pbc = True
    whole, warnings = make_whole(wrapped(benzene))
    assert not warnings
    assert not whole.pbc.any()
    np.testing.assert_allclose(whole.get_all_distances(), benzene.get_all_distances(), atol=1e-9)
    # Bonds longer than half of the box: its parts are of one molecule all the same.
    chain = Atoms("C7", [[1.3 * k, 0, 0] for k in range(7)], cell=[11] * 3, pbc=True)
    chain.positions += 8
    np.testing.assert_allclose(make_whole(wrapped(chain))[0].get_distance(0, 6), 7.8)


def test_pieces_are_told_and_endless_chains_refused() -> None:
    apart = Atoms("H2", [[0, 0, 0], [0, 0, 5]])
    whole, (warning,) = make_whole(apart)
    assert "is in 2 pieces" in warning
    np.testing.assert_array_equal(whole.positions, apart.positions)
    chain = Atoms("C2", [[0, 0, 0], [1.3, 0, 0]], cell=[2.6, 9, 9], pbc=True)
    with pytest.raises(SimulationError, match="bonded to its own periodic images"):
        adsorption_energies(copper(), chain, EMT(), [(0, 0)])
