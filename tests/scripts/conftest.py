"""Scripts are no package: their folder is put on the path."""

import pytest

from tests.components import repository_root


@pytest.fixture(autouse=True)
def scripts_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let tests import scripts by name."""
    monkeypatch.syspath_prepend(str(repository_root() / "scripts"))
