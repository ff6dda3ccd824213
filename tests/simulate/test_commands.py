"""``mlip relax`` and ``mlip md`` as a user calls them, with the pair model in place of a file."""

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import read
from typer.testing import CliRunner

from mlip.calculators import committee as loading
from mlip.cli.md import md
from mlip.cli.relax import relax
from mlip.core.errors import MlipError, SimulationError
from mlip.simulate.thermo import read_thermo
from tests.simulate.pair_model import PairModel


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Call the command line in a folder with a crystal and a molecule."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(loading, "load_model", lambda path, device, dtype: PairModel())
    crystal = bulk("Cu", "fcc", a=3.25, cubic=True)
    crystal.rattle(0.1, seed=0)
    crystal.write("copper.cif")
    molecule("CH4").write("methane.xyz")
    for name in ("m", "m.safetensors"):
        Path(name).touch()

    app = typer.Typer()
    app.command("relax")(relax)
    app.command("md")(md)

    def call(*words: object) -> str:
        result = CliRunner().invoke(app, [str(word) for word in words])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.output

    return call


def is_png(path: Path) -> bool:
    return path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" and path.stat().st_size > 5000


def test_relax(run, tmp_path: Path) -> None:
    output = run("relax", "copper.cif", "--model", "m.safetensors", "--cell", "--fmax", 0.001)
    folder = tmp_path / "relax_copper"
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "trajectory.traj",
        "final.xyz",
        "final.cif",
        "final.vasp",
        "summary.json",
        "relaxation.png",
    }
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["converged"] is True
    assert summary["fmax_after_eV_per_A"] < 0.001 < summary["fmax_before_eV_per_A"]
    assert summary["energy_after_eV"] < summary["energy_before_eV"]
    assert f"{summary['energy_after_eV']:.6f}" in output
    assert "converged" in output
    assert len(read(folder / "trajectory.traj", ":")) == summary["steps"] + 1
    assert read(folder / "final.xyz").get_volume() == pytest.approx(summary["volume_after_A3"], rel=1e-5)
    assert is_png(folder / "relaxation.png")


def test_relax_refuses_to_overwrite(run) -> None:
    words = ("relax", "copper.cif", "--model", "m", "--steps", 3, "--output", "out")
    assert "Not converged within 3 steps" in run(*words)
    with pytest.raises(SimulationError, match="there already: choose another folder"):
        run(*words)
    run(*words, "--overwrite")


def test_md_and_its_restart(run, tmp_path: Path) -> None:
    words = ("md", "copper.cif", "--model", "m", "--ensemble", "nve", "--timestep", 2, "--output", "out")
    output = run(*words, "--steps", 40)
    folder = tmp_path / "out"
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "trajectory.traj", "thermo.csv", "checkpoint.npz", "final.xyz", "final.cif", "final.vasp", "summary.json",
        "md.png",
    }  # fmt: skip
    summary = json.loads((folder / "summary.json").read_text())
    assert abs(summary["energy_drift_meV_per_atom_per_ps"]) < 20
    assert "energy drift / meV/atom/ps" in output
    assert "total energy" in output
    assert is_png(folder / "md.png")
    with pytest.raises(SimulationError, match="continue it with --restart"):
        run(*words, "--steps", 40)
    with pytest.raises(SimulationError, match="ask for more steps"):
        run(*words, "--steps", 40, "--restart")
    output = run(*words, "--steps", 60, "--restart")
    assert "Continued from step 40" in output
    assert [row.step for row in read_thermo(folder / "thermo.csv")] == list(range(0, 61, 10))
    assert np.isclose(read(folder / "trajectory.traj").info["time_fs"], 120)


@pytest.mark.parametrize(
    "options",
    [
        ("--thermostat", "langevin", "--friction", 5),
        ("--thermostat", "bussi", "--thermostat-time", 50),
        ("--thermostat", "nose-hoover"),
        ("--ensemble", "npt", "--pressure", 1, "--barostat-time", 500),
    ],
    ids=["langevin", "bussi", "nose-hoover", "npt"],
)
def test_every_ensemble(run, tmp_path: Path, options: tuple) -> None:
    run("md", "copper.cif", "-m", "m", "--steps", 10, "--log-interval", 2, "--output", "out", *options)
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["last_step"] == 10
    assert (summary["pressure_mean_GPa"] is not None) == ("npt" in options)
    assert is_png(tmp_path / "out/md.png")


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (("relax", "nothing.cif"), "no structure file 'nothing.cif'"),
        (("relax", "methane.xyz", "--cell"), "molecule has no cell"),
        (("relax", "copper.cif", "--dtype", "float16"), "dtype"),
        (("relax", "copper.cif", "--optimizer", "FIRO"), "Did you mean 'FIRE'"),
        (("relax", "copper.cif", "--frame", 7), "no frame 7"),
        (("md", "methane.xyz", "--ensemble", "npt"), "periodic along all axes"),
        (("md", "copper.cif", "--ensemble", "nve", "--thermostat", "bussi"), "--thermostat is for"),
        (("md", "copper.cif", "--pressure", 1), "--pressure has no effect with langevin"),
        (
            ("md", "copper.cif", "--thermostat", "bussi", "--friction", 1),
            "--friction has no effect with bussi",
        ),
        (("md", "copper.cif", "--thermostat-time", 1), "--thermostat-time has no effect"),
        (("md", "copper.cif", "--restart", "--overwrite"), "give one of them"),
        (("md", "copper.cif", "--restart"), "no trajectory"),
        (("md", "copper.cif", "--steps", -3), "steps must be"),
    ],
)
def test_mistakes_are_one_sentence_and_leave_nothing(run, tmp_path: Path, words: tuple, match: str) -> None:
    before = set(tmp_path.iterdir())
    with pytest.raises(MlipError, match=match) as caught:
        run(*words, "--model", "m")
    assert "\n" not in str(caught.value)
    assert set(tmp_path.iterdir()) == before


def test_help_teaches_with_an_example(run) -> None:
    assert "mlip relax silicon.cif" in run("relax", "--help")
    assert "mlip md ethanol.xyz" in run("md", "--help")


def test_hydrogen_molecule_in_a_plot_without_volume(run, tmp_path: Path) -> None:
    Atoms("HC", [[0, 0, 0], [0, 0, 2.5]]).write("pair.xyz")
    run("md", "pair.xyz", "--model", "m", "--steps", 4, "--temperature", 20)
    assert is_png(tmp_path / "md_pair/md.png")
