"""``mlip evaluate`` as a user runs it, against errors that are known because the model made the labels."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from ase.stress import full_3x3_to_voigt_6_stress
from typer.testing import CliRunner

from mlip.cli.main import app
from mlip.data.datasets.extxyz import ExtxyzDataset
from mlip.data.writers.aselmdb import AseLmdbWriter
from mlip.data.writers.extxyz import ExtxyzWriter
from mlip.evaluation import report
from mlip.models.model_file import save_model
from tests.components import small_facet
from tests.evaluation.labelled import labelled_graph, structures

ENERGY_ERROR, FORCE_ERROR = 0.018, 0.03


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and labelled molecules and crystals; errors of 18 meV and 30 meV/Å."""
    folder = tmp_path_factory.mktemp("files")
    model = small_facet()
    save_model(folder / "model.safetensors", model)
    for name, periodic in (("gas", False), ("solid", True)):
        frames = structures(6, periodic)
        for atoms in frames:
            graph = labelled_graph(model, atoms, ENERGY_ERROR, FORCE_ERROR)
            labels = {"energy": graph.energy.item(), "forces": graph.forces.numpy()}
            if periodic:
                labels["stress"] = full_3x3_to_voigt_6_stress(graph.stress[0].numpy() + 0.001)
            atoms.calc = SinglePointCalculator(atoms, **labels)
        write(folder / f"{name}.xyz", frames, format="extxyz")
    return folder


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Files that would be drawn; drawing takes most of the time."""
    paths: list[Path] = []
    monkeypatch.setattr(report, "draw_parity", lambda path, points, title: paths.append(path))
    return paths


@pytest.fixture
def call(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Run the command in a folder of its own; returns what it prints."""
    shutil.copytree(files, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)

    def run(*words: str, status: int = 0) -> str:
        words = ("evaluate", "model.safetensors", *words)
        result = CliRunner().invoke(app, words, env={"COLUMNS": "200"})
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == status, result.output
        return result.output

    return run


def test_a_file_of_molecules(call, tmp_path: Path) -> None:
    text = call("data=gas.xyz")
    folder = tmp_path / "evaluate_gas"
    errors = json.loads((folder / "metrics.json").read_text())["errors"]
    assert errors["energy_mae_meV"] == pytest.approx(18.0, abs=1e-3)
    assert errors["forces_rmse_meV_per_A"] == pytest.approx(30.0, abs=1e-3)
    assert not any(key.startswith("stress") for key in errors)
    for part in ("energy per atom", "meV/atom", "forces on H", "30", "6 structures"):
        assert part in text, part
    assert "stress" not in text
    frames = read(folder / "predictions.xyz", ":")
    for frame in frames:
        assert frame.get_potential_energy() - frame.info["reference_energy"] == pytest.approx(0.018, abs=1e-6)
        np.testing.assert_allclose(frame.get_forces() - frame.arrays["reference_forces"], 0.03, atol=1e-6)
    assert (folder / "parity.png").read_bytes()[:4] == b"\x89PNG"
    # What was written is itself a data set, labelled with the predictions.
    assert len(ExtxyzDataset(folder / "predictions.xyz")) == 6


def test_a_file_of_crystals_has_stress(call, drawn: list[Path], tmp_path: Path) -> None:
    text = call("solid.xyz", "--output", "out", "--max-edges", "100")
    errors = json.loads((tmp_path / "out" / "metrics.json").read_text())["errors"]
    assert errors["stress_rmse_meV_per_A3"] == pytest.approx(1.0, abs=1e-4)
    assert "meV/Å³" in text
    frame = read(tmp_path / "out" / "predictions.xyz", "0")
    difference = frame.get_stress(voigt=False) - frame.info["reference_stress"]
    np.testing.assert_allclose(difference, -0.001, atol=1e-7)


def test_parts_of_a_split_are_disjoint_and_complete(call, drawn: list[Path], tmp_path: Path) -> None:
    split = ("data.split.train=3", "data.split.valid=2", "data.split.test=1", "data.split.seed=5")
    sources: list[str] = []
    for part, count in (("train", 3), ("valid", 2), ("test", 1)):
        call("data=gas.xyz", *split, "--subset", part, "--output", part)
        frames = read(tmp_path / part / "predictions.xyz", ":")
        assert len(frames) == count
        sources += [frame.info["source"] for frame in frames]
    assert len(set(sources)) == 6


def test_geometries_can_be_excluded(call, drawn: list[Path], tmp_path: Path) -> None:
    write("known.xyz", read("gas.xyz", ":2"), format="extxyz")
    assert "4 structures" in call("data=gas.xyz", "--exclude", "known.xyz")
    text = call("data=gas.xyz", "--exclude", "gas.xyz", "--output", "none", status=1)
    assert "no structure" in text
    assert not (tmp_path / "none").exists()


def test_the_training_data_are_recognised(call, drawn: list[Path]) -> None:
    call("data=gas.xyz")
    seen = json.loads(Path("evaluate_gas/metrics.json").read_text())["sha256"]
    save_model("model.safetensors", small_facet(), {"data": {"train": {"sha256": seen}}})
    assert "trained on exactly these structures" in call("data=gas.xyz", "--overwrite")


def test_results_are_not_overwritten_unasked(call, drawn: list[Path]) -> None:
    call("data=gas.xyz")
    assert "holds results already" in call("data=gas.xyz", status=1)
    call("data=gas.xyz", "--overwrite")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("data=missing.xyz",), "There is no file or folder 'missing.xyz'"),
        (("data=extxys",), "Did you mean 'extxyz'"),
        (("data=extxyz",), "data.path"),
        (("data=gas.xyz", "data.energy_kye=E"), "no setting 'data.energy_kye'"),
        (("data=gas.xyz", "data.dataset.energy_key=REF_energy"), "Did you mean"),
        (("data=gas.xyz", "--dtype", "float16"), "dtype must be one of"),
        (("data=gas.xyz", "--subset", "test"), "data.split.test"),
    ],
)
def test_mistakes(call, words: tuple[str, ...], message: str) -> None:
    text = call(*words, status=1)
    assert message in text
    assert not list(Path.cwd().glob("evaluate_*"))


def test_unknown_elements_are_named_with_the_frame(call) -> None:
    frames = read("gas.xyz", ":")
    energy, forces = frames[1].get_potential_energy(), frames[1].get_forces()
    frames[1].symbols[0] = "S"
    frames[1].calc = SinglePointCalculator(frames[1], energy=energy, forces=forces)
    write("sulphur.xyz", frames, format="extxyz")
    text = call("data=sulphur.xyz", status=1)
    assert "sulphur.xyz:1" in text
    assert "contains S" in text
    assert not Path("evaluate_sulphur").exists()


def test_formats_are_recognised(call, drawn: list[Path], tmp_path: Path) -> None:
    ExtxyzWriter().write(ExtxyzDataset("gas.xyz"), tmp_path / "it's here.xyz")
    AseLmdbWriter().write(ExtxyzDataset("gas.xyz"), tmp_path / "gas.aselmdb")
    assert "6 structures" in call("data=it's here.xyz")
    call("gas.aselmdb", "--output", "lmdb")
    errors = [json.loads((tmp_path / f / "metrics.json").read_text())["errors"] for f in ("evaluate_it's here", "lmdb")]
    assert errors[0] == errors[1]
