"""Paths against ASE's own band and against saddle points known by symmetry; vibrations against ASE's."""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import add_adsorbate, bulk, fcc100, molecule
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.mep import NEB
from ase.optimize import BFGS, FIRE
from ase.vibrations import Vibrations as AseVibrations

from mlip.calculators.ase import MLIPCalculator
from mlip.core.errors import MlipError, SimulationError
from mlip.simulate.properties.neb import nudged_elastic_band
from mlip.simulate.properties.vibrations import vibrations
from tests.simulate.pair_model import PairModel


def hop() -> tuple[Atoms, Atoms]:
    """An adatom in two neighbouring hollows of a small slab; its saddle is the bridge between them."""
    slab = fcc100("Al", (2, 2, 2), vacuum=8, a=3.995)
    ends = []
    for x in (0.0, 1.0):
        end = slab.copy()
        add_adsorbate(end, "Au", 1.7, "hollow", offset=(x, 0))
        end.set_constraint(FixAtoms(mask=end.get_tags() > 1))
        ends.append(end)
    return ends[0], ends[1]


@pytest.mark.slow
def test_adatom_as_ase_and_by_symmetry() -> None:
    first, last = hop()
    result = nudged_elastic_band(first, last, EMT(), images=3, relax_ends=True, fmax=0.01, saddle_vibrations=True)
    images = [result.images[0].copy() for _ in range(4)] + [result.images[4].copy()]
    for image in images:
        image.calc = EMT()
    band = NEB(images, climb=True, method="improvedtangent")
    band.interpolate()
    FIRE(band, logfile=None).run(fmax=0.01, steps=500)
    energies = np.array([image.get_potential_energy() for image in images])
    assert result.converged
    assert result.highest == 2
    assert result.forward == pytest.approx(energies.max() - energies[0], abs=2e-3)
    assert result.backward == pytest.approx(result.forward, abs=1e-3)
    bridge = result.images[2]
    x = (result.images[0].positions[-1, 0] + result.images[4].positions[-1, 0]) / 2
    assert bridge.positions[-1, 0] == pytest.approx(x, abs=0.02)
    # In this thin slab the bridge is a maximum across the path as well, as ASE's vibrations say (41 and 40 cm⁻¹).
    np.testing.assert_allclose(result.vibrations.wavenumbers[:2], [-41.47, -39.93], atol=0.5)
    assert "has 2 imaginary vibrations" in result.warnings[0]
    assert result.coordinate[-1] > np.linalg.norm(first.positions[-1] - last.positions[-1]) * 0.9
    assert result.curve[:, 1].max() == pytest.approx(result.forward, abs=0.01)
    assert result.as_dict()["vibrations"]["num_imaginary"] == 2


@pytest.mark.slow
def test_vacancy_in_a_periodic_crystal_of_a_model() -> None:
    """The hop goes through the boundary of the cell; the images of the model are one batch."""
    crystal = bulk("Cu", cubic=True, a=3.4) * (2, 2, 2)
    hole, neighbour = 0, int(np.argmin([np.inf, *crystal.get_distances(0, range(1, 32), mic=True)]))
    first, last = crystal.copy(), crystal.copy()
    last.positions[neighbour] = crystal.positions[hole] + crystal.cell[0]
    del first[hole], last[hole]
    model = PairModel()
    result = nudged_elastic_band(
        first,
        last,
        MLIPCalculator(model, kernels="off"),
        images=3,
        relax_ends=True,
        fmax=0.03,
        saddle_vibrations=True,
    )
    assert result.converged
    assert result.highest == 2
    assert 0.2 < result.forward < 2
    assert result.forward == pytest.approx(result.backward, abs=0.01)
    assert result.coordinate[-1] < 4
    assert result.vibrations.num_imaginary == 1
    assert not result.warnings


def test_vibrations_as_ase(tmp_path: Path) -> None:
    atoms = molecule("H2O")
    atoms.calc = EMT()
    BFGS(atoms, logfile=None).run(fmax=1e-4)
    other = AseVibrations(atoms, name=str(tmp_path / "vib"))
    other.run()
    found = vibrations(atoms, EMT())
    assert len(found.wavenumbers) == 3
    np.testing.assert_allclose(found.wavenumbers, other.get_frequencies().real[-3:], rtol=2e-3)
    assert found.num_imaginary == 0
    assert len(vibrations(molecule("N2"), EMT()).wavenumbers) == 1


