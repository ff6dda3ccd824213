"""The package of docs/extending.md: written from the page, installed as a plug-in, composed, trained and loaded."""

from __future__ import annotations

import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from mlip.cli.compose import compose, to_plain
from mlip.cli.main import app
from mlip.core.build import allowed_packages, locate
from mlip.core.errors import ConfigError
from mlip.models.build import build_model
from mlip.models.model_file import load_model, save_model
from mlip.nn.derivatives import predict
from mlip.testing import suite
from mlip.testing.evaluate import evaluate, graph_for
from mlip.testing.structures import molecule
from tests.components import STATISTICS, repository_root

PAGE = (repository_root() / "docs" / "extending.md").read_text(encoding="utf-8")
SECTION = PAGE.split("## A package of your own\n")[1].split("\n## ")[0]
FILES = {
    name: text
    for text in re.findall(r"^```\w+\n(.*?)^```", SECTION, re.M | re.S)
    for name in re.findall(r"\A# (\S+\.(?:toml|py|yaml))\n", text)
}
COMMAND = next(shlex.split(line)[1:] for line in SECTION.splitlines() if line.startswith("mlip train"))
SMALL = ["model.irreps_hidden=4x0e+2x1o", "model.num_layers=2", "model.lmax_edge=1"]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the page's package, installed as pip would: what counts is the folder of its metadata."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "my_potentials" / "__init__.py").touch()
    project = tomllib.loads(FILES["pyproject.toml"])["project"]
    metadata = tmp_path / f"my_potentials-{project['version']}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Name: {project['name']}\nVersion: {project['version']}\n")
    (points,) = project["entry-points"]["mlip.plugins"].items()
    (metadata / "entry_points.txt").write_text("[mlip.plugins]\n{} = {}\n".format(*points))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLIP_CACHE", str(tmp_path / "cache"))
    allowed_packages.cache_clear()
    yield tmp_path
    monkeypatch.undo()
    allowed_packages.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_potentials"]:
        del sys.modules[name]


def test_packages_that_are_no_plug_ins_are_refused() -> None:
    assert {"pyproject.toml", "my_potentials/heads.py", "my_potentials/nonlinearities.py"} < set(FILES)
    with pytest.raises(ConfigError, match=r"'my_potentials\.heads\.BoundedEnergy' is not allowed here"):
        locate("my_potentials.heads.BoundedEnergy")


def test_the_package_of_the_page_is_composed_trained_and_loaded(package: Path) -> None:
    folder = package / COMMAND[COMMAND.index("--config-dir") + 1]
    statistics = [f"statistics.{name}={value}".replace("'", "") for name, value in STATISTICS.items()]
    overrides = [word for word in COMMAND if "=" in word] + SMALL + statistics
    model = build_model(to_plain(compose("train", overrides, folder))["model"])
    assert type(model.heads["bounded"]).__name__ == "BoundedEnergy"
    assert type(model.layers[0].nonlinearity).__name__ == "SizeGate"
    assert model.exactly_equivariant
    atoms = molecule(model.elements)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    losses = []
    for _ in range(5):
        loss = predict(model, graph_for(model, atoms), create_graph=True)["forces"].square().mean()
        optimizer.zero_grad()
        loss.backward()
        idle = [name for name, parameter in model.named_parameters() if parameter.grad is None]
        assert not idle
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    rows = list(suite.equivariance_rows(suite.double(model), "molecule", atoms))
    assert all(row.passed for row in rows), rows
    save_model(package / "model.safetensors", model)
    loaded = evaluate(load_model(package / "model.safetensors"), atoms)
    assert loaded["energy"] == evaluate(model.eval(), atoms)["energy"]


@pytest.mark.slow
def test_the_command_of_the_page_trains(package: Path) -> None:
    (package / "data").symlink_to(repository_root() / "data")
    result = CliRunner().invoke(app, [*COMMAND, *SMALL, "max_epochs=0.1", "validate_every=0.1"])
    assert result.exit_code == 0, result.output
    assert "heads: bounded" in result.output
    assert set(load_model("runs/ethanol/model.safetensors").heads) == {"bounded"}
