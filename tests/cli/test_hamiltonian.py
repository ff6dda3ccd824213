"""``mlip hamiltonian`` as a user runs it: files, tables, refusals."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from ase import Atoms
from ase.io import write
from scipy.linalg import eigh
from typer.testing import CliRunner

from mlip import HamiltonianCalculator
from mlip.cli.main import app
from mlip.data import pyscf_extra
from mlip.models.model_file import save_model
from tests.calculators.hamiltonian_models import untrained_water_model, water
from tests.components import small_facet

MODEL = "model.safetensors"


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Run the command in a folder with a model and waters; returns what it prints."""
    pytest.importorskip("pyscf")
    monkeypatch.chdir(tmp_path)
    save_model(MODEL, untrained_water_model())
    second = water()
    second.rattle(0.02, seed=1)
    write("water.xyz", water())
    write("two.xyz", [water(), second])

    def run(*words: object, status: int = 0) -> str:
        result = CliRunner().invoke(app, ["hamiltonian", *map(str, words)], env={"COLUMNS": "100"})
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == status, result.output
        return result.output

    return run


def refused(call, *words: object) -> str:
    """Return the message of a call that must fail, and check that it has written nothing."""
    before = sorted(Path().iterdir())
    text = call(*words, status=1)
    assert sorted(Path().iterdir()) == before
    assert text.startswith("Error: ")
    assert text.count("\n") == 1
    return text


def test_diagonalize(call) -> None:
    text = call("water.xyz", "--model", MODEL, "--diagonalize")
    result = HamiltonianCalculator(MODEL).predict(water(), orbitals=True)
    with h5py.File("water_hamiltonian.h5") as file:
        group = file["0"]
        assert np.abs(group["hamiltonian"][:] - result.hamiltonian).max() < 1e-10
        energies = eigh(group["hamiltonian"][:], group["overlap"][:], eigvals_only=True)
        assert np.abs(group["orbital_energies"][:] - energies).max() < 1e-10
        assert (group.attrs["basis"], group.attrs["order"], group.attrs["formula"]) == ("def2-svp", "mlip", "H2O")
        assert (file.attrs["structures"], file.attrs["model"]) == ("water.xyz", MODEL)
    row = next(line for line in text.splitlines() if "0 H2O" in line)
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    gap = result.gap
    assert cells[1:] == ["24", "10", f"{result.homo:.5f}", f"{result.lumo:.5f}", f"{gap:.5f}", f"{gap * 27.211386:.3f}"]
    assert "b3lyp5 / def2-svp" in text


def test_several_structures_and_another_order(call) -> None:
    text = call("two.xyz", "-m", MODEL, "-o", "out/two.npz", "--order", "pyscf")
    assert "--diagonalize adds orbital energies" in text
    with np.load("out/two.npz") as file:
        assert {name.split("/")[0] for name in file.files} == {"0", "1", "about"}
        assert not [name for name in file.files if "energies" in name]
        wanted = HamiltonianCalculator(MODEL).predict(water()).in_order("pyscf")
        assert np.abs(file["0/hamiltonian"] - wanted.hamiltonian).max() < 1e-10
        assert np.abs(file["0/overlap"] - wanted.mol().intor("int1e_ovlp")).max() < 1e-10
        assert np.abs(file["1/hamiltonian"] - file["0/hamiltonian"]).max() > 1e-4


def test_refusals_of_files(call) -> None:
    assert "written to .h5, .hdf5, .npz files, 'out.txt' is none" in refused(
        call, "water.xyz", "-m", MODEL, "-o", "out.txt"
    )
    assert "choose one with --frame" in refused(call, "two.xyz", "-m", MODEL, "--plot", "o.png")
    assert "--plot writes .png files" in refused(call, "water.xyz", "-m", MODEL, "--plot", "o.pdf")
    Path("water_hamiltonian.h5").write_text("old")
    assert "is there already" in refused(call, "water.xyz", "-m", MODEL)
    assert Path("water_hamiltonian.h5").read_text() == "old"
    call("water.xyz", "-m", MODEL, "--overwrite")
    assert h5py.is_hdf5("water_hamiltonian.h5")


@pytest.mark.slow
def test_refusals_of_options(call) -> None:
    assert "There is no model file 'none.st'" in refused(call, "water.xyz", "-m", "none.st")
    assert "There is no structure file" in refused(call, "none.xyz", "-m", MODEL)
    assert "has no frame 5" in refused(call, "two.xyz", "-m", MODEL, "--frame", 5)
    assert "are for --scf" in refused(call, "water.xyz", "-m", MODEL, "--functional", "pbe")
    assert "Did you mean 'b3lyp'" in refused(call, "water.xyz", "-m", MODEL, "--scf", "--functional", "b3lyp6")
    assert "small positive energy" in refused(call, "water.xyz", "-m", MODEL, "--scf", "--conv-tol", -1)


