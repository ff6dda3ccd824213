"""Commands that were made for potentials, given a model of Hamiltonians: they work, or say in a sentence why not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ase.io import write
from typer.testing import CliRunner

from mlip.cli.main import app
from mlip.models.model_file import save_model
from tests.calculators.hamiltonian_models import random_hamiltonian_model, water
from tests.components import small_facet


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("qhnet", "second")):
        save_model(f"{name}.safetensors", random_hamiltonian_model(), {"seed": number})
    write("water.xyz", water())


def mlip(*words: str, status: int = 0) -> str:
    result = CliRunner().invoke(app, words, env={"COLUMNS": "200"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == status, result.output
    return " ".join(result.output.split())


@pytest.mark.parametrize("target", ["hamiltonian", pytest.param("difference", marks=pytest.mark.slow)])
def test_doctor(target: str) -> None:
    save_model("own.safetensors", random_hamiltonian_model("model.onsite=null", f"model/target={target}"))
    text = mlip("doctor", "own.safetensors", "water.xyz", "--json", "report.json")
    checks = json.loads(Path("report.json").read_text())["checks"]
    assert f"All {len(checks)} checks passed" in text
    names = " ".join(row["name"] for row in checks)
    for part in ("reflection: hamiltonian (your structure)", "symmetric: hamiltonian", "slope of hamiltonian"):
        assert part in names


def test_doctor_takes_molecules_only() -> None:
    for change, sentence in (({"charge": 1}, "The structure says charge 1"), ({"spin": 3}, "says spin 3")):
        atoms = water()
        atoms.info.update(change)
        write("other.xyz", atoms)
        assert sentence in mlip("doctor", "qhnet.safetensors", "other.xyz", status=1)
    atoms.center(5)
    atoms.pbc = True
    write("other.xyz", atoms)
    assert "periodic along a, b, c" in mlip("doctor", "qhnet.safetensors", "other.xyz", status=1)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("splinify", "qhnet.safetensors"), "Potentials can be splinified, and 'qhnet.safetensors' predicts hamil"),
        (("relax", "water.xyz", "--model", "qhnet.safetensors"), "Use HamiltonianCalculator (mlip hamiltonian)"),
        (("hamiltonian", "water.xyz", "--model", "facet.safetensors"), "A Hamiltonian model is needed"),
        (("committee", "qhnet.safetensors", "second.safetensors", "-o", "c.safetensors"), "cannot form a committee"),
    ],
)
def test_what_is_for_the_other_kind(words: tuple[str, ...], sentence: str) -> None:
    save_model("facet.safetensors", small_facet())
    text = mlip(*words, status=1)
    assert sentence in text
    assert text.startswith("Error: ")
