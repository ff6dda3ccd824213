"""Fixtures of the data tests."""

from pathlib import Path

import pytest


@pytest.fixture
def file(tmp_path):
    """Return a function that writes text (or bytes) to a file and returns its path."""

    def make(content, name="data.xyz") -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return make
