"""PySCF is optional: say in one sentence what needs it and how to install it."""

from __future__ import annotations

from importlib.util import find_spec

from mlip.core.errors import DataError


def has_pyscf() -> bool:
    """Whether PySCF is installed; does not import it."""
    return find_spec("pyscf") is not None


def require_pyscf(purpose: str) -> None:
    """Refuse to go on without PySCF.

    Args:
        purpose: what needs it, as in "computing overlaps".

    Raises:
        DataError: it is not installed.
    """
    if not has_pyscf():
        raise DataError(f"PySCF is needed for {purpose} and not installed: pip install 'mlip-kit[qm]'.")
