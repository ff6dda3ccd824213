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
from ase.constraints import FixAtoms
from ase.stress import voigt_6_to_full_3x3_stress

from mlip.calculators import committee
from mlip.core.errors import ConfigError, DataError
from mlip.core.units import BOHR, HARTREE
from mlip.data.labelling.base import NotLabelled, SetupFailed
from mlip.data.labelling.label_rows import digest_of, more_text, read_more
from mlip.data.labelling.run import checked
from mlip.data.labelling.structures import Structure, Takes, structure
from mlip.simulate.labelling.calculators import AseLabeller, ModelLabeller
from tests.simulate.pair_model import PairModel

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


class Magnetic(Calculator):
    """An energy that depends on what a program begins with, and on the tags of the atoms."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def calculate(self, *arguments) -> None:
        super().calculate(*arguments)
        atoms = self.atoms
        energy = atoms.get_initial_magnetic_moments() @ [1.0, 10.0] + atoms.get_initial_charges() @ [100.0, 0.0]
        self.results = {"energy": energy + 1000 * atoms.get_tags()[1], "forces": np.zeros((len(atoms), 3))}


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
    # Within a text, too; the name of an argument is none.
    within = AseLabeller(f"{HERE}.Program", {"say": "CHARGE {charge} MULTIPLICITY {spin}", "deep": [{"a": "{spin}"}]})
    within.check_structure(taken(atoms))
    assert within.make(taken(atoms)).parameters["say"] == "CHARGE 1 MULTIPLICITY 3"
    assert within.make(taken(atoms)).parameters["deep"] == [{"a": 3}]
    with pytest.raises(DataError, match="says charge 1"):
        AseLabeller(f"{HERE}.Program", {"deep": {"{charge}": "{spin}"}}).check_structure(taken(atoms))
    free = AseLabeller(f"{HERE}.Stated", free_energy=True)
    assert free.compute(taken(Atoms("H"))).energy * HARTREE == pytest.approx(102.5)
    assert free.level_of_theory["energy"] == "free energy"


def test_initial_moments_charges_and_tags_reach_the_calculator() -> None:
    """Two magnetic states of one geometry are two structures; what says nothing is as if it were not there."""
    iron = bulk("Fe", cubic=True)
    del iron.arrays["initial_magmoms"]
    plain = taken(iron)
    found, labeller = [plain], AseLabeller(f"{HERE}.Magnetic")
    for moments, charges, tags, energy in (
        ([2.2, 2.2], [0, 0], [0, 0], 24.2),
        ([2.2, -2.2], [0, 0], [0, 0], -19.8),
        ([0, 0], [0.5, -0.5], [0, 0], 50),
        ([0, 0], [0, 0], [0, 1], 1000),
    ):
        iron.set_initial_magnetic_moments(moments)
        iron.set_initial_charges(charges)
        iron.set_tags(tags)
        iron.set_constraint(FixAtoms([0]))
        found.append(taken(iron))
        labels = labeller.compute(pickle.loads(pickle.dumps(found[-1])))
        assert labels.energy * HARTREE == pytest.approx(energy, rel=1e-12)
        kept = Atoms("Fe2")
        read_more(more_text(found[-1], labels), kept)
        assert kept.get_initial_magnetic_moments().tolist() == moments
        assert kept.get_initial_charges().tolist() == charges
    assert len({digest_of(one) for one in found}) == 5
    for array in ("initial_magmoms", "initial_charges", "tags"):
        iron.arrays[array][:] = 0
    assert digest_of(taken(iron)) == digest_of(plain)
    iron.set_initial_magnetic_moments([np.nan, 0])
    assert taken(iron).refused == "Its initial_magmoms must be finite numbers."


@pytest.mark.parametrize("reads", [(), ("charge",), ("charge", "spin")])
def test_a_model_that_does_not_read_a_charge_labels_none(reads, tmp_path: Path, monkeypatch) -> None:
    model = PairModel()
    model.inputs = {name: [0, 1, 2] for name in reads}
    monkeypatch.setattr(committee, "load_model", lambda path, device, dtype: model)
    (tmp_path / "m").touch()
    labeller, methane = ModelLabeller(str(tmp_path / "m")), Atoms("CH4", np.eye(5, 3) * 2)
    for name, value, usual in (("charge", 1, 0), ("spin", 2, 1)):
        labeller.check_structure(taken(methane, **{name: usual}))
        charged = taken(methane, **{name: value})
        if name in reads:
            labeller.check_structure(charged)
            continue
        with pytest.raises(DataError, match=f"says {name} {value}, which the model 'm' does not read"):
            labeller.check_structure(charged)
        (refused,) = checked([charged], labeller)
        assert "does not read" in refused.refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"converged": False}, "has not converged"),
        ({"converged": np.bool_(False)}, "has not converged"),
        ({"energy": float("nan")}, "not finite"),
    ],
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
        ("SCF run NOT converged", r"'out\.txt' of the program says 'SCF run NOT converged'\. Its files are in"),
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


def test_a_command_that_is_missing_concerns_all_structures(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ASE_VASP_COMMAND", "VASP_COMMAND", "VASP_SCRIPT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SetupFailed, match=r"'vasp' cannot run: Please set .*VASP_COMMAND"):
        AseLabeller("vasp").compute(taken(bulk("Cu")))
    # No fault of the program.
    with pytest.raises(NotLabelled, match="lattice vectors are zero"):
        AseLabeller("vasp").compute(taken(Atoms("H")))
    with pytest.raises(SetupFailed, match="error code 127"):
        AseLabeller("gaussian", {"command": "exit 127"}).compute(taken(Atoms("H")))
