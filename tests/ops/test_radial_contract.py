"""The contract of radial bases and envelopes, run on every yaml, and each against its published formula."""

from __future__ import annotations

import math
from math import comb

import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline as ScipyBSpline

from mlip.core.errors import ConfigError
from mlip.nn.enveloped_basis import EnvelopedBasis
from mlip.ops.envelope.base import Envelope
from mlip.ops.envelope.exponential import Exponential
from mlip.ops.envelope.flat import Flat
from mlip.ops.envelope.learned_range import LearnedRange
from mlip.ops.envelope.polynomial import Polynomial
from mlip.ops.envelope.xplor import Xplor
from mlip.ops.radial.base import RadialBasis
from mlip.ops.radial.bernstein import ExponentialBernstein
from mlip.ops.radial.bessel import Bessel
from mlip.ops.radial.bspline import BSpline
from mlip.ops.radial.gaussian import Gaussian
from mlip.ops.radial.sines import Sines
from mlip.testing import radial as contract
from tests.components import component, component_names, factory

BASES, ENVELOPES = component_names("radial"), component_names("envelope")
CUTOFFS = (4.5, 6.0)
R = torch.linspace(0.0, 4.5, 301, dtype=torch.float64)


@pytest.fixture(params=[(name, rc) for name in BASES for rc in CUTOFFS], ids=lambda p: f"{p[0]}-{p[1]}")
def basis(request: pytest.FixtureRequest) -> RadialBasis:
    name, cutoff = request.param
    return factory("radial", name)(cutoff=cutoff).double()


@pytest.fixture(params=[(name, rc) for name in ENVELOPES for rc in CUTOFFS], ids=lambda p: f"{p[0]}-{p[1]}")
def envelope(request: pytest.FixtureRequest) -> Envelope:
    name, cutoff = request.param
    return factory("envelope", name)(cutoff=cutoff)


def test_basis_shapes(basis: RadialBasis) -> None:
    assert isinstance(basis, RadialBasis)
    assert contract.wrong_shapes(basis) == 0


def test_basis_is_finite_with_two_derivatives(basis: RadialBasis) -> None:
    assert contract.not_finite(basis, basis.cutoff) == 0


def test_basis_derivatives(basis: RadialBasis) -> None:
    assert contract.derivative_error(basis, basis.cutoff) < 1e-7


def test_basis_dtypes(basis: RadialBasis) -> None:
    assert contract.float32_error(basis) < 1e-5
    assert contract.lost_digits(basis) == 0.0


def test_basis_functions_are_independent(basis: RadialBasis) -> None:
    """Two functions that coincide would waste parameters; a rank below num_basis is a mistake."""
    values = basis(torch.linspace(0, basis.cutoff, 400, dtype=torch.float64))
    singular = torch.linalg.svdvals(values)
    assert singular[-1] > 1e-7 * singular[0]


@pytest.mark.parametrize("name", [n for n in BASES if "trainable" in component("radial", n)])
def test_trainable_basis_has_gradients_and_the_same_start(name: str) -> None:
    learned = factory("radial", name)(cutoff=5.0, trainable=True).double()
    fixed = factory("radial", name)(cutoff=5.0, trainable=False).double()
    r = torch.linspace(0.5, 4.5, 9, dtype=torch.float64)
    assert learned(r).detach().numpy() == pytest.approx(fixed(r).numpy(), abs=1e-5)
    learned(r).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in learned.parameters())
    assert not list(fixed.parameters())


@pytest.mark.parametrize("name", [n for n in BASES if "trainable" in component("radial", n)])
def test_enveloping_keeps_the_dtype_of_the_basis(name: str) -> None:
    learned = factory("radial", name)(cutoff=5.0, trainable=True)
    EnvelopedBasis(learned, Polynomial(5.0))
    assert {p.dtype for p in learned.parameters()} == {torch.float32}


def test_enveloped_basis_has_unit_mean_square(basis: RadialBasis) -> None:
    enveloped = EnvelopedBasis(basis, Polynomial(basis.cutoff)).double()
    r = torch.linspace(0.15, 1.0, 999, dtype=torch.float64) * basis.cutoff
    weight = r.square()[:, None]
    mean = (enveloped(r).square() * weight).sum() / weight.sum() / basis.num_basis
    assert float(mean.detach()) == pytest.approx(1.0, rel=0.01)
    assert not enveloped(torch.tensor([basis.cutoff, 2 * basis.cutoff], dtype=torch.float64)).any()


