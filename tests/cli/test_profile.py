"""``mlip profile``, ``mlip bench md`` and ``mlip bench train``: files, tables and one-sentence errors."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from click.testing import Result
from typer.testing import CliRunner

from mlip.benchmark.roofline import Roofline
from mlip.cli.main import app
from mlip.cli.profile import parse_repeat
from mlip.core.errors import StructureError
from mlip.models.model_file import save_model
from tests.components import small_facet

pytestmark = pytest.mark.filterwarnings("ignore:.*CUDA is not available.*")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("profile")
    size = ("model.elements=[H,O,Si]", "model.irreps_hidden=4x0e+4x1o", "model.lmax_edge=1", "model/nonlinearity=gate")
    save_model(folder / "model.safetensors", small_facet(*size).float(), {})
    silicon, water = bulk("Si", cubic=True), molecule("H2O")
    silicon.rattle(0.05, seed=0)
    write(folder / "silicon.cif", silicon)
    frames = [water.copy() for _ in range(20)]
    for seed, frame in enumerate(frames):
        frame.rattle(0.05, seed=seed)
        frame.calc = SinglePointCalculator(frame, energy=-1.0, forces=frame.positions)
    write(folder / "water.xyz", frames)
    write(folder / "atom.xyz", molecule("O"))
    write(folder / "iron.cif", bulk("Fe"))
    return folder


@pytest.fixture(autouse=True)
def _known_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """To measure the limits of the machine takes longer than the rest."""
    monkeypatch.setattr("mlip.benchmark.profile.measure_roofline", lambda dtype: Roofline(1e11, 1e10))


def invoke(*arguments: object, expect: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == expect, result.output
    return result


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_profile_of_dynamics(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ("profile", folder / "model.safetensors", folder / "silicon.cif", "--steps", 1, "--output", out)
    result = invoke(*arguments, "--repeat", "1x1x2")
    assert "model, Si16, MD step, kernels auto" in result.output
    assert "16 atoms" in result.output
    rows = table(out / "profile.csv")
    assert {"neighbour list", "convolution", "linears", "total"} <= {row["part"] for row in rows}
    assert {row["direction"] for row in rows} == {"forward", "backward", ""}
    page = (out / "flame_graph.html").read_text(encoding="utf-8")
    assert "layers.0.convolution.linear" in page
    assert "is there already" in invoke(*arguments, expect=1).output


@pytest.mark.slow
def test_profile_of_a_training_and_of_an_isolated_atom(folder: Path, tmp_path: Path) -> None:
    model = folder / "model.safetensors"
    rest = ("--steps", 1, "--kernels", "off", "--output", tmp_path, "--overwrite")
    invoke("profile", model, folder / "water.xyz", "--task", "train", "--batch-size", 2, *rest)
    rows = table(tmp_path / "profile.csv")
    assert {row["direction"] for row in rows} == {"forward", "backward", "double backward", ""}
    assert "weight update" in {row["part"] for row in rows}
    assert "1 atoms, 0 edges" in invoke("profile", model, folder / "atom.xyz", *rest).output


@pytest.mark.parametrize(
    ("structure", "options", "message"),
    [
        ("water.xyz", ("--repeat", "2"), "not periodic along axis 1"),
        ("iron.cif", (), "contains Fe, which the model does not know"),
        ("nothing.cif", (), "There is no structure file"),
        ("silicon.cif", ("--repeat", "2x2"), "--repeat must be one number of cells or three"),
        ("silicon.cif", ("--batch-size", "2"), "--batch-size has no effect with --task md"),
        ("silicon.cif", ("--task", "train", "--skin", "1"), "--skin has no effect with --task train"),
    ],
)
def test_mistakes(folder: Path, tmp_path: Path, structure: str, options: tuple[str, ...], message: str) -> None:
    arguments = (folder / "model.safetensors", folder / structure, *options, "--output", tmp_path / "out")
    result = invoke("profile", *arguments, expect=1)
    assert message in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_repeat() -> None:
    assert parse_repeat("3") == parse_repeat("3x3x3") == parse_repeat("3×3×3") == (3, 3, 3)
    assert parse_repeat("2,1,4") == parse_repeat("2 1 4") == (2, 1, 4)
    for text in ("", "0", "2x", "-1", "1x2", "a"):
        with pytest.raises(StructureError, match="--repeat must be"):
            parse_repeat(text)


@pytest.mark.usefixtures("no_pictures")
def test_bench_md(folder: Path, tmp_path: Path) -> None:
    model, out = folder / "model.safetensors", tmp_path / "out"
    arguments = ("bench", "md", model, folder / "silicon.cif", "--seconds", 0, "--output", out)
    result = invoke(*arguments, "--sizes", "1")
    assert "atoms·steps/s" in result.output
    rows = table(out / "throughput.csv")
    assert [row["atoms"] for row in rows] == ["8"]
    assert (out / "throughput.png").is_file()
    assert "is there already" in invoke(*arguments, expect=1).output
    water = ("bench", "md", model, folder / "water.xyz", "--seconds", 0, "--output", out, "--overwrite")
    assert "its only size is 1" in invoke(*water, "--sizes", "2", expect=1).output
    assert "--timestep must be" in invoke(*water, "--timestep", "0", expect=1).output
    invoke(*water)
    assert [row["atoms"] for row in table(out / "throughput.csv")] == ["3"]


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
def test_bench_train(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    data = ("model.irreps_hidden=4x0e+4x1o", "model.num_layers=2", f"data.path={folder / 'water.xyz'}")
    arguments = ("bench", "train", "model=nequip", *data, "--seconds", 0, "--output", out)
    invoke(*arguments, "--batch-sizes", "1,3")
    rows = table(out / "throughput.csv")
    assert [(row["size"], row["atoms"], row["ns_per_day"]) for row in rows] == [("1", "3", ""), ("3", "9", "")]
    assert "Did you mean 'nequip'" in invoke("bench", "train", "model=neqip", "--output", tmp_path, expect=1).output
