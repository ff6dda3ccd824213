"""The choice of a backend by measurement: what is measured, kept, read back and refused."""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from e3nn.o3 import Irreps

from mlip.core.errors import ConfigError
from mlip.ops.layout import natural_irreps
from mlip.ops.tensor_product import auto as module
from mlip.ops.tensor_product.auto import Auto
from mlip.ops.tensor_product.base import TensorProduct
from mlip.ops.tensor_product.choices import choice_file
from mlip.testing.tensor_products import random_inputs
from tests.components import factory

IRREPS = natural_irreps(1, 2)
FILTER = natural_irreps(1)
NAMES = ("clebsch_gordan_dense", "clebsch_gordan_sparse")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLIP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], int, torch.dtype]]:
    """Replace the stopwatch: the last candidate always wins. Lists what was measured."""
    calls = []

    def measure(
        products: dict[str, TensorProduct], rows: int, dtype: torch.dtype, device: torch.device
    ) -> dict[str, float]:
        calls.append((list(products), rows, dtype))
        return {name: 1.0 / (k + 1) for k, name in enumerate(products)}

    monkeypatch.setattr(module, "_measure", measure)
    return calls


def candidates(*names: str) -> dict[str, Callable[..., TensorProduct]]:
    return {name: factory("tensor_product", name) for name in names}


def make(*arguments: Any, names: tuple[str, ...] = NAMES, **options: Any) -> Auto:
    return Auto(*(arguments or (IRREPS, FILTER, IRREPS)), candidates=candidates(*names), **options)


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.json"))


def test_it_measures_and_delegates() -> None:
    product = make(rows=8)
    assert isinstance(product, TensorProduct)
    assert set(product.timings) == set(NAMES)
    assert product.choice == min(product.timings, key=product.timings.__getitem__)
    assert all(seconds > 0 for seconds in product.timings.values())
    other = factory("tensor_product", product.choice)(IRREPS, FILTER, IRREPS)
    for name in ("irreps_out", "weight_numel", "operator", "expressivity", "paths", "mode", "weights", "normalization"):
        assert getattr(product, name) == getattr(other, name)
    product.double(), other.double()
    inputs = random_inputs(product)
    assert torch.equal(product(*inputs), other(*inputs))
    edges = (torch.tensor([0, 1, 2, 3, 4]), torch.tensor([0, 0, 1, 2, 4]), 5)
    assert torch.equal(product.convolve(*inputs, *edges), other.convolve(*inputs, *edges))
    assert not product.state_dict()
    assert not list(product.parameters())


def test_copies_are_the_same_product(measured: list) -> None:
    product = make().double()
    inputs = random_inputs(product)
    for copy in (deepcopy(product), pickle.loads(pickle.dumps(product))):
        assert copy.choice == product.choice
        assert torch.equal(copy(*inputs), product(*inputs))
    with pytest.raises(AttributeError, match="nothing_like_this"):
        product.nothing_like_this  # noqa: B018


@pytest.mark.parametrize("name", ["auto", "auto_gaunt"])
@pytest.mark.parametrize("mode", ["uuu", "uvu", "uvw"])
def test_shipped_candidates_are_of_one_operator(name: str, mode: str) -> None:
    second = FILTER if mode == "uvu" else IRREPS
    product = factory("tensor_product", name)(IRREPS, second, IRREPS, mode=mode, rows=4)
    assert len(product.timings) > 1
    promised = factory("tensor_product", name)(IRREPS, FILTER, IRREPS, rows=4, filter_is_harmonics=True)
    assert len(promised.timings) > 2
    assert promised.filter_is_harmonics
    assert not product.filter_is_harmonics


def test_the_choice_is_kept(cache: Path, measured: list, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        first, second = make(), make()
    assert len(measured) == 1
    assert (
        (first.choice, first.timings) == (second.choice, second.timings) == (NAMES[1], {NAMES[0]: 1.0, NAMES[1]: 0.5})
    )
    assert len(files(cache)) == 1
    assert [NAMES[1] in record.getMessage() for record in caplog.records] == [True, True]


def test_a_kept_choice_builds_the_chosen_backend_only(measured: list) -> None:
    make()
    refuses = candidates(*NAMES) | {NAMES[0]: partial(factory("tensor_product", NAMES[0]).func)}
    product = Auto(IRREPS, FILTER, IRREPS, candidates=refuses)
    assert type(product.backend).__name__ == "ClebschGordanSparse"
    assert len(measured) == 1


@pytest.mark.parametrize(
    "options",
    [
        {"rows": 100},
        {"dtype": "float64"},
        {"weights": "path"},
        {"normalization": "norm"},
        {"names": (*NAMES[::-1], "clebsch_gordan")},
    ],
    ids=lambda options: next(iter(options)),
)
def test_another_question_is_measured(options: dict[str, Any], measured: list, cache: Path) -> None:
    make()
    make(**options)
    assert len(measured) == len(files(cache)) == 2


@pytest.mark.parametrize(("rows", "bucket"), [(1, 1), (3, 4), (1000, 1024), (1100, 1024), (1500, 2048)])
def test_rows_are_rounded_to_a_power_of_two(rows: int, bucket: int, measured: list) -> None:
    make(rows=rows)
    make(rows=bucket)
    assert [call[1] for call in measured] == [bucket]


def test_options_of_a_candidate_are_part_of_the_question(measured: list) -> None:
    for compiled in (False, True):
        Auto(
            IRREPS,
            FILTER,
            IRREPS,
            candidates={
                "a": factory("tensor_product", NAMES[0]),
                "b": partial(factory("tensor_product", NAMES[1]), compile=compiled),
            },
        )
    assert len(measured) == 2


def test_threads_are_part_of_the_question(measured: list, monkeypatch: pytest.MonkeyPatch) -> None:
    make()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    make()
    assert len(measured) == 2


DAMAGE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no mapping": lambda stored: [1],
    "another question": lambda stored: stored | {"question": stored["question"] | {"rows": 3}},
    "unknown choice": lambda stored: stored | {"choice": "so3"},
    "no timings": lambda stored: {k: v for k, v in stored.items() if k != "timings"},
    "negative time": lambda stored: stored | {"timings": stored["timings"] | {NAMES[0]: -1.0}},
    "time of another kind": lambda stored: stored | {"timings": stored["timings"] | {NAMES[0]: "fast"}},
    "unhashable choice": lambda stored: stored | {"choice": ["a"]},
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_measured_again_and_replaced(damage: str, cache: Path, measured: list) -> None:
    make()
    (path,) = files(cache)
    good = path.read_text()
    path.write_text(json.dumps(DAMAGE[damage](json.loads(good))))
    assert make().choice == NAMES[1]
    assert len(measured) == 2
    assert path.read_text() == good


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"null", b"[" * 100_000])
def test_a_file_that_is_no_json_is_measured_again(content: bytes, cache: Path, measured: list) -> None:
    make()
    (path,) = files(cache)
    path.write_bytes(content)
    make()
    make()
    assert len(measured) == 2


