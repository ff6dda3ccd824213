"""Pictures and cube files of orbitals, against what is known of a Gaussian and of the norm."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase.io.cube import read_cube
from matplotlib.figure import Figure
from matplotlib.image import imread
from scipy.special import gammainc, gammaincinv

from mlip import HamiltonianCalculator
from mlip.calculators.orbital_cubes import write_cubes
from mlip.calculators.orbital_plot import draw_ladder, plot_orbitals
from mlip.calculators.orbital_result import OrbitalResult
from mlip.calculators.orbital_surface import draw_surface, enclosing_amplitude, orbital_on_grid, trimmed, view_of
from mlip.core.units import BOHR
from tests.calculators.hamiltonian_models import StoredHamiltonian, untrained_water_model, water

EXPONENT = 0.3


@pytest.fixture(scope="module")
def gaussian():
    """An atom with one s and one p Gaussian."""
    gto = pytest.importorskip("pyscf.gto")
    return gto.M(atom="He 0 0 0", basis={"He": [[0, [EXPONENT, 1.0]], [1, [EXPONENT, 1.0]]]}, verbose=0)


def test_the_surface_encloses_what_it_says(gaussian) -> None:
    """Of ψ² ~ exp(-2αr²) the part within r is P(3/2, 2αr²): the amplitude there is known."""
    view = view_of(np.zeros((1, 3)))
    values = orbital_on_grid(gaussian, np.array([1.0, 0, 0, 0]), view)
    norm = (2 * EXPONENT / np.pi) ** 0.75
    assert values.max() == pytest.approx(norm, rel=0.05), "the nucleus is no point of the grid"
    assert (values**2).sum() * (view.step / BOHR) ** 3 == pytest.approx(1, abs=2e-3)
    square = gammaincinv(1.5, 0.75) / (2 * EXPONENT)
    assert gammainc(1.5, 2 * EXPONENT * square) == pytest.approx(0.75)
    assert enclosing_amplitude(values) == pytest.approx(norm * np.exp(-EXPONENT * square), rel=0.04)


@pytest.mark.slow
def test_colours_and_sizes(gaussian) -> None:
    """s: a disc of the right area in one colour; p: two lobes, one of each."""
    positions, numbers = np.zeros((1, 3)), np.array([2])
    areas = {}
    for name, coefficients in (("s", [1.0, 0, 0, 0]), ("p", [0.0, 1, 0, 0])):
        values = orbital_on_grid(gaussian, np.array(coefficients), view_of(positions))
        level = enclosing_amplitude(values)
        view, (values,) = trimmed(view_of(positions), [values], positions)
        image = draw_surface(values, level, view, numbers, positions)
        assert image.min() >= 0
        assert image.max() <= 1
        pixel = view.step * (view.counts[0] - 1) / (image.shape[1] - 1)
        red, blue = image[..., 0] > image[..., 2] + 0.1, image[..., 2] > image[..., 0] + 0.1
        areas[name] = red.sum() * pixel**2, blue.sum() * pixel**2
    radius = BOHR * np.sqrt(gammaincinv(1.5, 0.75) / (2 * EXPONENT))
    assert areas["s"][0] == 0
    assert areas["s"][1] == pytest.approx(np.pi * radius**2, rel=0.1)
    assert min(areas["p"]) > 0.3 * max(areas["p"]) > 0


def test_the_view_does_not_depend_on_the_orientation() -> None:
    """The molecule is looked at along its own axes; these are orthonormal, also of a line and of an atom."""
    for positions in (water().positions, np.zeros((1, 3)), np.array([[0, 0, 0], [0.7, 0.7, 0.1]])):
        view = view_of(positions)
        assert np.allclose(view.axes @ view.axes.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(view.axes) == pytest.approx(1)
    turned = water()
    turned.rotate(70, (3, 1, 2))
    assert np.allclose(view_of(turned.positions).counts, view_of(water().positions).counts, atol=1)


@pytest.fixture(scope="module")
def orbitals() -> OrbitalResult:
    pytest.importorskip("pyscf")
    return HamiltonianCalculator(untrained_water_model()).predict(water(), orbitals=True)


def test_cubes(orbitals: OrbitalResult, tmp_path: Path) -> None:
    """ASE reads them; atoms stand where they did, and each orbital holds one electron a spin."""
    paths = write_cubes(tmp_path / "water", orbitals, resolution=0.4)
    assert [path.name for path in paths] == ["water_homo.cube", "water_lumo.cube"]
    for path, column in zip(paths, (4, 5), strict=True):
        with path.open() as file:
            cube = read_cube(file)
        assert np.abs(cube["atoms"].positions - water().positions).max() < 1e-5
        volume = abs(np.linalg.det(cube["spacing"])) / BOHR**3
        assert (cube["data"] ** 2).sum() * volume == pytest.approx(1, abs=0.02)
        middle = tuple(n // 2 for n in cube["data"].shape)
        point = (cube["origin"] + np.array(middle) @ cube["spacing"]) / BOHR
        basis = orbitals.mol().eval_gto("GTOval_sph", point[None])
        value = (basis @ orbitals.in_order("pyscf").coefficients[:, column])[0]
        assert cube["data"][middle] == pytest.approx(value, abs=1e-4)


def test_ladder(orbitals: OrbitalResult) -> None:
    axes = Figure().subplots()
    energies = np.array([-19.0, -1.0, -0.6, -0.45, -0.4, 0.05, *np.linspace(0.6, 3, 18)])
    draw_ladder(axes, replace(orbitals, orbital_energies=energies))
    texts = [text.get_text() for text in axes.texts]
    assert {"HOMO", "LUMO"} <= set(texts)
    assert "12.25 eV" in texts, "0.45 Hartree"
    assert axes.get_xlabel() == "not shown: 1 below (cores), 18 above"


@pytest.mark.slow
def test_picture(orbitals: OrbitalResult, tmp_path: Path) -> None:
    plot_orbitals(tmp_path / "orbitals.png", orbitals, "water")
    image = imread(tmp_path / "orbitals.png")
    assert image.shape[1] > 1000
    right = image[:, image.shape[1] // 3 :]
    assert (right[..., 0] > right[..., 2] + 0.2).sum() > 500
    assert (right[..., 2] > right[..., 0] + 0.2).sum() > 500


@pytest.mark.slow
def test_picture_without_a_lumo(tmp_path: Path) -> None:
    pytest.importorskip("pyscf")
    from ase import Atoms

    model = StoredHamiltonian(np.array([[-0.9]]), basis="sto-3g", elements=("He",))
    result = HamiltonianCalculator(model).predict(Atoms("He"), orbitals=True)
    plot_orbitals(tmp_path / "helium.png", result)
    assert [path.name for path in write_cubes(tmp_path / "helium", result)] == ["helium_homo.cube"]
