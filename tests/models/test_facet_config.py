"""Mistakes in a model's configuration: each one clear sentence."""

from __future__ import annotations

from typing import Any

import pytest

from mlip.core.errors import ConfigError
from mlip.models.base import sort_elements
from mlip.models.build import build_model
from tests.components import SMALL, compose_model

SPLINE = "mlip.ops.radial.bspline.BSpline"
MIXER = {"_target_": "mlip.nn.nonlinearity.sphere_mixer.SphereMixer", "_partial_": True}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"irreps_hidden": "sixty-four"}, "cannot be read"),
        ({"irreps_hidden": ""}, "must start with scalars"),
        ({"irreps_hidden": "4x1o"}, "must start with scalars"),
        ({"irreps_hidden": "4x0e+4x1e"}, "1e, which no layer reaches"),
        ({"irreps_hidden": "4x0e+4x1o+4x1e"}, r"parities \(-1\)\^l"),
        ({"irreps_hidden": "4x0e+4x1o", "edge_parity": "even"}, "odd parities, which edge_parity=even never"),
        ({"edge_parity": "odd"}, "edge_parity must be one of natural, even"),
        ({"irreps_hidden": "4x0e+2x2e+2x1o"}, "list each irrep once"),
        ({"irreps_hidden": "4x0e+4x0e"}, "list each irrep once"),
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
        ({"num_neighbors": float("inf")}, "num_neighbors > 0"),
        ({"neighbor_exponent": float("nan")}, "neighbor_exponent must be a number"),
        ({"num_layers": 0}, "num_layers must be a whole number from 1"),
        ({"initial_messages": 0.0}, "initial_messages > 0"),
        ({"num_layers": True}, "num_layers must be a whole number from 1"),
        ({"num_outputs": 0}, "num_outputs must be null or 1 to"),
        ({"num_outputs": True}, "num_outputs must be null or 1 to"),
        ({"nonlinearity": {**MIXER, "num_heads": 3}}, "does not divide"),
        ({"nonlinearity": {**MIXER, "num_heads": 0}}, "does not divide"),
        ({"lmax_edge": -1}, "lmax_edge must be a whole number"),
        ({"lmax_edge": 0}, "1o, 2e, which no layer reaches"),
        ({"nonlinearity": {**MIXER, "resolution": [0, 5]}}, "resolution"),
        ({"nonlinearity": {**MIXER, "resolution": [5]}}, "resolution"),
        ({"nonlinearity": {**MIXER, "resolution": 7}}, "resolution"),
        ({"nonlinearity": {"_target_": "mlip.nn.nonlinearity.gate.Gate"}}, "needs the option.* irreps_out"),
        ({"radial": {"_target_": SPLINE, "_partial_": True, "num_basis": 3}}, "num_basis >= 4"),
        ({"radial": {"_target_": SPLINE, "_partial_": True, "num_bases": 8}}, "Did you mean 'num_basis'"),
        ({"radial": {"_target_": SPLINE, "num_basis": 8}}, "needs the option.* cutoff"),
        ({"radial": "bspline"}, "radial must be a component"),
        ({"activation": "silu"}, "activation must be"),
        ({"irreps_hiden": "4x0e"}, "Did you mean 'irreps_hidden'"),
        ({"head": {"energy": {"_target_": "mlip.nn.heads.energy.EnergyHead", "_partial_": True}}}, "atomic_energies"),
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
    with pytest.raises(Exception, match="contains S, Au, which the model does not know; it knows H, C, O") as caught:
        model.check_elements([1, 16, 79, 16])
    assert type(caught.value).__name__ == "StructureError"
