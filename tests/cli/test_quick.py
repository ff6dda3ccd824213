"""First steps and typing mistakes: help that fits on a screen, and answers that come before torch is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from mlip.cli.main import app

CASES = (
    (("train", "--help"), 0, "experiment=ethanol"),
    (("train", "--ressume", "x"), 2, "No such option"),
    (("train", "exp=1"), 1, "There is no setting 'exp'"),
    (("train", "finetune.model=absent.safetensors"), 1, "There is no model file 'absent.safetensors'"),
    (("info", "absent.safetensors"), 1, "There is no model file 'absent.safetensors'"),
    (("relax", "absent.cif", "--model", "absent.safetensors"), 1, "There is no model file 'absent.safetensors'"),
    (("relax", "absent.cif", "--model", "here.safetensors"), 1, "There is no structure file 'absent.cif'"),
    (("md", "absent.cif", "--model", "here.safetensors"), 1, "There is no structure file 'absent.cif'"),
    (("doctor", "absent.safetensors"), 1, "There is no model file 'absent.safetensors'"),
    (("evaluate", "absent.safetensors", "data=absent.xyz"), 1, "There is no model file 'absent.safetensors'"),
    (("evaluate", "here.safetensors", "data=absent.xyz"), 1, "There is no file or folder 'absent.xyz'"),
    (("committee", "here.safetensors", "absent.safetensors"), 1, "There is no model file 'absent.safetensors'"),
    (("splinify", "absent.safetensors"), 1, "There is no model file 'absent.safetensors'"),
    (("import", "sevenet-0"), 1, "Did you mean 'sevennet-0'"),
)


def test_typing_mistakes_are_answered_before_torch_is_imported(tmp_path: Path) -> None:
    (tmp_path / "here.safetensors").touch()
    program = (
        "import sys\nfrom typer.testing import CliRunner\nfrom mlip.cli.main import app\n"
        f"for words, status, text in {CASES!r}:\n"
        "    result = CliRunner().invoke(app, list(words))\n"
        "    assert result.exit_code == status, (words, result.output)\n"
        "    assert text in result.output, (words, result.output)\n"
        "    assert 'torch' not in sys.modules, words\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_first_steps() -> None:
    text = CliRunner().invoke(app, ["--help"]).output
    for words in (
        "mlip train experiment=ethanol",
        "mlip evaluate runs/my",
        "mlip relax structure.cif",
        "MLIPCalculator(",
    ):
        assert words in text


@pytest.mark.parametrize("group", [(), ("data",), ("bench",), ("tensor-products",)], ids=str)
def test_lines_of_commands_are_not_cut(group: tuple[str, ...]) -> None:
    command = typer.main.get_command(app)
    for name in group:
        command = command.commands[name]
    lines = CliRunner().invoke(app, [*group, "--help"], env={"COLUMNS": "80"}).output.splitlines()
    listed = lines[lines.index("Commands:") + 1 :]
    assert len(listed) == len(command.commands)
    for line in listed:
        assert len(line) <= 80
        assert line.endswith(".")
        assert not line.endswith("..."), line
