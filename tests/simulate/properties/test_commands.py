"""The commands of properties as a user calls them, with the pair model in place of a file."""

import csv
import json
import sys
from pathlib import Path

import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.io import read
from typer.testing import CliRunner

from mlip.calculators import committee as loading
from mlip.cli.main import app
from tests.simulate.pair_model import PairModel

COPPER = 3.41


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Call the command line in a folder with a few structures; returns what was printed and the exit status."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "140")

    def load(path: object, device: object, dtype: object) -> PairModel:
        model = PairModel()
        model.use_kernels("off")
        return model

    monkeypatch.setattr(loading, "load_model", load)
    bulk("Cu", a=COPPER).write("copper.vasp")
    molecule("CH4").write("methane.xyz")
    Atoms("H").write("hydrogen.xyz")
    slab = fcc111("Cu", (2, 2, 2), a=COPPER, vacuum=8, periodic=True)
    slab.info.clear()
    slab.write("slab.xyz")
    crystal = bulk("Cu", cubic=True, a=COPPER) * (2, 2, 2)
    for name, gone in (("first.xyz", 0), ("last.xyz", 1)):
        end = crystal.copy()
        if gone:
            end.positions[1] = crystal.positions[0]
        del end[0]
        end.write(name)
    close = bulk("Cu", cubic=True, a=COPPER)
    close.positions[1] = [0.05, 0, 0]
    close.write("overlap.vasp")
    Path("known.csv").write_text("formula,energy_eV\nCu2,1\nAu,-3\n")
    Path("m").touch()

    def call(line: str) -> tuple[str, int]:
        result = CliRunner().invoke(app, [*line.split(), "--model", "m"])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.output, result.exit_code

    return call


def files(folder: Path) -> set[str]:
    for picture in folder.glob("*.png"):
        assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        assert picture.stat().st_size > 3000
    for table in folder.glob("*.csv"):
        rows = list(csv.reader(table.read_text().splitlines()))
        assert len(rows) > 1
        assert len({len(row) for row in rows}) == 1
    return {path.name for path in folder.iterdir()}


CALLS = {
    "eos": (
        "eos copper.vasp --relax --points 5 --span 0.03",
        "eos_copper",
        {"eos.csv", "eos.json", "eos.png", "eos.xyz"},
        "b0_GPa",
    ),
    "elastic": (
        "elastic copper.vasp --relax",
        "elastic_copper",
        {"elastic.csv", "elastic.json", "elastic.png", "relaxed.xyz", "relaxed.cif", "relaxed.vasp"},
        "bulk_hill_GPa",
    ),
    "phonons": (
        "phonons copper.vasp --relax --supercell 4 4 4 --mesh 20",
        "phonons_copper",
        {"band.csv", "dos.csv", "thermo.csv", "band.png", "thermo.png", "phonons.json", "phonopy_params.yaml",
         "relaxed.xyz", "relaxed.cif", "relaxed.vasp"},
        "highest_frequency_THz",
    ),
    "neb": (
        "neb first.xyz last.xyz --relax --images 1 --fmax 0.1",
        "neb_first",
        {"neb.csv", "neb.json", "neb.png", "images.xyz"},
        "barrier_forward_eV",
    ),
    "hull": (
        "hull copper.vasp first.xyz --reference copper.vasp --entries known.csv",
        "hull",
        {"hull.csv", "hull.json", "hull.png"},
        "entries",
    ),
    "vacancy": (
        "defects vacancy copper.vasp --relax --supercell 3 3 3",
        "vacancy_copper",
        {"vacancies.csv", "vacancies.json", "vacancies.png", "vacancies.xyz"},
        "vacancies",
    ),
    "surface": (
        "defects surface copper.vasp --relax --miller 1,1,1 --miller 1,0,0 --thickness 6",
        "surface_copper",
        {"surfaces.csv", "surfaces.json", "surfaces.png", "surfaces.xyz"},
        "surfaces",
    ),
    "adsorption": (
        "defects adsorption slab.xyz hydrogen.xyz --at 0,0 --at 0.17,0.17",
        "adsorption_hydrogen_slab",
        {"adsorption.csv", "adsorption.json", "adsorption.png", "adsorption.xyz"},
        "adsorption_energies_eV",
    ),
}  # fmt: skip


