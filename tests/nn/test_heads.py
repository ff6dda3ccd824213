"""The contract of heads, run on every yaml in configs/model/head, and what each promises besides."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from e3nn.o3 import Irreps

from mlip.core.errors import ConfigError
from mlip.core.fields import FIELDS
from mlip.nn.activations import SiLU
from mlip.nn.heads.base import Head
from mlip.nn.heads.direct_forces import DirectForces
from mlip.nn.heads.energy import EnergyHead
from mlip.nn.heads.magmoms import MagneticMoments
from mlip.testing.wigner import random_rotation, transform
from tests.components import ENERGIES, component_names, factory

ELEMENTS = ("H", "C", "O")
LAYERS = [Irreps("5x0e+3x1o+2x2e"), Irreps("4x0e+2x1o"), Irreps("6x0e")]
SPECIES = torch.tensor([0, 2, 2, 1, 0, 1, 2])
BATCH = torch.tensor([0, 0, 0, 1, 1, 1, 1])
NAMES = component_names("head")


def build(name: str, seed: int = 0, layers: list[Irreps] | None = None) -> Head:
    """Build an option with random parameters in float64."""
    torch.manual_seed(seed)
    head = factory("head", name)(irreps_layers=layers or LAYERS, elements=ELEMENTS).double()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return head


def features(seed: int = 1, rows: int = len(SPECIES)) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, irreps.dim, generator=generator, dtype=torch.float64) for irreps in LAYERS]


@pytest.mark.parametrize("name", NAMES)
def test_fields_have_the_shape_of_the_table_and_are_float64(name: str) -> None:
    for dtype in (torch.float32, torch.float64):
        head = build(name).to(dtype)
        found = head([x.to(dtype) for x in features()], SPECIES, BATCH, 2)
        assert set(found) == set(head.provides)
        assert head.provides
        for field, value in found.items():
            rows = len(SPECIES) if FIELDS[field].level == "atom" else 2
            assert value.dtype == torch.float64
            assert value.shape[0] == rows
            assert FIELDS[field].fits(tuple(value.shape[1:])), field
            assert value.detach().std() > 1e-3


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("invert", [False, True])
def test_fields_turn_as_the_table_says(name: str, invert: bool) -> None:
    """Rotation and inversion of the features turn the fields."""
    head, rotation = build(name), random_rotation(3)
    matrix = -rotation if invert else rotation
    plain = head(features(), SPECIES, BATCH, 2)
    other = [transform(x, irreps, rotation, invert) for x, irreps in zip(features(), LAYERS)]
    turned = head(other, SPECIES, BATCH, 2)
    for field, value in plain.items():
        assert not FIELDS[field].pseudo
        for axis in range(value.ndim - FIELDS[field].rank, value.ndim):
            value = torch.tensordot(value, matrix, dims=([axis], [1])).movedim(-1, axis)
        assert torch.allclose(turned[field], value, atol=1e-10), field


@pytest.mark.parametrize("name", NAMES)
def test_graphs_of_a_batch_do_not_mix(name: str) -> None:
    head = build(name)
    together = head(features(), SPECIES, BATCH, 2)
    for graph in range(2):
        rows = graph == BATCH
        alone = head([x[rows] for x in features()], SPECIES[rows], torch.zeros(int(rows.sum()), dtype=torch.long), 1)
        for field, value in alone.items():
            expected = together[field][rows] if FIELDS[field].level == "atom" else together[field][graph : graph + 1]
            assert torch.allclose(value, expected, atol=1e-12), field


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_is_used(name: str) -> None:
    head = build(name)
    sum(value.square().sum() for value in head(features(), SPECIES, BATCH, 2).values()).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in head.parameters())


def energy_head(**options: Any) -> EnergyHead:
    torch.manual_seed(0)
    return EnergyHead(LAYERS, ELEMENTS, **{"atomic_energies": ENERGIES, **options})


def test_formula_with_large_reference_energies_in_float32() -> None:
    """A float32 head keeps the digits of -2041.8 eV: float32 alone would lose 1e-4 eV."""
    head = energy_head(scale=0.5)
    x = [value.float() for value in features()]
    with torch.no_grad():
        head.scales.copy_(torch.tensor([1.0, 2.0, 3.0]))
        head.shifts.copy_(torch.tensor([0.1, 0.2, 0.3]))
    found = head(x, SPECIES, BATCH, 2)["energies"]
    assert found.dtype == torch.float64
    readout = (x[-1] @ head.readouts[0].weights[0] / 6**0.5)[:, 0]
    learned = 0.5 * (head.scales[SPECIES] * readout + head.shifts[SPECIES])
    reference = torch.tensor([ENERGIES[ELEMENTS[k]] for k in SPECIES], dtype=torch.float64)
    assert (found - reference - learned.double()).abs().max() < 1e-6
    assert float(head.to(torch.float32).atomic_energies[2]) == ENERGIES["O"]


@pytest.mark.parametrize(("learned", "common"), [(True, False), (False, True), (True, True), (False, False)])
def test_scale_and_shift_learned_or_fixed_by_element_or_for_all(learned: bool, common: bool) -> None:
    """All start at the same energies; the parameters are those that were asked for."""
    shift, scale = {"H": -1.0, "C": -2.0, "O": -3.0}, {"H": 0.5, "C": 0.6, "O": 0.7}
    options = {"learned_scales": learned, "learned_common": common}
    head = energy_head(scale=scale, shift=shift, **options).double()
    names = {name for name, _ in head.named_parameters()} - {"readouts.0.weights.0"}
    expected = ({"scales", "shifts"} if learned else set()) | ({"common_scale", "common_shift"} if common else set())
    assert names == expected
    readout = (features()[-1] @ head.readouts[0].weights[0] / 6**0.5)[:, 0]
    each = [(ENERGIES[s] + shift[s], scale[s]) for s in (ELEMENTS[k] for k in SPECIES)]
    start, size = torch.tensor(each, dtype=torch.float64).T
    assert torch.allclose(head(features(), SPECIES, BATCH, 2)["energies"], start + size * readout, rtol=0, atol=2e-6)
    if common:
        with torch.no_grad():
            head.common_scale.fill_(2.0)
            head.common_shift.fill_(0.25)
        changed = start + size * (2 * readout + 0.25)
        assert torch.allclose(head(features(), SPECIES, BATCH, 2)["energies"], changed, rtol=0, atol=2e-6)


def test_readout_of_all_layers_and_hidden_layers() -> None:
    head = energy_head(all_layers=True, hidden=[7], activation=SiLU()).double()
    x = features()
    *linear, last = head.readouts
    expected = sum((x[k][:, :n] @ f.weights[0] / n**0.5)[:, 0] for k, (f, n) in enumerate(zip(linear, (5, 4))))
    hidden = SiLU()(x[2] @ last.weights[0] / 6**0.5)
    expected = expected + (hidden @ last.weights[1] / 7**0.5)[:, 0]
    found = head(x, SPECIES, BATCH, 2)["energies"] - head.atomic_energies[SPECIES]
    assert torch.allclose(found, expected)


def test_dropout_is_of_training_only_and_changes_no_mean() -> None:
    plain, dropping = energy_head().double(), energy_head(dropout=0.25).double()
    x = [value.repeat(2000, 1) for value in features()]
    rows = SPECIES.repeat(2000), torch.zeros(len(x[0]), dtype=torch.long), 1
    expected = plain(x, *rows)["energies"]
    assert torch.equal(dropping.eval()(x, *rows)["energies"], expected)
    drawn = dropping.train()(x, *rows)["energies"] - dropping.atomic_energies[rows[0]]
    kept = (expected - dropping.atomic_energies[rows[0]]).view(2000, -1)[0]
    terms = x[-1][: len(SPECIES)] * dropping.readouts[0].weights[0].detach()[:, 0].double() / 6**0.5
    error = (terms.square().sum(1) * (0.25 / 0.75 / 2000)).sqrt()
    drawn = drawn.detach().view(2000, -1)
    assert ((drawn.mean(0) - kept).abs() < 4 * error).all()
    assert torch.allclose(drawn.std(0), error * 2000**0.5, rtol=0.1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dropout": 1.0}, "dropout must be a probability, 0 or more and less than 1, got 1.0"),
        ({"dropout": "much"}, "dropout must be a probability"),
        ({"elements": ("H", "S")}, "atomic_energies lacks S"),
        ({"scale": 0.0}, "scale > 0"),
        ({"scale": float("nan")}, "scale in eV that are finite"),
        ({"scale": float("inf")}, "scale in eV that are finite"),
        ({"shift": float("nan")}, "shift in eV that are finite"),
        ({"atomic_energies": {**ENERGIES, "C": float("nan")}}, "atomic_energies in eV that are finite"),
        ({"scale": None}, "set statistics.force_rms"),
        ({"scale": {"H": 1.0}}, "scale lacks C, O"),
        ({"shift": {"H": 1.0, "C": "x", "O": 0.0}}, "shift in eV"),
        ({"irreps_layers": [Irreps("4x1o")]}, "scalars"),
        ({"irreps_layers": [Irreps("4x1o+2x0e")]}, "first block"),
    ],
)
def test_senseless_energy_heads_are_refused(options: dict[str, Any], words: str) -> None:
    defaults = {"irreps_layers": LAYERS, "elements": ELEMENTS, "atomic_energies": ENERGIES}
    with pytest.raises(ConfigError, match=words):
        EnergyHead(**{**defaults, **options})


def test_magnetic_moments_are_smooth_sizes() -> None:
    head = MagneticMoments(LAYERS, ELEMENTS, scale=2.0).double()
    with torch.no_grad():
        head.readout.weights[0].zero_()
        head.readout.weights[0][0] = 6**0.5
    x = [torch.zeros(5, irreps.dim, dtype=torch.float64) for irreps in LAYERS]
    x[-1][:, 0] = torch.tensor([-1.5, 0.0, 1e-9, 0.3, 1.5])
    x[-1].requires_grad_()
    found = head(x, SPECIES[:5], BATCH[:5], 2)["magmoms"]
    (slope,) = torch.autograd.grad(found.sum(), x[-1])
    sizes = found.tolist()
    assert min(sizes) >= 0
    assert sizes[0] == sizes[4] == pytest.approx(2 * (1.5**2 + 1e-4) ** 0.5 - 0.02, rel=1e-12)
    assert sizes[2] == pytest.approx(1e-18 / 1e-2, rel=1e-6)
    assert float(slope[1, 0]) == 0
    with pytest.raises(ConfigError, match="scale > 0 μB"):
        MagneticMoments(LAYERS, ELEMENTS, scale=0.0)


def test_direct_forces_read_the_last_vectors() -> None:
    assert DirectForces(LAYERS, ELEMENTS).layer == 1
    assert DirectForces(LAYERS, ELEMENTS).symmetry == "O3"
    even = DirectForces([Irreps("4x0e+2x1e"), Irreps("4x0e")], ELEMENTS)
    assert (even.layer, even.symmetry) == (0, "SO3")
    mixed = DirectForces([Irreps("4x0e+2x1o"), Irreps("4x0e+2x1e")], ELEMENTS)
    assert (mixed.layer, mixed.symmetry) == (0, "O3")
    with pytest.raises(ConfigError, match=r"here the features are 4x0e, then 4x0e.*num_layers of at least 2"):
        DirectForces([Irreps("4x0e"), Irreps("4x0e")], ELEMENTS)
    with pytest.raises(ConfigError, match="DirectForces needs scale > 0"):
        DirectForces(LAYERS, ELEMENTS, scale=None)


def test_net_force_of_every_graph_can_be_removed() -> None:
    torch.manual_seed(0)
    plain = DirectForces(LAYERS, ELEMENTS).double()
    without = DirectForces(LAYERS, ELEMENTS, remove_net_force=True).double()
    without.load_state_dict(plain.state_dict())
    forces, balanced = (head(features(), SPECIES, BATCH, 2)["forces"] for head in (plain, without))
    for graph in range(2):
        rows = graph == BATCH
        assert forces[rows].sum(0).abs().max() > 0.1
        assert balanced[rows].sum(0).abs().max() < 1e-12
        assert torch.allclose(balanced[rows], forces[rows] - forces[rows].mean(0))
