"""Radial weights: one contract for every yaml, and the MLP against e3nn's."""

from __future__ import annotations

import pytest
import torch
from e3nn.nn import FullyConnectedNet
from torch import Tensor

from mlip.core.errors import ConfigError
from mlip.nn.radial_weights.base import RadialWeights
from mlip.nn.radial_weights.linear import LinearRadialWeights
from mlip.nn.radial_weights.mlp import RadialMLP
from tests.components import component_names, factory

NAMES = component_names("radial_weights")


def basis(rows: int = 7, size: int = 8) -> Tensor:
    return torch.randn(rows, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("name", NAMES)
def test_contract(name: str) -> None:
    torch.manual_seed(0)
    weights = factory("radial_weights", name)(8, 30).double()
    assert isinstance(weights, RadialWeights)
    assert (weights.num_basis, weights.weight_numel) == (8, 30)
    found = weights(basis())
    assert found.shape == (7, 30)
    assert torch.isfinite(found).all()
    assert weights(basis(0)).shape == (0, 30)
    # An edge at the cutoff counts nothing, and approaches that smoothly: twice differentiable.
    x = torch.zeros(1, 8, dtype=torch.float64, requires_grad=True)
    value = weights(x)
    (gradient,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    assert not value.any()
    assert torch.isfinite(gradient).all()
    found.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in weights.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_fresh_weights_have_unit_variance(name: str) -> None:
    torch.manual_seed(0)
    weights = factory("radial_weights", name)(8, 4000).double()
    assert float(weights(basis(200)).detach().square().mean()) == pytest.approx(1.0, abs=0.3)


@pytest.mark.parametrize("hidden", [(64, 64), (5,), (7, 6, 5)])
def test_mlp_against_e3nn(hidden: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    ours = RadialMLP(8, 30, hidden).double()
    theirs = FullyConnectedNet([8, *hidden, 30], torch.nn.functional.silu).double()
    with torch.no_grad():
        for layer, weight in zip(theirs, ours.weights, strict=True):
            layer.weight.copy_(weight)
    # e3nn estimates the second moment of SiLU by sampling: about three digits.
    assert torch.allclose(ours(basis()), theirs(basis()), rtol=5e-3, atol=5e-3)


def test_linear_against_its_formula() -> None:
    weights = LinearRadialWeights(8, 30).double()
    expected = torch.einsum("en,nk->ek", basis(), weights.coefficients) / 8**0.5
    assert torch.allclose(weights(basis()), expected, atol=1e-13)


@pytest.mark.parametrize("options", [{"hidden": []}, {"hidden": [0]}, {"hidden": [8.5]}])
def test_mistakes(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="RadialMLP needs"):
        RadialMLP(8, 30, **options)
