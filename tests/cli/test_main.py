"""The command as a whole: quick help, clear errors, exit statuses."""

import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from mlip import __version__
from mlip.cli import main as main_module
from mlip.cli.config_dir import config_dir
from mlip.cli.main import INTERRUPTED, Commands, app, main
from mlip.core.errors import MlipError, TrainingInterrupted

COMMANDS = ("train", "evaluate", "relax", "md", "doctor", "info")
HEAVY = ("torch", "ase", "lightning", "hydra", "omegaconf", "matplotlib", "e3nn", "numpy", "pandas")


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    program = "from mlip.cli.main import main; main()"
    return subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, timeout=120)


def test_help_lists_the_commands_and_imports_nothing_heavy() -> None:
    program = (
        "import sys\nfrom mlip.cli.main import main\nsys.argv = ['mlip', '--help']\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code\n"
        f"print('HEAVY', [name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("HEAVY []"), done.stdout
    for name in COMMANDS:
        assert f"\n  {name} " in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert f"Usage: root {command}" in result.output or f"{command} [OPTIONS]" in result.output


def test_misspelt_command() -> None:
    done = run("trian")
    assert done.returncode == 2
    assert "No such command 'trian'. Did you mean 'train'?" in done.stderr
    assert "Traceback" not in done.stderr


def test_version() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.output) == (0, f"mlip {__version__}\n")


def test_user_error_is_one_sentence_and_status_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["mlip", "info", "[no] such file"])
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    with pytest.raises(SystemExit) as stop:
        main()
    printed = capsys.readouterr()
    assert stop.value.code == 1
    assert printed.out == ""
    assert printed.err.startswith("Error: There is no model file '[no] such file'.")
    assert printed.err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (MlipError("too short"), 1, "Error: too short\n"),
        (KeyboardInterrupt(), INTERRUPTED, "Stopped by Ctrl-C.\n"),
        (TrainingInterrupted("Resume with mlip train --resume runs/x."), INTERRUPTED, "Resume with"),
    ],
)
def test_exit_statuses(error: BaseException, status: int, text: str) -> None:
    small = typer.Typer(cls=Commands, pretty_exceptions_enable=False)
    small.callback()(lambda: None)

    @small.command()
    def fail() -> None:
        raise error

    result = CliRunner().invoke(small, ["fail"])
    assert result.exit_code == status
    assert result.stderr.startswith(text)


def test_a_defect_keeps_its_traceback_and_asks_for_a_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = typer.Typer(cls=Commands, pretty_exceptions_enable=False)
    broken.callback()(lambda: None)

    @broken.command()
    def fail() -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(main_module, "app", broken)
    monkeypatch.setattr(sys, "argv", ["mlip", "fail"])
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    with pytest.raises(ZeroDivisionError) as caught:
        main()
    sys.excepthook(caught.type, caught.value, caught.tb)
    printed = capsys.readouterr().err
    assert "Traceback" in printed
    assert "ZeroDivisionError: a defect" in printed
    assert "please report it" in printed


def test_configurations_are_found() -> None:
    assert (config_dir() / "model" / "facet.yaml").is_file()