def test_envelope_contract(envelope: Envelope) -> None:
    errors = contract.envelope_errors(envelope)
    assert errors["at zero"] == 0.0
    assert errors["at the cutoff"] < 1e-5
    assert errors["beyond"] == 0.0
    assert errors["rise"] < 1e-14
    assert errors["outside [0, 1]"] < 1e-14
    assert contract.not_finite(envelope, envelope.cutoff) == 0
    assert contract.float32_error(envelope) < 1e-5


def test_envelope_order_is_not_understated(envelope: Envelope) -> None:
    """The first derivative that is not promised does not vanish, so `zero_derivatives` says all there is."""
    if math.isinf(envelope.zero_derivatives):
        # Faster than the tenth power of the distance to the cutoff.
        gap = torch.tensor([0.02, 0.01, 0.006], dtype=torch.float64)
        ratio = envelope(envelope.cutoff * (1 - gap)) / gap**10
        assert (ratio[1:] < 1e-3 * ratio[:-1]).all()
        assert (ratio > 0).all()
        return
    edge = torch.tensor([envelope.cutoff * (1 - 1e-6)], dtype=torch.float64)
    values = contract.derivatives(envelope, edge, envelope.zero_derivatives + 1)
    assert float(values[-1].abs() * envelope.cutoff ** (envelope.zero_derivatives + 1)) > 1.0


def test_default_envelope_of_models_allows_phonons() -> None:
    assert factory("envelope", "polynomial")(cutoff=5.0).zero_derivatives >= 2


@pytest.mark.parametrize("knot_scale", [None, 0.5, 1.0])
def test_bspline_against_scipy(knot_scale: float | None) -> None:
    """Uniform in r, or damped and in the stretched coordinate, in which the knots are the integers."""
    basis = BSpline(9, 4.5, knot_scale=knot_scale).double()
    r, damping = R.numpy(), 1.0
    x = 6 * r / 4.5
    if knot_scale is not None:
        x = 6 * np.log(1 + (r / knot_scale) ** 2) / np.log(1 + (4.5 / knot_scale) ** 2)
        damping = 1 / np.sqrt(1 + (r / knot_scale) ** 2)[:, None]
    x = np.clip(x, 0.0, 6.0)
    expected = np.stack([ScipyBSpline(np.arange(-3.0, 10), np.eye(9)[k], 3)(x) for k in range(9)], axis=1)
    assert basis(R).numpy() == pytest.approx(expected * damping, abs=1e-13)
    assert (basis(R).numpy() / damping).sum(axis=1) == pytest.approx(1.0, abs=1e-13)
    assert int((basis(R) != 0).sum(dim=1).max()) <= 4


@pytest.mark.parametrize("knot_scale", [None, 1.0])
def test_bspline_has_continuous_second_derivatives(knot_scale: float | None) -> None:
    basis = BSpline(9, 4.5, knot_scale=knot_scale).double()
    k = torch.arange(1, 6, dtype=torch.float64) / 6
    knots = k * 4.5
    if knot_scale is not None:
        knots = knot_scale * torch.expm1(k * math.log1p((4.5 / knot_scale) ** 2)).sqrt()
    below, above = (contract.derivatives(basis, knots + side * 1e-9, 2) for side in (-1, 1))
    for one, other in zip(below, above):
        assert torch.allclose(one, other, atol=1e-6, rtol=0)


def test_bessel_against_its_formula() -> None:
    basis = Bessel(7, 4.5).double()
    r = R[1:].numpy()[:, None]
    expected = np.sqrt(2 / 4.5) * np.sin(np.arange(1, 8) * np.pi * r / 4.5) / r * 4.5**1.5
    assert basis(R[1:]).numpy() == pytest.approx(expected, abs=1e-11)
    limit = np.sqrt(2) * np.pi * np.arange(1, 8)
    assert basis(R[:1])[0].numpy() == pytest.approx(limit, rel=1e-14)


def test_sines_against_their_formula() -> None:
    """Whole-numbered frequencies in 1/Å, whatever the cutoff."""
    basis = Sines(8, 4.5).double()
    r = R[1:].numpy()[:, None]
    assert basis(R[1:]).numpy() == pytest.approx(2 / 4.5 * np.sin(np.arange(1, 9) * r) / r, abs=1e-13)
    assert basis(R[:1])[0].numpy() == pytest.approx(2 / 4.5 * np.arange(1, 9), rel=1e-14)


def test_bernstein_against_its_formula() -> None:
    basis = ExponentialBernstein(6, 4.5, gamma=0.7).double()
    t = np.exp(-0.7 * R.numpy())
    expected = np.stack([comb(5, n) * t**n * (1 - t) ** (5 - n) for n in range(6)], axis=1)
    assert basis(R).numpy() == pytest.approx(expected, abs=1e-14)
    assert basis(R).sum(dim=1).numpy() == pytest.approx(1.0, abs=1e-14)


