"""Messages about elements: the offender first, and no list of a whole periodic table."""

from __future__ import annotations

import pytest
from ase.data import chemical_symbols

from mlip.core.errors import StructureError
from mlip.data.elements import check_elements, list_elements


def test_lists_are_short() -> None:
    assert list_elements(["H", "C", "O"]) == "H, C, O"
    assert list_elements([]) == ""
    assert list_elements(chemical_symbols[1:13]).count(",") == 11
    assert list_elements(chemical_symbols[1:14]) == "13 elements (H … Al)"
    assert list_elements(chemical_symbols[1:95]) == "94 elements (H … Pu)"


def test_the_unknown_element_comes_first() -> None:
    known = [symbol for symbol in chemical_symbols[1:95] if symbol not in ("Xe", "Po")]
    check_elements([1, 94], known)
    with pytest.raises(StructureError) as caught:
        check_elements([54, 1, 84, 500], known)
    assert str(caught.value) == (
        "The structure contains Xe, Po, Z=500, which the model does not know; it knows 92 elements (H … Pu). "
        "Use a model trained on these elements."
    )
