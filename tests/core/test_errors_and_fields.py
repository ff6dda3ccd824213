"""Near matches, the field table and the units."""

from __future__ import annotations

import pytest
from ase import units as ase_units

from mlip.core import errors, units
from mlip.core.fields import FIELDS, LABELS


def test_every_error_is_a_user_error() -> None:
    kinds = [
        value
        for value in vars(errors).values()
        if getattr(value, "__module__", "") == errors.__name__ and isinstance(value, type)
    ]
    assert len(kinds) > 5
    assert all(issubclass(kind, errors.MlipError) for kind in kinds)


@pytest.mark.parametrize(("name", "expected"), [("enrgy", " Did you mean 'energy'?"), ("qqqq", ""), ("", "")])
def test_did_you_mean(name: str, expected: str) -> None:
    assert errors.did_you_mean(name, FIELDS) == expected


def test_fields_are_consistent() -> None:
    assert all(field.name == name for name, field in FIELDS.items())
    assert set(LABELS) <= set(FIELDS)
    # A quantity's rank says how it turns, so its last dimensions must be Cartesian.
    assert all(
        field.shape[-field.rank :] == (3,) * field.rank
        for field in FIELDS.values()
        if field.name in LABELS and field.rank
    )


def test_items_fit_their_field() -> None:
    assert FIELDS["energy"].fits(())
    assert not FIELDS["energy"].fits((1,))
    assert FIELDS["stress"].fits((3, 3))
    assert not FIELDS["stress"].fits((3, 2))
    assert FIELDS["class_scores"].fits((7,))
    assert FIELDS["class_scores"].fits((2,))
    assert not FIELDS["class_scores"].fits((0,))
    assert not FIELDS["class_scores"].fits((7, 1))


def test_units_against_published_values() -> None:
    assert pytest.approx(27.211386, rel=1e-7) == units.HARTREE
    assert pytest.approx(0.529177211, rel=1e-8) == units.BOHR
    assert pytest.approx(0.0433641, rel=1e-5) == units.KCAL_PER_MOL
    assert pytest.approx(160.21766**-1, rel=1e-6) == units.GPA
    assert pytest.approx(units.GPA) == 10 * units.KBAR
    assert pytest.approx(8.617333e-5, rel=1e-6) == units.KB
    assert ase_units.fs == units.FS