QUICK = ("eos", "vacancy")


def test_a_crystal_with_a_hole_lies_above_the_perfect_one(run, tmp_path: Path) -> None:
    run("hull copper.vasp first.xyz --reference copper.vasp")
    perfect, hole = json.loads((tmp_path / "hull/hull.json").read_text())["entries"]
    assert perfect["energy_above_hull_eV_per_atom"] == pytest.approx(0, abs=1e-9)
    assert hole["formation_energy_eV_per_atom"] == pytest.approx(hole["energy_above_hull_eV_per_atom"])
    assert hole["energy_above_hull_eV_per_atom"] > 0.01
    assert hole["decomposition"] == {"Cu": 1.0}


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in CALLS])
def test_command_and_its_second_call(run, tmp_path: Path, name: str) -> None:
    if name == "phonons":
        pytest.importorskip("phonopy")
        pytest.importorskip("seekpath")
    line, folder, expected, key = CALLS[name]
    output, status = run(line)
    assert status == 0, output
    assert "Results are in" in output
    assert files(tmp_path / folder) == expected
    (summary,) = (tmp_path / folder).glob("*.json")
    values = json.loads(summary.read_text())
    assert values[key]
    assert values["model"] == "m"
    for structures in (tmp_path / folder).glob("*.xyz"):
        read(structures, 0).get_potential_energy() if structures.stem != "relaxed" else None
    before = summary.stat().st_mtime_ns
    output, status = run(line)
    assert status == 1
    assert "is there already" in output
    assert summary.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("eos methane.xyz", "a molecule"),
        ("elastic copper.vasp", "needs a relaxed crystal"),
        ("eos none.cif", "no structure file"),
        ("hull copper.vasp --reference methane.xyz", "no reference energy of the element(s) Cu"),
        ("neb first.xyz copper.vasp", "they have 31 and 1"),
        ("defects surface copper.vasp --relax --miller 1,x,0", "whole numbers"),
        ("defects vacancy copper.vasp --mu Cu:3", "written as O=-4.9"),
        ("defects vacancy copper.vasp --mu Zz=3", "--mu names Zz, the crystal has Cu."),
        ("elastic overlap.vasp", "atoms 0 (Cu) and 1 (Cu) are 0.05 Å apart: they overlap"),
        ("neb overlap.vasp overlap.vasp", "In the first end point atoms 0 (Cu) and 1 (Cu) are 0.05 Å apart"),
        ("defects adsorption slab.xyz hydrogen.xyz --at 0", "two fractional coordinates"),
    ],
)
def test_refusals_leave_no_folder(run, tmp_path: Path, line: str, match: str) -> None:
    before = set(tmp_path.iterdir())
    output, status = run(line)
    assert status == 1
    assert match in " ".join(output.split())
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("line", ["elastic", "defects vacancy", "defects surface --miller 1,1,1"])
def test_a_package_that_is_missing_is_said_first(run, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    monkeypatch.setitem(sys.modules, "spglib", None)
    output, status = run(f"{line} copper.vasp --relax")
    assert status == 1
    assert "pip install 'mlip-kit[crystal]', or pip install spglib" in " ".join(output.split())


def test_relaxations_are_not_replaced_by_properties(run, tmp_path: Path) -> None:
    folder = tmp_path / "both"
    folder.mkdir()
    for name in ("relaxed.jsonl", "relaxed.xyz"):
        (folder / name).write_text("of mlip relax")
    output, status = run("elastic copper.vasp --relax --output both --overwrite")
    assert status == 1
    assert "holds results of mlip relax" in " ".join(output.split())
    assert (folder / "relaxed.xyz").read_text() == "of mlip relax"
