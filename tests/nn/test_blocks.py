"""Blocks: equivariance at random parameters, and independent formulas."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from e3nn.o3 import Irreps, Linear
from torch import Tensor, nn

from mlip.core.errors import ConfigError
from mlip.nn.activations import Activation, Quadratic, SiLU
from mlip.nn.convolution import Convolution
from mlip.nn.edge_vectors import safe_norm
from mlip.nn.edges import Edges
from mlip.nn.layer_norm import EquivariantLayerNorm
from mlip.nn.linear import EquivariantLinear, fit_channels
from mlip.nn.nonlinearity.sphere_mixer import GridMixer, ScalarMixer, SphereMixer
from mlip.ops.layout import natural_irreps, split_blocks, to_e3nn
from mlip.ops.spherical_harmonics import spherical_harmonics
from mlip.testing.wigner import random_rotation, transform
from tests.components import component_names, factory

IRREPS = [Irreps(t) for t in ("4x0e+4x1o+2x2e", "3x0e+4x2e", "6x0e+2x1o", "2x0e+2x1o+2x2e+2x3o")]
SCALARS = Irreps("5x0e")


def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Put random numbers in all parameters and go to float64."""
    module = module.double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return module


def features(irreps: Irreps, rows: int = 6, seed: int = 1) -> Tensor:
    return torch.randn(rows, irreps.dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def equivariance_gap(block: Callable[[Tensor], Tensor], irreps_in: Irreps, irreps_out: Irreps) -> float:
    """Largest difference between turning (and inverting) before and after, over the RMS of the result."""
    x, gaps = features(irreps_in), []
    with torch.no_grad():
        plain = block(x)
        for seed in range(3):
            rotation = random_rotation(seed)
            for invert in (False, True):
                after = transform(plain, irreps_out, rotation, invert)
                gaps.append((block(transform(x, irreps_in, rotation, invert)) - after).abs().max())
    return float(torch.stack(gaps).max() / plain.square().mean().sqrt())


@pytest.mark.parametrize("irreps", [*IRREPS, SCALARS], ids=str)
def test_linear_and_norm_are_equivariant(irreps: Irreps) -> None:
    linear = randomise(EquivariantLinear(irreps, irreps))
    norm = randomise(EquivariantLayerNorm(irreps))
    assert equivariance_gap(linear, irreps, irreps) < 1e-10
    assert equivariance_gap(norm, irreps, irreps) < 1e-10
    assert equivariance_gap(lambda x: fit_channels(x, irreps, IRREPS[0]), irreps, IRREPS[0]) < 1e-10


@pytest.mark.parametrize("irreps", IRREPS, ids=str)
def test_mixer_with_a_polynomial_is_exactly_equivariant(irreps: Irreps) -> None:
    mixer = randomise(SphereMixer(irreps, Quadratic()))
    assert mixer.exact
    assert equivariance_gap(mixer, irreps, irreps) < 1e-10


def test_grid_one_point_too_coarse_is_not_exact_and_says_so() -> None:
    irreps = IRREPS[0]
    latitudes, longitudes = GridMixer(irreps, Quadratic()).resolution
    for resolution in ((latitudes - 1, longitudes), (latitudes, longitudes - 1)):
        mixer = randomise(SphereMixer(irreps, Quadratic(), resolution=resolution))
        assert not mixer.exact
        assert equivariance_gap(mixer, irreps, irreps) > 1e-6


def test_aliasing_of_silu_falls_with_the_grid() -> None:
    irreps = IRREPS[0]
    errors = []
    for resolution in ((6, 11), (10, 19), (18, 35), (34, 67)):
        mixer = randomise(SphereMixer(irreps, SiLU(), resolution=resolution))
        assert not mixer.exact
        errors.append(equivariance_gap(mixer, irreps, irreps))
    assert all(fine < 0.5 * coarse for coarse, fine in pairwise(errors)), errors
    assert errors[-1] < 1e-3 * errors[0]


def test_mixer_against_points_on_a_dense_sphere() -> None:
    """What the mixer computes is the MLP at every point, whatever the quadrature: another grid agrees."""
    irreps = IRREPS[0]
    coarse = randomise(SphereMixer(irreps, Quadratic()))
    dense = randomise(SphereMixer(irreps, Quadratic(), resolution=(24, 51)))
    assert torch.allclose(coarse(features(irreps)), dense(features(irreps)), atol=1e-10)


@pytest.mark.parametrize("num_heads", [0, 3, -1])
def test_heads_that_do_not_divide_are_refused(num_heads: int) -> None:
    with pytest.raises(ConfigError, match=f"num_heads={num_heads} does not divide the 4 channels"):
        SphereMixer(IRREPS[0], SiLU(), num_heads=num_heads)


def test_mixer_refuses_unnatural_parity() -> None:
    with pytest.raises(ConfigError, match="parities"):
        SphereMixer(Irreps("4x0e+4x1e+4x2e+4x3o"), SiLU())


def test_scalar_mixer_is_an_mlp() -> None:
    mixer = randomise(ScalarMixer(5, SiLU()))
    x = features(SCALARS)
    a, b, c = (w / 5**0.5 for w in mixer.weights)
    silu = lambda t: 1.6765324703310907 * t / (1 + torch.exp(-t))  # noqa: E731
    assert torch.allclose(mixer(x), silu(silu(x @ a) @ b) @ c, atol=1e-12)


SENDERS, RECEIVERS = torch.tensor([1, 2, 3, 0, 5, 3, 1]), torch.tensor([0, 0, 1, 1, 1, 3, 4])
SPECIES = torch.tensor([0, 1, 0, 0, 1, 1])


def random_convolution(product: str, irreps_in: Irreps) -> Convolution:
    return randomise(
        Convolution(
            irreps_in,
            natural_irreps(2),
            IRREPS[0],
            factory("tensor_product", product),
            5,
            num_neighbors=7.0,
            neighbor_exponent=0.7,
            elements=("H", "C"),
            radial_weights=factory("radial_weights", "linear"),
            self_connection=factory("self_connection", "species"),
        )
    )


def random_edges(directions: Tensor, basis: Tensor) -> Edges:
    return Edges(directions, basis[:, 0], spherical_harmonics(2, directions), basis, SENDERS, RECEIVERS)


@pytest.mark.parametrize("name", component_names("tensor_product"))
@pytest.mark.parametrize("irreps_in", [SCALARS, IRREPS[0]], ids=str)
def test_convolution_is_equivariant(name: str, irreps_in: Irreps) -> None:
    convolution = random_convolution(name, irreps_in)
    nodes, basis = features(irreps_in), features(Irreps("5x0e"), rows=7, seed=2)
    vectors = torch.nn.functional.normalize(features(Irreps("1o"), rows=7, seed=3), dim=1)
    gaps = []
    for seed in range(3):
        rotation = random_rotation(seed)
        for invert in (False, True):
            turned = convolution(
                transform(nodes, irreps_in, rotation, invert),
                random_edges(transform(vectors, natural_irreps(2)[1:2], rotation, invert), basis),
                SPECIES,
            )
            plain = convolution(nodes, random_edges(vectors, basis), SPECIES)
            gap = turned - transform(plain, IRREPS[0], rotation, invert)
            gaps.append(gap.detach().abs().max())
    assert float(torch.stack(gaps).max()) < 1e-10


@pytest.mark.parametrize("name", component_names("tensor_product"))
def test_messages_are_linear_in_the_radial_functions(name: str) -> None:
    """Whatever the product: with the cube of the envelope a neighbour would count for little well within the cutoff."""
    convolution = random_convolution(name, IRREPS[0])
    convolution.self_connection = None
    nodes = features(IRREPS[0])
    vectors = torch.nn.functional.normalize(features(Irreps("1o"), rows=7, seed=3), dim=1)
    one, other = (features(Irreps("5x0e"), rows=7, seed=seed) for seed in (2, 4))
    with torch.no_grad():
        both, first, second = (
            convolution(nodes, random_edges(vectors, basis), SPECIES) for basis in (2 * one - other, one, other)
        )
    assert torch.allclose(both, 2 * first - second, rtol=0, atol=1e-10)
    product = convolution.tensor_product
    if product.expressivity.weights == "path":
        # Every path of every channel has a function of its own.
        assert product.weight_numel == sum(IRREPS[0][path.in1].mul for path in product.paths)
    else:
        # Every degree of the harmonics and every channel; degrees above 0 enter a vector field in two ways.
        assert product.weight_numel == 4 * (5 if product.operator.startswith("irrep_signal") else 3)


def test_linear_against_e3nn() -> None:
    irreps_in, irreps_out = IRREPS[0], Irreps("3x0e+5x1o+2x2e+2x3o")
    ours = randomise(EquivariantLinear(irreps_in, irreps_out))
    reference = Linear(irreps_in, irreps_out, internal_weights=False, shared_weights=True).double()
    weights = torch.cat([w.flatten() for w in ours.weights])
    x = features(irreps_in)
    expected = reference(to_e3nn(x, irreps_in), weights.detach())
    assert torch.allclose(to_e3nn(ours(x), irreps_out), expected, atol=1e-6)
    # There is no way into l = 3.
    assert not split_blocks(ours(x), irreps_out)[3].any()


def test_linear_joins_repeated_irreps() -> None:
    irreps = Irreps("2x0e+1x1o+3x0e")
    linear = randomise(EquivariantLinear(irreps, Irreps("4x0e")))
    x = features(irreps)
    scalars = torch.cat([x[:, :2], x[:, 5:]], dim=1)
    assert torch.allclose(linear(x), scalars @ linear.weights[0] / 5**0.5, atol=1e-13)


def test_layer_norm_against_its_formula() -> None:
    irreps = IRREPS[0]
    norm = randomise(EquivariantLayerNorm(irreps))
    x = features(irreps).numpy()
    scalars, rest, scales = x[:, :4], x[:, 4:], norm.scales.detach().numpy()
    centred = scalars - scalars.mean(axis=1, keepdims=True)
    first = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-2) * scales[:4]
    divisor = np.sqrt((rest**2).mean(axis=1, keepdims=True) + 1e-2)
    # Channels are innermost: each block repeats its scales for every component.
    second = rest / divisor * np.concatenate([np.tile(scales[4:8], 3), np.tile(scales[8:], 5)])
    assert norm(torch.from_numpy(x)).detach().numpy() == pytest.approx(
        np.concatenate([first, second], axis=1), abs=1e-12
    )