@pytest.mark.slow
def test_refusals_of_structures_name_the_structure(call) -> None:
    bohr, periodic, radical = water(), water(), water()[:2]
    bohr.positions /= 0.529177
    periodic.set_cell([9, 9, 9])
    periodic.pbc = True
    for name, atoms, words in (
        ("bohr", bohr, "the positions are probably in Bohr"),
        ("periodic", periodic, "periodic along a, b, c"),
        ("radical", radical, "odd number of electrons, 9"),
        ("element", Atoms("CO", [[0, 0, 0], [0, 0, 1.13]]), "which the model does not know; it knows H, O"),
    ):
        write(f"{name}.xyz", [water(), atoms])
        text = refused(call, f"{name}.xyz", "-m", MODEL)
        assert text.startswith("Error: Structure 1 (counted from 0): ")
        assert words in text
    assert "Wrote bohr_hamiltonian.h5" in call("bohr.xyz", "-m", MODEL, "--any-distance")


@pytest.mark.slow
def test_a_potential_is_no_hamiltonian_model(call) -> None:
    save_model("potential.safetensors", small_facet())
    text = refused(call, "water.xyz", "-m", "potential.safetensors")
    assert "A Hamiltonian model is needed, such as mlip train model=qhnet makes" in text


@pytest.mark.slow
def test_potentials_commands_name_this_one(call) -> None:
    result = CliRunner().invoke(app, ["relax", "water.xyz", "--model", MODEL])
    assert result.exit_code == 1
    assert "Use HamiltonianCalculator (mlip hamiltonian) for it." in result.output


def test_without_pyscf(call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pyscf_extra, "find_spec", lambda name: None)
    for option in ("--diagonalize", "--scf", "--cube"):
        assert "pip install 'mlip-kit[qm]'" in refused(call, "water.xyz", "-m", MODEL, option)
    assert "Without PySCF there are no overlaps and no orbitals" in call("water.xyz", "-m", MODEL)
    with h5py.File("water_hamiltonian.h5") as file:
        assert set(file["0"]) == {"hamiltonian", "numbers", "positions"}


@pytest.mark.slow
def test_pictures_and_cubes(call) -> None:
    text = call("two.xyz", "-m", MODEL, "--frame", 0, "--plot", "o.png", "--cube", "-o", "w.h5")
    for name in ("w.h5", "o.png", "w_homo.cube", "w_lumo.cube"):
        assert f"Wrote {name}" in text
        assert Path(name).stat().st_size > 10_000
    assert "w_homo.cube' is there already" in refused(call, "water.xyz", "-m", MODEL, "--cube", "-o", "w.npz")
    call("two.xyz", "-m", MODEL, "--cube", "-o", "both.h5")
    assert sorted(path.name for path in Path().glob("both*.cube")) == [
        f"both_{k}_{level}.cube" for k in (0, 1) for level in ("homo", "lumo")
    ]


@pytest.mark.slow
def test_scf(call) -> None:
    """An untrained model is a poor start, which must not change the energy."""
    text = call("two.xyz", "-m", MODEL, "--scf", "--conv-tol", 1e-9)
    assert "SCF cycles by initial guess" in text
    assert "Warning" not in text
    with h5py.File("two_hamiltonian.h5") as file:
        assert file["0"].attrs["scf_energy_Hartree"] == pytest.approx(-76.321, abs=1e-3)
        cycles = [[file[k].attrs[f"scf_cycles_{guess}"] for guess in ("minao", "1e", "prediction")] for k in "01"]
    mean = next(line for line in text.splitlines() if "mean" in line)
    cells = [cell.strip() for cell in mean.strip("│").split("│")]
    assert cells[1:4] == [f"{value:.2f}" for value in np.mean(cycles, axis=0)]
    assert cells[4] == f"{np.mean(cycles, axis=0)[2] / np.mean(cycles, axis=0)[0]:.2f}"


def test_help_teaches() -> None:
    text = CliRunner().invoke(app, ["hamiltonian", "--help"]).output
    assert "mlip hamiltonian water.xyz --model runs/water/model.safetensors --diagonalize" in text
    assert "neutral and closed-shell" in text
    assert "pip install 'mlip-" in text
