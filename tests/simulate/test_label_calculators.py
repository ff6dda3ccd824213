"""Labels by calculators: the numbers are the calculator's, failures are failures, and files of programs are kept."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator, FileIOCalculator
from ase.calculators.emt import EMT
from ase.stress import voigt_6_to_full_3x3_stress

from mlip.core.errors import ConfigError, DataError
from mlip.core.units import BOHR, HARTREE
from mlip.data.labelling.base import NotLabelled
from mlip.data.labelling.structures import Structure, Takes, structure
from mlip.simulate.labelling.calculators import AseLabeller

HERE = f"{__name__}"


def crystal() -> Atoms:
    atoms = bulk("Cu", "fcc", a=3.65, cubic=True)
    atoms.rattle(0.05, seed=2)
    return atoms


def taken(atoms: Atoms, **given: int) -> Structure:
    return structure(atoms, "a.xyz", 3, takes=Takes.anything, given=given)


class Program(FileIOCalculator):
    """Runs a program that writes a line, and reads an energy whatever the line says."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012
    default_parameters = {"say": "all is well"}  # noqa: RUF012

    def __init__(self, **options) -> None:
        code = "import sys; open('out.txt', 'w').write(sys.argv[1]); sys.exit(sys.argv[1] == 'crash')"
        super().__init__(command=f"{sys.executable} -c \"{code}\" '{options.get('say', '')}'", **options)

    def read_results(self) -> None:
        assert (Path(self.directory) / "out.txt").is_file()
        self.results = {"energy": -1.0, "forces": np.zeros((len(self.atoms), 3))}


class Stated(Calculator):
    """An energy out of its arguments."""

    implemented_properties = ["energy", "free_energy", "forces"]  # noqa: RUF012

    def __init__(self, total: int = 0, multiplicity: int = 1, converged: bool = True, energy: float = 2.0) -> None:
        super().__init__()
        self.total, self.multiplicity, self.converged, self.energy = total, multiplicity, converged, energy

    def calculate(self, *arguments) -> None:
        super().calculate(*arguments)
        energy = self.energy + 10 * self.total + 100 * self.multiplicity
        self.results = {"energy": energy, "free_energy": energy + 0.5, "forces": np.zeros((len(self.atoms), 3))}


def test_numbers_are_those_of_emt() -> None:
    atoms = crystal()
    labels = pickle.loads(pickle.dumps(AseLabeller("emt"))).compute(taken(atoms))
    atoms.calc = EMT()
    assert labels.energy * HARTREE == pytest.approx(atoms.get_potential_energy(), rel=1e-14)
    assert labels.forces * HARTREE / BOHR == pytest.approx(atoms.get_forces(), abs=1e-14)
    stress = voigt_6_to_full_3x3_stress(atoms.get_stress())
    assert labels.stress * HARTREE / BOHR**3 == pytest.approx(stress, abs=1e-14)
    atoms.pbc = False
    assert AseLabeller("emt").compute(taken(atoms)).stress is None


def test_forces_and_stress_are_slopes_of_the_energy() -> None:
    """In atomic units: Hartree, Bohr."""
    atoms, labeller, step = crystal(), AseLabeller("emt"), 1e-4
    labels = labeller.compute(taken(atoms))

    def energy(change) -> float:
        moved = atoms.copy()
        change(moved)
        return labeller.compute(taken(moved)).energy

    def shift(by: float):
        def change(moved: Atoms) -> None:
            moved.positions[1, 2] += by * BOHR

        return change

    def strain(by: float):
        return lambda moved: moved.set_cell(moved.cell.array @ np.diag([1 + by, 1, 1]), scale_atoms=True)

    assert labels.forces[1, 2] == pytest.approx(-(energy(shift(step)) - energy(shift(-step))) / (2 * step), abs=1e-7)
    volume = atoms.get_volume() / BOHR**3
    slope = (energy(strain(step)) - energy(strain(-step))) / (2 * step * volume)
    assert labels.stress[0, 0] == pytest.approx(slope, rel=1e-5)


def test_charge_and_multiplicity_come_from_the_structure() -> None:
    atoms = Atoms("OH", [[0, 0, 0], [0, 0, 1]])
    atoms.info = {"charge": 1, "multiplicity": 3}
    labeller = AseLabeller(f"{HERE}.Stated", {"total": "{charge}", "multiplicity": "{spin}"})
    assert labeller.compute(taken(atoms)).energy * HARTREE == pytest.approx(312)
    assert labeller.compute(taken(Atoms("H2", [[0, 0, 0], [0, 0, 1]]))).energy * HARTREE == pytest.approx(102)
    with pytest.raises(DataError, match=r'says charge 1, and .*write "\{charge\}" where it belongs in --ase-args'):
        AseLabeller("emt").check_structure(taken(atoms))
    free = AseLabeller(f"{HERE}.Stated", free_energy=True)
    assert free.compute(taken(Atoms("H"))).energy * HARTREE == pytest.approx(102.5)
    assert free.level_of_theory["energy"] == "free energy"


@pytest.mark.parametrize(
    ("options", "message"),
    [({"converged": False}, "has not converged"), ({"energy": float("nan")}, "not finite")],
)
def test_what_gives_no_label(options, message) -> None:
    with pytest.raises(NotLabelled, match=message):
        AseLabeller(f"{HERE}.Stated", options).compute(taken(Atoms("H")))


def test_programs_have_a_folder_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has failed stays there to be looked at; what a program says of convergence is read."""
    monkeypatch.chdir(tmp_path)
    failed = tmp_path / "failed"
    fine = AseLabeller(f"{HERE}.Program", {"say": "SCF converged"}, folder=failed)
    assert fine.compute(taken(Atoms("H"))).energy == pytest.approx(-1 / HARTREE)
    assert not list(tmp_path.iterdir())
    for say, message in (
        ("SCF run NOT converged", r"'out\.txt' of the program says 'scf run not converged'\. Its files are in"),
        ("crash", r"CalculationFailed: .*Its files are in '.*failed/a\.xyz_3'"),
    ):
        with pytest.raises(NotLabelled, match=message):
            AseLabeller(f"{HERE}.Program", {"say": say}, folder=failed).compute(taken(Atoms("H")))
        assert (failed / "a.xyz_3" / "out.txt").read_text() == say


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("emtt", {}, "ASE knows no calculator 'emtt'. Did you mean 'emt'?"),
        ("no.such.Thing", {}, "'no.such.Thing' cannot be imported"),
        (f"{HERE}.Stated", {"totla": 1}, "cannot be made with these arguments: .*totla"),
    ],
)
def test_refusals(name, arguments, message) -> None:
    with pytest.raises(ConfigError, match=message):
        AseLabeller(name, arguments)
    with pytest.raises(ConfigError, match="has no free energy"):
        AseLabeller(f"{HERE}.Program", free_energy=True)
