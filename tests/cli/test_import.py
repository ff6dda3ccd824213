"""``mlip import``: a checkpoint becomes a model with a name, and what is refused."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
from ase.build import bulk
from typer.testing import CliRunner

from mlip.cli.main import app
from mlip.models.foreign.published import PUBLISHED
from mlip.models.header import read_header
from tests.models import sevennet_checkpoint as made


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLIP_MODELS", str(tmp_path / "models"))
    monkeypatch.chdir(tmp_path)


def call(*words: str, status: int = 0) -> str:
    result = CliRunner().invoke(app, list(words), env={"COLUMNS": "200"})
    assert result.exit_code == status, result.output
    return result.output


def test_a_checkpoint_of_ones_own(tmp_path: Path) -> None:
    made.write(tmp_path / "checkpoint.pth", made.NEW)
    own = ("import", "mine", "--checkpoint", "checkpoint.pth")
    assert "choose it with --modality R2SCAN or --modality PBE" in call(*own, status=1)
    text = call(*own, "--modality", "PBE")
    assert "models/mine.safetensors" in text
    assert "3 elements" in text
    assert "Use it as --model mine" in text
    metadata = read_header("mine")["metadata"]
    assert metadata["provenance"]["modality"] == "PBE"
    assert len(metadata["provenance"]["sha256"]) == 64
    assert "licence" not in metadata
    assert "SevenNet checkpoint" in call("info", "mine")
    assert "mine" in call("import")
    assert "is there already: replace it with --overwrite" in call(*own, "--modality", "R2SCAN", status=1)
    call(*own, "--modality", "R2SCAN", "--overwrite")
    assert read_header("mine")["metadata"]["provenance"]["modality"] == "R2SCAN"


def test_a_named_model_relaxes_a_structure(tmp_path: Path) -> None:
    made.write(tmp_path / "checkpoint.pth", made.OLD)
    call("import", "mine", "--checkpoint", "checkpoint.pth")
    bulk("Cu").write("copper.cif")
    assert "step" in call("relax", "copper.cif", "--model", "mine", "--steps", "1")
    assert Path("relax_copper", "summary.json").is_file()


def test_into_a_file(tmp_path: Path) -> None:
    made.write(tmp_path / "checkpoint.pth", made.OLD)
    text = call("import", "mine", "--checkpoint", "checkpoint.pth", "--output", "there/model.safetensors")
    assert "--model there/model.safetensors" in text
    assert read_header("there/model.safetensors")["elements"] == ["H", "O", "Cu"]
    assert not Path("models").exists()


def test_the_list_names_all() -> None:
    text = call("import")
    assert all(name in text for name in PUBLISHED)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("sevenet-0",), "'sevenet-0' is no published potential. Did you mean 'sevennet-0'? Known: "),
        (("sevennet-mf-0",), "import one of sevennet-mf-0-pbe, sevennet-mf-0-r2scan"),
        (("sevennet-0", "--checkpoint", "made.pth"), "is not the published checkpoint of 'sevennet-0'"),
        (("sevennet-0", "--checkpoint", "absent.pth"), "Cannot read the checkpoint 'absent.pth'"),
        (("sevennet-0", "--modality", "PBE"), "leave --modality out"),
        (("mine", "--checkpoint", "made.pth", "--modality", "PBE"), "one level of theory only, and 'PBE'"),
        (("mine", "--checkpoint", "folder"), "Cannot read the checkpoint 'folder': Is a directory"),
        (("../mine", "--checkpoint", "made.pth"), "'../mine' is no name of a model"),
        (("--checkpoint", "made.pth"), "Give the model a name"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_refusals(words: tuple[str, ...], message: str, tmp_path: Path) -> None:
    made.write(tmp_path / "made.pth", made.OLD)
    (tmp_path / "folder").mkdir()
    text = call("import", *words, status=1)
    assert message in text
    assert text.startswith("Error: ")
    assert not Path("models").exists()


def test_without_the_package() -> None:
    if find_spec("sevenn") is not None:
        pytest.skip("the package is installed")
    assert "pip install sevenn (or 'mlip-kit[sevennet]')" in call("import", "sevennet-0", status=1)