@pytest.mark.parametrize("off", [0, 1e-7, 1e-5, 1e-3, 0.02])
def test_a_linear_molecule_keeps_all_its_bending(off: float) -> None:
    atoms = Atoms("OCO", [[-1.21, 0, 0], [0, off * 0.6, off * 0.8], [1.21, 0, 0]])
    atoms.rotate(40, (1, 2, 3))
    found = vibrations(atoms, EMT())
    assert len(found.wavenumbers) == 4
    assert found.wavenumbers[0] == pytest.approx(found.wavenumbers[1], abs=20)


def test_bent_molecules_turn_about_three_axes() -> None:
    """However long they are: smallest over largest moment of inertia is 1e-2 in isocyanic acid, 1e-4 in the chain."""
    acid = Atoms("HNCO", [[-0.565, 0.829, 0], [0, 0, 0], [1.214, 0, 0], [2.377, 0, 0]])
    assert len(vibrations(acid, EMT()).wavenumbers) == 6
    chain = Atoms("C12OH", [[1.3 * k, 0, 0] for k in range(13)] + [[15.9, 0.91, 0]])
    moments = chain.get_moments_of_inertia()
    assert moments[0] < 3e-4 * moments[-1]
    assert len(vibrations(chain, EMT()).wavenumbers) == 3 * 14 - 6


def test_a_single_atom_does_not_vibrate() -> None:
    for atoms in (Atoms("H"), bulk("Cu")):
        with pytest.raises(SimulationError, match="A single atom has no vibrations"):
            vibrations(atoms, EMT())


def wrong_ends() -> dict[str, tuple[Atoms, Atoms, str]]:
    first, last = hop()
    fewer, other, mixed, moved, wider, open_ = (last.copy() for _ in range(6))
    del fewer[0]
    other.symbols[-1] = "Cu"
    mixed = mixed[[8, *range(8)]]
    moved.positions[0] += 1.0
    wider.set_cell(wider.cell.array * 1.1)
    open_.pbc = False
    charged, triplet = last.copy(), last.copy()
    charged.info["charge"], triplet.info["spin"] = 1, 3
    return {
        "count": (first, fewer, "9 and 8"),
        "elements": (first, other, "is Au in one and Cu"),
        "order": (first, mixed, "reorder"),
        "held": (first, moved, "held by a constraint"),
        "cell": (first, wider, "same cell"),
        "axes": (first, open_, "same axes"),
        "charge": (first, charged, "same charge; they have 0 and 1"),
        "spin": (triplet, first, "same spin; they have 3 and 1"),
        "same": (first, first, "same structure"),
        "one atom": (Atoms("Cu"), Atoms("Cu", [[1, 0, 0]]), "single atom"),
        "collision": (
            Atoms("AlCu", [[0, 0, 0], [0, 0, 2.5]]),
            Atoms("AlCu", [[0, 0, 2.5], [0, 0, 0]]),
            "in the same order",
        ),
    }


@pytest.mark.parametrize("case", list(wrong_ends()))
def test_refusals(case: str) -> None:
    first, last, match = wrong_ends()[case]
    with pytest.raises(MlipError, match=match):
        nudged_elastic_band(first, last, EMT(), images=3)


def test_charges_that_are_the_same_and_moments_that_are_not() -> None:
    first, last = hop()
    first.info.update(charge=0, spin=1)
    last.set_initial_magnetic_moments([1.0] * len(last))
    nudged_elastic_band(first, last, EMT(), images=1, climb=False, max_steps=1)
    model = MLIPCalculator(PairModel(), kernels="off")
    model.given = {"charge": 1}
    with pytest.raises(SimulationError, match="they have 0 and 1"):
        nudged_elastic_band(first, last, model, images=1)


def test_without_climbing_the_barrier_is_the_top_of_the_curve() -> None:
    ends = hop()
    band, climbed = (
        nudged_elastic_band(*ends, EMT(), images=2, climb=climb, relax_ends=True, fmax=0.1) for climb in (False, True)
    )
    assert band.forward == band.curve[:, 1].max() == band.as_dict()["barrier_forward_eV"]
    assert band.forward > band.energies.max() + 0.02
    assert band.backward == pytest.approx(band.forward - band.energies[-1])
    assert band.forward == pytest.approx(climbed.forward, abs=0.02)
    assert climbed.forward == climbed.energies.max()


def test_warnings() -> None:
    first, last = hop()
    result = nudged_elastic_band(first, last, EMT(), images=1, fmax=0.01, max_steps=1)
    assert any("not relaxed" in text for text in result.warnings)
    assert any("not converged to 0.01" in text for text in result.warnings)
