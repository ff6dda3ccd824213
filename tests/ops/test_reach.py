"""Expressivity by rank against counts done by hand; settings."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from e3nn.o3 import Irreps
from torch import Tensor

from mlip.core.errors import ConfigError
from mlip.ops.tensor_product.base import TensorProduct
from mlip.ops.tensor_product.clebsch_gordan_dense import ClebschGordanDense
from mlip.ops.tensor_product.gaunt_grid import GauntGrid
from mlip.ops.tensor_product.reach import Reach, build_first, measure_reach
from mlip.ops.tensor_product.settings import SETTINGS, setting_irreps
from tests.components import component_names, factory

BACKENDS = component_names("tensor_product")

# Degree: (all paths, those with an even sum, free weights of a Gaunt product), for outputs up to 2L and up to L.
FULL = {1: (6, 5, 5), 2: (19, 14, 9), 3: (44, 30, 13), 4: (85, 55, 17), 5: (146, 91, 21)}
TRUNCATED = {1: (5, 4, 4), 2: (15, 11, 7), 3: (34, 23, 10), 4: (65, 42, 13), 5: (111, 69, 16)}


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Choices by measurement stay out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLIP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def reach(make: type[TensorProduct] | object, setting: str, lmax: int, **options: bool) -> Reach:
    return measure_reach(build_first(make, setting_irreps(setting, lmax, **options)))


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize(("truncated", "table"), [(False, FULL), (True, TRUNCATED)])
def test_counts_of_the_literature(name: str, truncated: bool, table: dict[int, tuple[int, int, int]]) -> None:
    """The table of The Price of Freedom (MIMO, one channel), for the operators that it has."""
    for lmax in (1, 2):
        product = build_first(factory("tensor_product", name), setting_irreps("mimo", lmax, truncated=truncated))
        found = measure_reach(product)
        paths, natural, gaunt = table[lmax]
        assert found.residual < 1e-12
        if product.operator == "clebsch_gordan":
            assert (found.natural, found.antisymmetric) == (natural, paths - natural)
            assert found.dimension == paths
        elif product.operator == "gaunt":
            assert (found.natural, found.antisymmetric) == (natural, 0)
            assert found.dimension == gaunt
        else:
            assert found.dimension <= min(paths, len(found.paths))


@pytest.mark.parametrize("lmax", [3, pytest.param(5, marks=pytest.mark.slow)])
def test_counts_of_higher_degrees(lmax: int) -> None:
    for truncated, table in ((False, FULL), (True, TRUNCATED)):
        paths, natural, gaunt = table[lmax]
        assert reach(ClebschGordanDense, "mimo", lmax, truncated=truncated).dimension == paths
        found = reach(GauntGrid, "mimo", lmax, truncated=truncated)
        assert (len(found.paths), found.dimension) == (natural, gaunt)


def test_single_inputs() -> None:
    """L ⊗ L has one path into each degree up to 2L; a Gaunt product keeps the even ones."""
    for lmax in (1, 2, 3):
        assert reach(ClebschGordanDense, "simo", lmax).dimension == 2 * lmax + 1
        assert reach(GauntGrid, "simo", lmax).dimension == lmax + 1
        assert reach(ClebschGordanDense, "siso", lmax).paths == ((lmax, lmax, lmax),)
    assert reach(GauntGrid, "siso", 2).dimension == 1


@pytest.mark.parametrize("name", BACKENDS)
def test_paths_found_are_the_paths_declared(name: str) -> None:
    product = build_first(factory("tensor_product", name), setting_irreps("mimo", 2))
    assert set(measure_reach(product).paths) == set(product.expressivity.paths)


def test_without_weights_the_layers_around_remain() -> None:
    """Fixed coefficients: a scale for each of 3 + 3 inputs and 8 outputs, less two that cancel."""
    irreps = setting_irreps("mimo", 2)
    product = build_first(ClebschGordanDense, irreps, weights="none")
    assert product.weight_numel == 0
    assert measure_reach(product).dimension == 3 + 3 + len(irreps[2]) - 2


class TiedProduct(ClebschGordanDense):
    """Takes a weight for each path and uses their product for all paths."""

    def multiply(self, x1: Tensor, x2: Tensor, weight: Tensor | None) -> Tensor:
        return super().multiply(x1, x2, weight.prod(dim=-1, keepdim=True).expand_as(weight))


def test_the_dimension_is_not_the_number_of_weights() -> None:
    irreps = setting_irreps("mimo", 2)
    found = measure_reach(TiedProduct(*irreps, mode="uuu"))
    assert (found.weights, len(found.paths)) == (19, 19)
    assert found.dimension == 3 + 3 + len(irreps[2]) - 2


class SquaredProduct(ClebschGordanDense):
    def multiply(self, x1: Tensor, x2: Tensor, weight: Tensor | None) -> Tensor:
        return super().multiply(x1, x2, weight) + x1.square().sum(dim=1, keepdim=True)


def test_what_is_not_bilinear_and_equivariant_is_refused() -> None:
    with pytest.raises(ConfigError, match="no bilinear equivariant map"):
        measure_reach(SquaredProduct(*setting_irreps("mimo", 1), mode="uuu"))


def test_needs_one_channel() -> None:
    with pytest.raises(ConfigError, match="one channel"):
        measure_reach(ClebschGordanDense(*setting_irreps("mimo", 1, 2), mode="uuu"))


def test_refusal_tells_the_reason() -> None:
    with pytest.raises(ConfigError, match="share no path"):
        build_first(ClebschGordanDense, (Irreps("0e"), Irreps("0e"), Irreps("3o")))


def test_settings() -> None:
    assert [str(x) for x in setting_irreps("siso", 1, 4)] == ["4x1o", "4x1o", "4x1e"]
    assert str(setting_irreps("simo", 1)[2]) == "1x0e+1x1e+1x2e"
    assert str(setting_irreps("simo", 1, antisymmetric=False)[2]) == "1x0e+1x2e"
    assert str(setting_irreps("mimo", 1)[2]) == "1x0e+1x1o+1x1e+1x2e"
    assert str(setting_irreps("mimo", 1, antisymmetric=False, truncated=True)[2]) == "1x0e+1x1o"
    for setting in SETTINGS:
        assert all(irreps.lmax <= 2 for irreps in setting_irreps(setting, 2, truncated=True))


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        (("mino", 2), {}, "Did you mean 'mimo'"),
        (("mimo", -1), {}, "degree >= 0"),
        (("mimo", 1, 0), {}, "channels >= 1"),
        (("siso", 3), {"antisymmetric": False}, "antisymmetric path 3 ⊗ 3 → 3"),
    ],
)
def test_settings_that_do_not_exist(arguments: tuple[object, ...], options: dict[str, bool], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        setting_irreps(*arguments, **options)