def test_layer_norm_starts_as_zero_and_of_nothing_is_nothing() -> None:
    fresh = EquivariantLayerNorm(IRREPS[0]).double()
    assert not fresh(features(IRREPS[0])).any()
    zero = torch.zeros(2, IRREPS[0].dim, dtype=torch.float64, requires_grad=True)
    result = randomise(EquivariantLayerNorm(IRREPS[0]))(zero)
    result.sum().backward()
    assert not result.any()
    assert torch.isfinite(zero.grad).all()


def test_fit_channels_pads_and_cuts() -> None:
    x = features(IRREPS[0], rows=1)
    fitted = split_blocks(fit_channels(x, IRREPS[0], Irreps("6x0e+1x1o+1x3o")), Irreps("6x0e+1x1o+1x3o"))
    blocks = split_blocks(x, IRREPS[0])
    assert torch.equal(fitted[0][:, :, :4], blocks[0])
    assert not fitted[0][:, :, 4:].any()
    assert torch.equal(fitted[1], blocks[1][:, :, :1])
    assert not fitted[2].any()


@pytest.mark.parametrize("name", component_names("activation"))
def test_activations_keep_unit_second_moment(name: str) -> None:
    activation = factory("activation", name)
    assert isinstance(activation, Activation)
    nodes, weights = np.polynomial.hermite_e.hermegauss(120)
    values = activation(torch.from_numpy(nodes)).numpy()
    assert (weights * values**2).sum() / weights.sum() == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("name", component_names("activation"))
def test_activations_have_the_degree_they_declare(name: str) -> None:
    activation = factory("activation", name)
    x = torch.linspace(-3, 3, 61, dtype=torch.float64)
    order = (activation.degree or 6) + 1
    differences = np.diff(activation(x).numpy(), n=order)
    if activation.degree is None:
        assert np.abs(differences).max() > 1e-8
    else:
        assert np.abs(differences).max() < 1e-11
        assert np.abs(np.diff(activation(x).numpy(), n=activation.degree)).max() > 1e-4


def test_safe_norm_has_a_gradient_at_zero() -> None:
    vectors = torch.tensor([[0.0, 0.0, 0.0], [3.0, 0.0, 4.0]], dtype=torch.float64, requires_grad=True)
    lengths = safe_norm(vectors)
    (gradient,) = torch.autograd.grad(lengths.sum(), vectors, create_graph=True)
    (second,) = torch.autograd.grad(gradient.sum(), vectors)
    assert lengths.tolist() == [0.0, 5.0]
    assert gradient[0].tolist() == [0.0, 0.0, 0.0]
    assert gradient[1].tolist() == pytest.approx([0.6, 0.0, 0.8])
    assert torch.isfinite(second).all()
