"""Building from configuration: what is refused, and with which sentence."""

from __future__ import annotations

from functools import partial

import pytest

from mlip.core import build as build_module
from mlip.core.build import build, locate
from mlip.core.errors import ConfigError
from mlip.ops.envelope.polynomial import Polynomial

POLYNOMIAL = "mlip.ops.envelope.polynomial.Polynomial"
DIRECT_FORCES = "mlip.nn.heads.direct_forces.DirectForces"


def test_builds_nested_objects_inner_first() -> None:
    built = build({"list": [{"_target_": POLYNOMIAL, "cutoff": 4.0}], "value": 3})
    assert isinstance(built["list"][0], Polynomial)
    assert built["list"][0].cutoff == 4.0
    assert built["value"] == 3


def test_partial_waits_for_the_rest() -> None:
    waiting = build({"_target_": POLYNOMIAL, "_partial_": True, "p": 4})
    assert isinstance(waiting, partial)
    assert waiting(cutoff=3.0).p == 4


def test_extra_arguments_go_to_the_outermost_target() -> None:
    assert build({"_target_": POLYNOMIAL}, cutoff=2.0).cutoff == 2.0


def test_configuration_is_not_changed() -> None:
    config = {"_target_": POLYNOMIAL, "cutoff": 4.0}
    build(config)
    assert config == {"_target_": POLYNOMIAL, "cutoff": 4.0}


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "subprocess.run",
        "builtins.eval",
        "mlipx.models.Facet",
        "torch.load",
        "mlip",
        "mlip.core.build.import_module",  # imported into our module from elsewhere
        "mlip.models.convolution_network.Irreps",  # a class of e3nn
        "mlip.data.graph.Data",
        "mlip.core.files.os.system",
        "mlip.ops.envelope.polynomial.Polynomial.__init__.__globals__",
        "mlip.no_such_module.Thing",
        "mlip.ops.envelope.polynomial.Missing",
        "",
        7,
        None,
    ],
)
def test_disallowed_targets_are_refused_without_running(target: object) -> None:
    with pytest.raises(ConfigError):
        build({"_target_": target, "command": "false"})


def test_unknown_class_gets_a_near_match() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'Polynomial'"):
        locate("mlip.ops.envelope.polynomial.Polynomal")


def test_unknown_option_gets_a_near_match() -> None:
    with pytest.raises(ConfigError, match=r"no option 'cutof'. Did you mean 'cutoff'\? It takes: cutoff, p"):
        build({"_target_": POLYNOMIAL, "cutof": 4.0})


@pytest.mark.parametrize("value", ["no", "off", 0, None])
def test_words_that_python_counts_as_true_are_no_switches(value: object) -> None:
    with pytest.raises(ConfigError, match="DirectForces needs remove_net_force to be true or false, got"):
        build({"_target_": DIRECT_FORCES, "_partial_": True, "remove_net_force": value})


def test_unknown_option_of_a_partial_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="no option 'power'"):
        build({"_target_": POLYNOMIAL, "_partial_": True, "power": 4})


def test_missing_option_is_named() -> None:
    with pytest.raises(ConfigError, match="needs the option"):
        build({"_target_": POLYNOMIAL})


@pytest.mark.parametrize("cutoff", ["five", None, [4.0]])
def test_value_of_a_wrong_type_is_one_sentence(cutoff: object) -> None:
    with pytest.raises(ConfigError, match="Polynomial cannot be built"):
        build({"_target_": POLYNOMIAL, "cutoff": cutoff})


def test_plug_in_packages_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError):
        locate("fractions.Fraction")
    monkeypatch.setattr(build_module, "allowed_packages", lambda: ("mlip", "fractions"))
    assert locate("fractions.Fraction")(1, 2) == 0.5
