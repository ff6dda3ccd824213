"""Files that are no SevenNet checkpoints or not the ones they claim to be, and names of models: one sentence each."""

from __future__ import annotations

import copy
import os
import pickle
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from mlip.calculators.ase import MLIPCalculator
from mlip.core.errors import ModelFileError
from mlip.models.foreign.published import installed_file
from mlip.models.foreign.sevennet import read_sevennet
from mlip.models.model_file import load_model, save_model
from tests.models import sevennet_checkpoint as made


def settings(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content["config"].update(changes)


def without(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda content: content["config"].pop(name)


def weights(name: str, change: Callable[[torch.Tensor], torch.Tensor] | None) -> Callable[[dict[str, Any]], None]:
    def apply(content: dict[str, Any]) -> None:
        state = content["model_state_dict"]
        value = state.pop(name, torch.zeros(3))
        if change is not None:
            state[name] = change(value)

    return apply


SYMBOL = "1_convolution.convolution._compiled_main_left_right._w3j_1_1_1"
MISTAKES: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
    (lambda content: content.pop("config"), "no 'config'"),
    (lambda content: content.update(model_state_dict=[1, 2]), "no 'model_state_dict'"),
    (settings(_model_type="MACE"), "_model_type = 'MACE' is not supported"),
    (settings(is_parity=True), "is_parity = True is not supported, only False is"),
    (settings(readout_as_fcn=True), "readout_as_fcn = True"),
    (settings(act_radial="ssp"), "act_radial = 'ssp'"),
    (settings(act_gate={"e": "ssp"}), "act_gate.e = 'ssp'"),
    (settings(act_scalar={}), "lack 'e'"),
    (settings(radial_basis={"radial_basis_name": "gauss"}), "radial_basis_name = 'gauss'"),
    (settings(radial_basis={"radial_basis_name": "bessel", "bessel_basis_num": -3}), "bessel_basis_num"),
    (settings(cutoff_function={"cutoff_function_name": "cosine"}), "'cosine' is not supported"),
    (settings(cutoff_function={"cutoff_function_name": "XPLOR", "cutoff_on": 7.0}), "'cutoff_on' is 7.0"),
    (settings(cutoff=-1.0), "'cutoff' is -1.0"),
    (settings(cutoff="five"), "'cutoff' is 'five'"),
    (settings(version="new"), "no version"),
    (settings(_type_map={29: 0, 1: 1, 8: 1}), "does not number chemical elements"),
    (settings(_type_map={200: 0, 1: 1, 8: 2}), "does not number chemical elements"),
    (settings(irreps_manual=["4x0e", "5x0e+3x1e", "4x0e+3x1e", "4x0e"]), "not the same behind every layer"),
    (settings(irreps_manual=["four", "4x0e+3x1e", "4x0e+3x1e", "4x0e"]), "no list of irreps"),
    (settings(weight_nn_hidden_neurons=[64, "64"]), "weight_nn_hidden_neurons"),
    (settings(self_connection_type=["linear", "nequip", "linear"]), "self_connection_type"),
    (settings(use_modality=True, _modal_map={1: 0}), "does not name the levels of theory"),
    (settings(use_bias_in_linear=True), "'use_bias_in_linear' is true, and its weights lack 'reduce_.*bias'"),
    (weights("reducing nn input to hidden.linear.bias", lambda x: x), "do not explain: reduce_input_to_hidden"),
    (settings(num_convolution_layer=2, irreps_manual=["4x0e", "4x0e+3x1e+2x2e", "4x0e"]), "do not explain|shape"),
    (settings(channel=4, irreps_manual=False), "have shape"),
    (settings(use_modality="no"), "'use_modality' is 'no'"),
    (settings(_normalize_sph="False"), "'_normalize_sph' is 'False'"),
    (settings(use_bias_in_linear=torch.ones(3)), "'use_bias_in_linear' is tensor"),
    (settings(optimize_by_reduce=False), "optimize_by_reduce = False is not supported"),
    (settings(lmax=1_000), "'lmax' is 1000"),
    (settings(lmax_edge="2"), "'lmax_edge' is '2'"),
    (settings(lmax_node=10**12), "'lmax_node' is 1000000000000"),
    (settings(weight_nn_hidden_neurons=[10**12]), "weight_nn_hidden_neurons"),
    (settings(cutoff_function={"cutoff_function_name": torch.ones(2)}), "'cutoff_function_name' is tensor"),
    (without("cutoff"), "lack 'cutoff'"),
    (without("act_scalar"), "lack 'act_scalar'"),
    (without("_type_map"), "lack '_type_map'"),
    (weights("onehot_to_feature_x.linear.weight", None), "lack 'onehot_to_feature_x.linear.weight'"),
    (
        weights("onehot_to_feature_x.linear.weight", lambda x: x[:-1]),
        r"shape \(11,\), and its settings ask for \(12,\)",
    ),
    (weights("onehot_to_feature_x.linear.weight", lambda x: x * torch.nan), "are not finite"),
    (weights("onehot_to_feature_x.linear.weight", lambda x: x.long()), "are not finite floating-point"),
    (weights("5_convolution.denominator", lambda x: x), "do not explain: 5_convolution.denominator"),
    (weights("0 convolution.denumerator", lambda x: -x), "divided by -5.0"),
    (weights("rescale atomic energy.scale", lambda x: 0 * x), "scales energies by 0.0"),
    (weights(SYMBOL.replace("1_conv", "1 conv"), lambda x: x + 0.1), r"3j symbol \(1, 1, 1\)"),
    (lambda content: content["model_state_dict"].update(extra=[1.0]), "no tensors by name"),
]


@pytest.mark.parametrize(("change", "words"), MISTAKES, ids=[words for _, words in MISTAKES])
def test_what_is_no_such_checkpoint(change: Callable[[dict[str, Any]], Any], words: str, tmp_path: Path) -> None:
    content = copy.deepcopy(made.checkpoint(made.OLD))
    change(content)
    torch.save(content, tmp_path / "checkpoint.pth")
    with pytest.raises(ModelFileError, match=words) as caught:
        read_sevennet(tmp_path / "checkpoint.pth")
    assert "checkpoint.pth' is no SevenNet checkpoint that can be imported: " in str(caught.value)
    assert str(caught.value).endswith(".")


def test_levels_of_theory_are_named(tmp_path: Path) -> None:
    """Such a file is a checkpoint: what is missing is a word."""
    path = made.write(tmp_path / "checkpoint.pth", made.NEW)
    for wanted, end in ((None, "got none."), ("pbe", "got pbe. Did you mean 'PBE'?")):
        with pytest.raises(ModelFileError) as caught:
            read_sevennet(path, wanted)
        assert str(caught.value) == (
            f"'{path}' holds the levels of theory R2SCAN and PBE, and a model file has one: choose it with "
            f"--modality R2SCAN or --modality PBE; {end}"
        )
    path = made.write(tmp_path / "checkpoint.pth", made.OLD)
    with pytest.raises(ModelFileError, match=r"checkpoint\.pth' has one level of theory only, .* leave --modality out"):
        read_sevennet(path, "PBE")


@pytest.mark.parametrize("name", ["reduce_hidden_to_energy", "1_self_interaction_2", "0_self_interaction_1"])
def test_biases_that_the_settings_promise_are_not_zeros(name: str, tmp_path: Path) -> None:
    for absent in (None, torch.zeros(0)):
        content = made.checkpoint(made.NEW)
        content["model_state_dict"].pop(f"{name}.linear.bias")
        if absent is not None:
            content["model_state_dict"][f"{name}.linear.bias"] = absent
        torch.save(content, tmp_path / "checkpoint.pth")
        with pytest.raises(ModelFileError, match=f"{name}.linear.bias"):
            read_sevennet(tmp_path / "checkpoint.pth", "PBE")


class Malicious:
    """What a stranger's file may hold."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("was_run",)


def test_nothing_of_a_file_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"config": Malicious(), "model_state_dict": {}}, "checkpoint.pth")
    Path("plain.pth").write_bytes(pickle.dumps(Malicious()))
    for name in ("checkpoint.pth", "plain.pth"):
        with pytest.raises(ModelFileError, match=r"names 'posix\.mkdir'|does not begin"):
            read_sevennet(name)
    assert not Path("was_run").exists()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_truncated_files(share: float, tmp_path: Path) -> None:
    whole = made.write(tmp_path / "whole.pth", made.OLD).read_bytes()
    (tmp_path / "part.pth").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ModelFileError, match=r"part\.pth"):
        read_sevennet(tmp_path / "part.pth")


def test_files_of_other_kinds(tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("SevenNet")
    torch.save([1, 2], tmp_path / "list.pth")
    for name, words in (("text.pth", "text.pth"), ("list.pth", "holds a list"), ("absent.pth", "Cannot read")):
        with pytest.raises(ModelFileError, match=words):
            read_sevennet(tmp_path / name)


def test_a_package_that_is_not_here() -> None:
    if find_spec("sevenn") is not None:
        pytest.skip("the package is installed")
    with pytest.raises(ModelFileError, match="pip install sevenn"):
        installed_file("sevennet-0")


def test_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLIP_MODELS", str(tmp_path / "models"))
    monkeypatch.chdir(tmp_path)
    model = read_sevennet(made.write(tmp_path / "checkpoint.pth", made.OLD))
    save_model(tmp_path / "models" / "my-model.safetensors", model)
    assert MLIPCalculator("my-model").model.elements == ("H", "O", "Cu")
    assert load_model("my-model").num_parameters == model.num_parameters
    for name, words in (
        ("sevennet-0", r"pip install 'sevenn' .*, then mlip import sevennet-0"),
        ("sevennet-mf-0", "choose one of sevennet-mf-0-pbe, sevennet-mf-0-r2scan"),
        ("sevennet-1", "Did you mean 'sevennet-0'"),
        ("my-modell", "Did you mean 'my-model'"),
        ("models/my-model", "no model file 'models/my-model'"),
        ("my-model.safetensors", "no model file 'my-model.safetensors'"),
    ):
        with pytest.raises(ModelFileError, match=words):
            MLIPCalculator(name)
    # A file of that name in the working folder comes first.
    save_model("my-model", model)
    Path("models", "my-model.safetensors").unlink()
    assert load_model("my-model").elements == ("H", "O", "Cu")
