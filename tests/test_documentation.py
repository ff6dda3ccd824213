"""What the pages say can be done: links lead somewhere, commands, settings and defaults exist as written."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from typer.main import get_command

from mlip.cli.compose import compose
from mlip.cli.data.source import find_source
from mlip.cli.main import app
from mlip.cli.sweep import Job, expand
from tests.components import repository_root

ROOT = repository_root()
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
COMMANDS = get_command(app).commands


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def command_lines() -> list[tuple[str, str]]:
    """Return (page, command) for every line of a code block that calls mlip, comments cut off."""
    found = []
    for page in PAGES:
        for block in re.findall(r"^```\w*\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
            for line in block.splitlines():
                if line.startswith("mlip "):
                    found.append((name(page), line.split("  #")[0].split(" ;")[0].strip()))
    return found


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_and_pictures_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{name(page)} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_nobody_is_sent_to_the_other_project(page: Path) -> None:
    assert not re.search(r"pip3? install (-\S+ )*[\"']?mlip(?!-kit)", page.read_text(encoding="utf-8"))


def test_pictures_are_small() -> None:
    for picture in (ROOT / "docs").rglob("*.png"):
        assert picture.stat().st_size < 200_000, picture


@pytest.mark.parametrize(("page", "line"), command_lines())
def test_commands_and_their_options_exist(page: str, line: str) -> None:
    command, *words = shlex.split(line)[1:]
    assert command in COMMANDS, f"{page}: {line}"
    chosen = COMMANDS[command]
    if hasattr(chosen, "commands"):
        assert words, f"{page}: {line}"
        assert words[0] in chosen.commands, f"{page}: {line}"
        chosen = chosen.commands[words.pop(0)]
    known = {option for parameter in chosen.params for option in parameter.opts}
    for word in words:
        if word.startswith("--"):
            assert word.split("=")[0] in known, f"{page}: {line}"


def lines_with_settings() -> list[tuple[str, str]]:
    """Return those of train and evaluate; what a folder of the user's own holds is not known here."""
    lines = [(page, line) for page, line in command_lines() if line.split()[1] in ("train", "evaluate")]
    return [(page, line) for page, line in lines if "--config-dir" not in line]


@pytest.mark.slow
@pytest.mark.parametrize(("page", "line"), lines_with_settings())
def test_settings_exist(page: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "test.xyz").write_text("1\nenergy=0.0 Properties=species:S:1:pos:R:3:forces:R:3\nH 0 0 0 0 0 0\n")
    command, *words = shlex.split(line)[1:]
    overrides = [word for word in words if "=" in word and not word.startswith("--")]
    if command == "evaluate":
        find_source(overrides)
    else:
        for job in expand(overrides) if "-m" in words else [Job("", tuple(overrides))]:
            compose(command, job.overrides)


def test_defaults_are_the_defaults() -> None:
    """The table of settings in docs/train.md."""
    config = OmegaConf.to_container(compose("train", []), resolve=False)
    rows = re.findall(r"^\| (`[^|]+) \| ([^|]+) \|", (ROOT / "docs" / "train.md").read_text(encoding="utf-8"), re.M)
    compared = 0
    for keys, values in rows:
        for key, value in zip(re.findall(r"`([\w.]+)`", keys), re.split(r", ", values), strict=False):
            found = OmegaConf.select(OmegaConf.create(config), key)
            if re.fullmatch(r"[\d.]+", value) and found is not None:
                assert float(found) == float(value), key
                compared += 1
    assert compared >= 7
