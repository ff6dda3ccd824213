"""Atomic files: the new one is whole, or the old one is still there."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlip.core.errors import MlipError
from mlip.core.files import write_atomically, write_text_atomically


def _full_disk(path: Path) -> None:
    path.write_text("half a")
    raise OSError(errno.ENOSPC, "No space left on device")


def test_writes_and_replaces(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder" / "file.txt"
    write_text_atomically(target, "één")
    write_text_atomically(target, "twee")
    assert target.read_text(encoding="utf-8") == "twee"
    assert os.listdir(target.parent) == ["file.txt"]


def test_full_disk_keeps_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    target.write_text("old")
    with pytest.raises(MlipError, match=r"file.txt.*No space left on device.*Nothing was written"):
        write_atomically(target, _full_disk)
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["file.txt"]


def test_defect_of_the_writer_leaves_nothing_behind(tmp_path: Path) -> None:
    def write(path: Path) -> None:
        path.write_text("half")
        raise RuntimeError("defect")

    with pytest.raises(RuntimeError, match="defect"):
        write_atomically(tmp_path / "file.txt", write)
    assert os.listdir(tmp_path) == []


def test_read_only_folder_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    # The superuser may write anywhere, so the refusal is planted.
    monkeypatch.setattr("mlip.core.files.NamedTemporaryFile", refuse)
    with pytest.raises(MlipError, match="Permission denied"):
        write_text_atomically(tmp_path / "file.txt", "text")


def test_folder_that_is_a_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(MlipError, match="Cannot write"):
        write_text_atomically(tmp_path / "file" / "inner.txt", "text")


def test_target_that_is_a_folder_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(MlipError, match="Cannot write"):
        write_text_atomically(tmp_path / "folder", "text")
    assert os.listdir(tmp_path) == ["folder"]


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    write_text_atomically(tmp_path / "file.txt", "text")
    (tmp_path / "plain").write_text("text")
    assert (tmp_path / "file.txt").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_real_limit_of_the_file_size(tmp_path: Path) -> None:
    code = """
import resource, sys
from mlip.core.errors import MlipError
from mlip.core.files import write_text_atomically
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_text_atomically(sys.argv[1], "x" * 100_000)
except MlipError as error:
    print(error)
"""
    target = tmp_path / "file.txt"
    target.write_text("old")
    done = subprocess.run([sys.executable, "-c", code, str(target)], capture_output=True, text=True, check=True)
    assert "File too large" in done.stdout
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["file.txt"]
