"""The operator classes as modules: feature interaction and many-body product on every backend that allows them."""

import pytest
import torch
from e3nn.o3 import Irreps
from torch import Tensor

from mlip.core.errors import ConfigError
from mlip.nn.many_body import ManyBody
from mlip.nn.self_interaction import SelfInteraction
from mlip.testing.wigner import random_rotation, transform
from tests.components import component_names, factory

PRODUCTS = component_names("tensor_product")
MANY_BODY = component_names("many_body")


def multiplies_features(name: str) -> bool:
    """Tell whether a backend supports mode uuu for two features."""
    backend = factory("tensor_product", name).func
    return "uuu" in backend.supported_modes and not backend.filter_is_harmonics


SELF = [name for name in PRODUCTS if multiplies_features(name)]


def features(irreps: Irreps, rows: int = 4, seed: int = 0) -> Tensor:
    return torch.randn(rows, irreps.dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def self_interaction(name: str, irreps: str, irreps_out: str | None = None) -> SelfInteraction:
    torch.manual_seed(3)
    out = None if irreps_out is None else Irreps(irreps_out)
    return SelfInteraction(Irreps(irreps), factory("tensor_product", name), out).double()


def equivariance_error(module: torch.nn.Module, *rest: Tensor) -> float:
    x, rotation = features(module.irreps_in), random_rotation(5)
    with torch.no_grad():
        turned = module(transform(x, module.irreps_in, rotation, True), *rest)
        expected = transform(module(x, *rest), module.irreps_out, rotation, True)
    return float((turned - expected).abs().max())


def test_the_backends_that_are_tested() -> None:
    assert {"clebsch_gordan_dense", "gaunt_grid"} <= set(SELF)
    assert {"symmetric_contraction", "gaunt_grid", "gaunt_fourier"} <= set(MANY_BODY)


@pytest.mark.parametrize("name", SELF)
@pytest.mark.parametrize(
    ("irreps", "irreps_out"),
    [("4x0e+3x1o+2x2e", None), ("4x0e+3x1o+2x2e", "3x0e+2x2e+1x1o"), ("2x1o+3x0e", "4x0e+2x1o"), ("3x0e", None)],
)
def test_self_interaction_is_equivariant(name: str, irreps: str, irreps_out: str | None) -> None:
    module = self_interaction(name, irreps, irreps_out)
    assert module(features(module.irreps_in)).shape == (4, module.irreps_out.dim)
    assert equivariance_error(module) < 1e-10


@pytest.mark.parametrize("name", SELF)
def test_self_interaction_is_a_skip_and_a_square(name: str) -> None:
    """out(x) - x is homogeneous of degree two and not zero; rows do not meet; no rows is fine."""
    module = self_interaction(name, "4x0e+3x1o+2x2e")
    x = features(module.irreps_in)
    square = module(x) - x
    assert square.abs().max() > 1e-2
    assert torch.allclose(module(-3.0 * x) + 3.0 * x, 9.0 * square, atol=1e-11)
    assert torch.allclose(module(x[2:3]), module(x)[2:3], atol=1e-12)
    assert module(x[:0]).shape == (0, module.irreps_out.dim)


@pytest.mark.parametrize("name", SELF)
def test_self_interaction_trains_every_parameter(name: str) -> None:
    module = self_interaction(name, "4x0e+3x1o+2x2e", "3x0e+3x1o+2x2e")
    module(features(module.irreps_in)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in module.parameters())
    restored = self_interaction(name, "4x0e+3x1o+2x2e", "3x0e+3x1o+2x2e")
    restored.load_state_dict(module.state_dict())
    x = features(module.irreps_in)
    assert torch.equal(restored(x), module(x))


def test_self_interaction_leaves_unreached_irreps_to_the_skip() -> None:
    """1o times 1o is never 1o."""
    module = self_interaction("clebsch_gordan_dense", "2x1o", "2x0e+2x1o")
    x = features(module.irreps_in)
    assert torch.allclose(module(2.0 * x)[:, 2:], 2.0 * module(x)[:, 2:], atol=1e-12)
    assert module(x)[:, 2:].abs().min() > 0
    assert module(x)[:, :2].abs().min() > 0


@pytest.mark.parametrize("name", [name for name in PRODUCTS if name not in SELF])
def test_self_interaction_refuses_filters(name: str) -> None:
    with pytest.raises(ConfigError):
        self_interaction(name, "2x0e+2x1o")


def test_self_interaction_refuses_what_it_cannot_build() -> None:
    with pytest.raises(ConfigError, match="without entries"):
        self_interaction("clebsch_gordan_dense", "")
    with pytest.raises(ConfigError, match="each irrep once"):
        self_interaction("clebsch_gordan_dense", "2x0e", "1x0e+1x0e")


def many_body(name: str, correlation: int = 3) -> ManyBody:
    torch.manual_seed(4)
    return ManyBody(
        Irreps("3x0e+3x1o+3x2e"), Irreps("0e+1o+2e"), 3, correlation, many_body=factory("many_body", name)
    ).double()


@pytest.mark.parametrize("name", MANY_BODY)
def test_many_body_is_equivariant_and_knows_species(name: str) -> None:
    module, species = many_body(name), torch.tensor([2, 0, 0, 2])
    assert equivariance_error(module, species) < 1e-11
    x = features(module.irreps_in)
    result = module(x, species)
    for row, element in enumerate(species.tolist()):
        alone = module.product(x[row : row + 1], module.weight[element])
        assert torch.allclose(result[row], alone[0], atol=1e-12)
    assert (module(x, 2 - species) - result).abs().max() > 1e-2
    assert module(x[:0], species[:0]).shape == (0, module.irreps_out.dim)


@pytest.mark.parametrize("name", MANY_BODY)
def test_many_body_is_symmetric_and_trains(name: str) -> None:
    """Atoms in another order give the same rows in that order; absent species get no gradient, present ones do."""
    module, species = many_body(name), torch.tensor([2, 0, 0, 2])
    x, order = features(module.irreps_in), torch.tensor([3, 1, 0, 2])
    assert torch.allclose(module(x[order], species[order]), module(x, species)[order], atol=1e-12)
    module(x, species).square().sum().backward()
    assert module.weight.grad[0].abs().min() > 0
    assert module.weight.grad[2].abs().min() > 0
    assert not module.weight.grad[1].any()


@pytest.mark.parametrize("name", MANY_BODY)
def test_many_body_starts_with_unit_variance(name: str) -> None:
    torch.manual_seed(0)
    irreps = Irreps("16x0e+16x1o+16x2e")
    module = ManyBody(irreps, irreps, 50, 2, many_body=factory("many_body", name)).double()
    with torch.no_grad():
        result = module(features(irreps, rows=1000), torch.arange(1000) % 50)
    variances = [float(result[:, columns].square().mean()) for columns in module.irreps_out.slices()]
    assert variances == pytest.approx([1.0] * 3, abs=0.15)


@pytest.mark.parametrize("name", MANY_BODY)
def test_forces_through_many_body(name: str) -> None:
    """Second derivatives, as training on forces needs them."""
    module, species = many_body(name), torch.tensor([1, 0])
    x = features(module.irreps_in, rows=2).requires_grad_()
    (force,) = torch.autograd.grad(module(x, species).square().sum(), x, create_graph=True)
    force.square().sum().backward()
    assert module.weight.grad[:2].abs().min() > 0


def test_many_body_refuses_no_elements() -> None:
    with pytest.raises(ConfigError, match="at least one element"):
        ManyBody(Irreps("2x0e"), Irreps("0e"), 0, 2, many_body=factory("many_body", "gaunt_grid"))