def test_gaussian_against_its_formula() -> None:
    basis = Gaussian(5, 4.0, width=0.5).double()
    expected = np.exp(-((R.numpy()[:, None] - np.arange(5)) ** 2) / (2 * 0.5**2))
    assert basis(R).numpy() == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize("p", [2, 5, 6, 9])
def test_polynomial_against_its_formula(p: int) -> None:
    x = R.numpy() / 4.5
    expected = 1 - (p + 1) * (p + 2) / 2 * x**p + p * (p + 2) * x ** (p + 1) - p * (p + 1) / 2 * x ** (p + 2)
    assert Polynomial(4.5, p)(R).numpy() == pytest.approx(expected, abs=1e-13)


def test_xplor_against_its_formula() -> None:
    on, rc, r = 3.0, 4.5, R.numpy()
    tail = (rc**2 - r**2) ** 2 * (rc**2 + 2 * r**2 - 3 * on**2) / (rc**2 - on**2) ** 3
    assert Xplor(4.5, 3.0 / 4.5)(R).numpy() == pytest.approx(np.where(r < on, 1.0, tail), abs=1e-13)


def test_exponential_against_its_formula() -> None:
    inside = R[R < 4.5].numpy()
    expected = np.exp(-(inside**2) / ((4.5 - inside) * (4.5 + inside)))
    found = Exponential(4.5)(R)
    assert found[R < 4.5].numpy() == pytest.approx(expected, rel=1e-12, abs=1e-42)
    assert float(found[-1]) == 0.0
    # Where it is cut off, at 0.995 of the cutoff, float32 has long been at zero.
    near = torch.tensor([0.99499, 0.99501], dtype=torch.float64) * 4.5
    assert Exponential(4.5)(near).tolist() == pytest.approx([0.0, 0.0], abs=1e-42)


def test_flat_against_its_formula() -> None:
    t = np.clip((R.numpy() - 0.8 * 4.5) / (0.2 * 4.5), 0, 1)

    def g(x: np.ndarray) -> np.ndarray:
        return np.expm1(0.1 * x) / np.expm1(0.1) * x**2 * np.sin(np.pi * x / 2)

    expected = np.where(t < 0.5, 1 - g(2 * t) / 2, g(2 - 2 * t) / 2)
    assert Flat(4.5)(R).numpy() == pytest.approx(expected, abs=1e-13)


@pytest.mark.parametrize("shrinkage", [0.0, 0.25, -0.25, 2.0])
def test_learned_range_is_the_envelope_of_a_shorter_cutoff(shrinkage: float) -> None:
    """Whatever the sign of what is learned: the range never grows beyond the cutoff of the graph."""
    learned = LearnedRange(4.5, Polynomial).double()
    with torch.no_grad():
        learned.shrinkage.fill_(shrinkage)
    expected = Polynomial(4.5 / (1 + abs(shrinkage)))(R)
    assert learned(R).detach().numpy() == pytest.approx(expected.numpy(), abs=1e-13)
    assert not learned(R[4.5 / (1 + abs(shrinkage)) <= R]).any()
    assert learned.zero_derivatives == 2


def test_learned_range_learns_from_the_start() -> None:
    learned = LearnedRange(4.5, Flat)
    learned(torch.tensor([4.0])).sum().backward()
    assert float(learned.shrinkage.grad) < 0


@pytest.mark.parametrize(
    "make",
    [
        lambda: BSpline(3, 5.0),
        lambda: BSpline(8, 0.0),
        lambda: BSpline(8, 5.0, knot_scale=0.0),
        lambda: BSpline(8, 5.0, knot_scale=float("nan")),
        lambda: Bessel(0, 5.0),
        lambda: Bessel(8, float("nan")),
        lambda: Gaussian(1, 5.0),
        lambda: Gaussian(8, 5.0, width=0.0),
        lambda: Polynomial(-1.0),
        lambda: Polynomial(5.0, p=1),
        lambda: Polynomial(5.0, p=2.5),
        lambda: Flat(5.0, onset=1.0),
        lambda: Xplor(5.0, onset=-0.1),
        lambda: Sines(0, 5.0),
        lambda: LearnedRange(5.0, None),
        lambda: LearnedRange(5.0, Gaussian(8, 5.0)),
        lambda: LearnedRange(-1.0, Flat),
    ],
)
def test_senseless_options_are_refused(make: object) -> None:
    with pytest.raises(ConfigError):
        make()
