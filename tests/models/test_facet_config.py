"""Mistakes in a model's configuration: each one clear sentence."""

from __future__ import annotations

from typing import Any

import pytest

from mlip.core.errors import ConfigError
from mlip.models.base import sort_elements
from mlip.models.build import build_model
from tests.components import SMALL, compose_model

SPLINE = "mlip.ops.radial.bspline.BSpline"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"irreps_hidden": "sixty-four"}, "cannot be read"),
        ({"irreps_hidden": ""}, "must start with scalars"),
        ({"irreps_hidden": "4x1o"}, "must start with scalars"),
        ({"irreps_hidden": "4x0e+4x1e"}, r"parity \(-1\)\^l"),
        ({"irreps_hidden": "4x0e+2x2e+2x1o"}, "list each degree once"),
        ({"irreps_hidden": "4x0e+4x0e"}, "list each degree once"),
        ({"irreps_hidden": "0x0e+4x1o"}, "must start with scalars"),
        ({"elements": []}, "at least one element"),
        ({"elements": ["H", "Cu", "Xy"]}, "'Xy' is not a chemical symbol"),
        ({"elements": ["h"]}, "'h' is not a chemical symbol"),
        ({"elements": ["H", "S"]}, "atomic_energies lacks S"),
        ({"cutoff": 0.0}, "cutoff must be a positive number"),
        ({"cutoff": -4.0}, "cutoff must be a positive number"),
        ({"cutoff": float("nan")}, "cutoff must be a positive number"),
        ({"cutoff": float("inf")}, "cutoff must be a positive number"),
        ({"cutoff": "four"}, "cannot be built from these options"),
        ({"num_neighbors": 0}, "num_neighbors > 0"),
        ({"num_layers": 0}, "num_layers >= 1"),
        ({"num_heads": 3}, "does not divide"),
        ({"num_heads": 0}, "does not divide"),
        ({"lmax_edge": -1}, "share no path"),
        ({"mixer_resolution": [0, 5]}, "cannot be built"),
        ({"mixer_resolution": 7}, "cannot be built"),
        ({"radial": {"_target_": SPLINE, "_partial_": True, "num_basis": 3}}, "num_basis >= 4"),
        ({"radial": {"_target_": SPLINE, "_partial_": True, "num_bases": 8}}, "Did you mean 'num_basis'"),
        ({"radial": {"_target_": SPLINE, "num_basis": 8}}, "needs the option.* cutoff"),
        ({"radial": "bspline"}, "not callable"),
        ({"activation": "silu"}, "cannot be built"),
        ({"irreps_hiden": "4x0e"}, "Did you mean 'irreps_hidden'"),
        ({"head": {"_target_": "mlip.nn.heads.energy.EnergyHead", "_partial_": True}}, "atomic_energies"),
        ({"tensor_product": {"_target_": "os.system", "_partial_": True}}, "not allowed"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_mistake(change: dict[str, Any], words: str) -> None:
    config = {**compose_model("facet", *SMALL), **change}
    with pytest.raises(ConfigError, match=words):
        build_model(config)


@pytest.mark.parametrize("config", [None, 5, [], "facet", {}, {"_target_": "mlip.nn.activations.SiLU"}])
def test_what_is_no_model(config: object) -> None:
    with pytest.raises(ConfigError, match="_target_"):
        build_model(config)


def test_elements_are_sorted_and_distinct() -> None:
    assert sort_elements(["O", "H", "O", "C"]) == ("H", "C", "O")


def test_message_lists_the_known_elements() -> None:
    model = build_model(compose_model("facet", *SMALL))
    with pytest.raises(Exception, match="knows H, C, O; the structure contains S, Au") as caught:
        model.check_elements([1, 16, 79, 16])
    assert type(caught.value).__name__ == "StructureError"
