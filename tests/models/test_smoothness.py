"""Smoothness is checked where neighbours stop to count: at the cutoff, and where envelopes have learned to end."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mlip.models.base import AtomisticModel
from mlip.ops.envelope.base import Envelope
from mlip.ops.envelope.learned_range import LearnedRange
from mlip.testing import field_checks, suite
from mlip.testing.smoothness import crossings
from tests.components import small_facet

SMALL = ("model/envelope=learned_range", "model.elements=[H]", "model.num_layers=1")


class Step(Envelope):
    """Ends with a jump from one half to zero."""

    zero_derivatives = 0

    def forward(self, distances: Tensor) -> Tensor:
        return torch.where(distances < self.cutoff, 1 - 0.5 * (distances / self.cutoff) ** 2, 0.0)


def shortened(model: AtomisticModel, envelope: type[Envelope] | None = None) -> AtomisticModel:
    """Let the envelope end at 80 % of the cutoff."""
    if envelope is not None:
        model.edges.basis.envelope = LearnedRange(model.cutoff, envelope)
    with torch.no_grad():
        model.edges.basis.envelope.shrinkage.fill_(-0.25)
    return model.double()


def test_envelope_says_where_it_ends() -> None:
    model = shortened(small_facet(*SMALL))
    envelope = model.edges.basis.envelope
    assert envelope.end == pytest.approx(0.8 * model.cutoff)
    r = envelope.end * torch.tensor([0.9, 0.99, 1.0001, 1.1], dtype=torch.float64)
    assert ((envelope(r) > 0) == torch.tensor([True, True, False, False])).all()
    assert crossings(model) == {"the cutoff": [4.0], "the learned range": [envelope.end]}
    with torch.no_grad():
        envelope.shrinkage.zero_()
    assert list(crossings(model)) == ["the cutoff"]


def test_jump_at_a_learned_range_is_found() -> None:
    """At the cutoff itself nothing happens any more: all rows there pass trivially."""
    sound, broken = shortened(small_facet(*SMALL)), shortened(small_facet(*SMALL), Step)
    assert all(row.passed for row in suite.cutoff_rows(sound))
    failed = {row.name for row in suite.cutoff_rows(broken) if not row.passed}
    assert {
        f"{what} at the learned range ({how})" for what in ("energy", "forces") for how in ("pairs", "molecule")
    } < (failed)
    assert not any("cutoff" in name for name in failed)


def test_jump_of_a_field_at_a_learned_range_is_found() -> None:
    heads = "model/head=[energy,magmoms]"
    sound, broken = shortened(small_facet(*SMALL, heads)), shortened(small_facet(*SMALL, heads), Step)
    assert all(row.passed for row in field_checks.field_cutoff_rows(sound))
    failed = {row.name for row in field_checks.field_cutoff_rows(broken) if not row.passed}
    assert failed == {"magmoms at the learned range", "slope of magmoms at the learned range"}
