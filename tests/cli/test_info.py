"""``mlip info``: the card, its parts, and files that are no models."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mlip.cli.main import app
from mlip.models.committee import committee_of
from mlip.models.model_file import save_model
from tests.components import small_facet

METADATA = {
    "created": "2026-01-01T00:00:00+00:00",
    "config": {"name": "mine", "secret_setting": 1},
    "data": {
        "citation": "somebody",
        "train": {"structures": 20, "sha256": "abc"},
        "split": {"train": list(range(20))},
    },
    "metrics": {"forces_rmse_meV_per_A": 12.3456789},
    "git_revision": None,
}


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_model(path, small_facet(), METADATA)
    return path


def call(*words: str, status: int = 0) -> str:
    result = CliRunner().invoke(app, ["info", *words], env={"COLUMNS": "120"})
    assert result.exit_code == status, result.output
    return result.output


def test_card(model_file: Path) -> None:
    text = call(str(model_file))
    for part in (
        "H C O",
        "4 Å",
        "float64",
        "eV/Å³",
        "-1029.4",
        "12.34568",
        "train.structures",
        "20 values",
        "somebody",
    ):
        assert part in text, part
    assert f"{small_facet().num_parameters:,}" in text
    assert "secret_setting" not in text


def test_configuration_on_request(model_file: Path) -> None:
    assert "irreps_hidden" in call(str(model_file), "--config")


def test_json_is_the_header(model_file: Path) -> None:
    header = json.loads(call(str(model_file), "--json"))
    assert header["metadata"] == METADATA
    assert header["elements"] == ["H", "C", "O"]


def test_a_model_without_metadata(tmp_path: Path) -> None:
    save_model(tmp_path / "m.safetensors", small_facet())
    assert "H C O" in call(str(tmp_path / "m.safetensors"))


def test_a_committee_shows_the_reference_energies_of_its_members(tmp_path: Path) -> None:
    path = tmp_path / "committee.safetensors"
    models = [small_facet(seed=seed) for seed in (0, 1)]
    save_model(path, committee_of(models))
    text = call(str(path))
    assert "2 members" in text
    assert text.count("Reference energies of the atoms / eV") == text.count("-1029.4") == 1
    models[1].config["head"]["energy"]["atomic_energies"]["C"] = -1030.5
    save_model(path, committee_of(models))
    text = call(str(path))
    for part in ("/ eV, member 1", "-1029.4", "/ eV, member 2", "-1030.5"):
        assert part in text, part


def test_inputs_are_listed_with_what_they_may_be(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    model = small_facet("model/conditioning=[charge,spin]")
    for saved in (model, committee_of([model, model])):
        save_model(path, saved)
        text = " ".join(call(str(path)).replace("│", "").split())
        assert "input: charge -1, 0, 1" in text
        assert "input: spin 1, 2, 3" in text


@pytest.mark.parametrize("content", [b"", b"not a model", None])
def test_what_is_no_model(tmp_path: Path, model_file: Path, content: bytes | None) -> None:
    path = tmp_path / "broken.safetensors"
    path.write_bytes(model_file.read_bytes()[:-100] if content is None else content)
    assert "cannot be read as a model file" in call(str(path), status=1)