def test_a_folder_that_cannot_be_written_to(cache: Path, measured: list, caplog: pytest.LogCaptureFixture) -> None:
    # A file where the folder should be: permissions do not stop root.
    cache.parent.mkdir(exist_ok=True)
    cache.write_text("in the way")
    assert make().choice == make().choice == NAMES[1]
    assert len(measured) == 2
    assert "will be measured again" in caplog.text


def test_only_one_candidate_is_not_measured(measured: list, cache: Path) -> None:
    product = make(names=NAMES[:1])
    assert (product.choice, product.timings) == (NAMES[0], {})
    assert not measured
    assert not files(cache)


def test_candidates_that_refuse_are_left_out(measured: list) -> None:
    odd = Irreps("2x0e+2x1e")
    product = Auto(
        odd, odd, odd, mode="uuu", candidates=candidates(*NAMES) | {"gaunt": factory("tensor_product", "gaunt_grid")}
    )
    assert set(product.timings) == set(NAMES)


def test_all_refusing_is_an_error_that_says_why() -> None:
    with pytest.raises(ConfigError) as caught:
        make(Irreps("2x0e"), Irreps("1o"), Irreps("2x2e"))
    said = str(caught.value)
    assert said.startswith("None of the candidates (clebsch_gordan_dense, clebsch_gordan_sparse) can do this: ")
    # One reason, not one of each candidate.
    assert said.count("share no path") == 1
    assert said.endswith(".")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("clebsch_gordan_dense", "gaunt_grid"), "operator is clebsch_gordan for clebsch_gordan_dense and gaunt for"),
        (("clebsch_gordan_dense", "so2"), "harmonic_candidates"),
        (("so2", "clebsch_gordan_dense"), "harmonic_candidates"),
    ],
)
def test_different_operators_are_refused(names: tuple[str, ...], words: str, measured: list, cache: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        make(names=names)
    assert not measured
    assert not files(cache)


def test_a_stored_choice_that_refuses_is_measured_again(cache: Path, measured: list) -> None:
    def stubborn(*arguments: Any) -> TensorProduct:
        if (cache / "refuse").exists():
            raise ConfigError("not any more")
        return factory("tensor_product", NAMES[1])(*arguments)

    both = {NAMES[0]: factory("tensor_product", NAMES[0]), "stubborn": stubborn}
    assert Auto(IRREPS, FILTER, IRREPS, candidates=both).choice == "stubborn"
    (cache / "refuse").touch()
    assert Auto(IRREPS, FILTER, IRREPS, candidates=both).choice == NAMES[0]


def test_a_model_for_a_gpu_can_be_built_without_one(measured: list, caplog: pytest.LogCaptureFixture) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert make(device="cuda").choice == NAMES[0]
    assert not measured
    assert "is not here" in caplog.text


def test_a_cache_of_nobody_is_measured_again(measured: list, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLIP_CACHE", "~nobody-has-this-name/cache")
    make()
    assert make().choice == NAMES[1]
    assert len(measured) == 2


@pytest.mark.parametrize(
    ("option", "value"),
    [("rows", 0), ("rows", 2.5), ("rows", True), ("dtype", "float16"), ("device", "gpu"), ("device", None)],
)
def test_wrong_options_are_refused(option: str, value: object) -> None:
    with pytest.raises(ConfigError, match=option):
        make(**{option: value})


def test_measuring_leaves_no_trace(cache: Path) -> None:
    """Neither the random state nor the dtype of the product is touched, and no_grad is no obstacle."""
    torch.manual_seed(0)
    before = torch.get_rng_state()
    with torch.no_grad():
        product = make(rows=4, dtype="float32")
    assert torch.equal(torch.get_rng_state(), before)
    assert all(buffer.dtype == torch.float64 for buffer in product.buffers() if buffer.is_floating_point())
    with torch.inference_mode():
        make(rows=64)
    assert len(files(cache)) == 2


def test_the_file_says_what_was_measured(cache: Path, measured: list) -> None:
    product = make()
    (path,) = files(cache)
    stored = json.loads(path.read_text())
    assert stored["choice"] == product.choice
    assert stored["question"]["machine"]["torch"] == torch.__version__
    assert path == choice_file(stored["question"])
