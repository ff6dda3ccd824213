"""``mlip tensor-products`` and ``mlip bench``: output, files, and mistakes in one sentence."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from mlip.benchmark.options import parse_degrees
from mlip.benchmark.results import Measurement
from mlip.cli.bench import _table
from mlip.cli.main import app
from mlip.cli.tensor_products import tensor_product_factories
from mlip.core.errors import ConfigError
from tests.components import component_names

TWO = ("--backends", "clebsch_gordan_dense,gaunt_grid")


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Choices by measurement stay out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLIP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _few_pictures(request: pytest.FixtureRequest) -> None:
    if request.function is not test_expressivity_table_and_files:
        request.getfixturevalue("no_pictures")


def call(*words: object, status: int = 0) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "100"})
    assert result.exit_code == status, result.output
    return result.output


def expressivity(*words: object, status: int = 0) -> str:
    return call("tensor-products", "expressivity", *words, status=status)


def bench(folder: Path, *words: object, status: int = 0) -> str:
    # Later options win.
    size = ("--lmax", 1, "--channels", 2, "--rows", 6, "--rounds", 1, "--out", folder)
    return call("bench", "tensor-products", *size, *words, status=status)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def test_every_configuration_is_a_backend() -> None:
    assert list(tensor_product_factories()) == component_names("tensor_product")


def test_expressivity_table_and_files(tmp_path: Path) -> None:
    text = expressivity("--lmax", 2, *TWO, "--csv", tmp_path / "e.csv", "--plot", tmp_path / "e.png")
    assert all(setting in text for setting in ("MIMO", "SIMO", "SISO"))
    assert re.search(r"clebsch_gordan_dense .* 14\+5 +19 \(19\)", text)
    assert re.search(r"gaunt_grid .* 14\+0 +9 \(9\)", text)
    found = {(row["backend"], row["setting"]): row for row in rows_of(tmp_path / "e.csv")}
    assert found["clebsch_gordan_dense", "simo"]["dimension"] == "5"
    assert found["gaunt_grid", "mimo"]["odd_paths"] == "0"
    assert float(found["gaunt_grid", "mimo"]["flops"]) > 0
    assert (tmp_path / "e.png").read_bytes().startswith(b"\x89PNG")


def test_truncated_outputs() -> None:
    assert re.search(r"gaunt_grid .* 11\+0 +7 \(7\)", expressivity("--lmax", 2, "--truncate", *TWO))


def test_refusals_are_footnotes(tmp_path: Path) -> None:
    text = expressivity("--lmax", 2, "--backends", "so2", "--csv", tmp_path / "e.csv")
    assert "so2: SO2 reads the direction" in text
    assert "as a convolution" in text
    siso = next(row for row in rows_of(tmp_path / "e.csv") if row["setting"] == "siso")
    assert "1o" in siso["reason"]
    assert siso["dimension"] == ""


def test_benchmark_writes_and_resumes(tmp_path: Path) -> None:
    text = bench(tmp_path, "--lmax", 1, "--passes", "forward,backward", *TWO)
    assert "MIMO L=1, backward" in text
    assert "faster than e3nn" in text
    found = rows_of(tmp_path / "results.csv")
    assert len(found) == 2 * 3
    assert {row["backend"] for row in found} == {"e3nn", "clebsch_gordan_dense", "gaunt_grid"}
    assert {path.name for path in tmp_path.glob("*.png")} == {
        "mimo_time.png",
        "mimo_time_per_path.png",
        "mimo_time_per_dimension.png",
    }
    again = bench(tmp_path, "--lmax", "1-2", "--passes", "forward,backward", *TWO)
    assert "MIMO L=1: taken from" in again
    assert rows_of(tmp_path / "results.csv")[: len(found)] == found
    assert len(rows_of(tmp_path / "results.csv")) == 2 * len(found)
    assert "another plan" in bench(tmp_path, "--lmax", "1", "--rows", 5, status=1)


def test_all_settings_and_a_setting_without_natural_path(tmp_path: Path) -> None:
    text = bench(tmp_path, "--setting", "all", "--lmax", 1, "--passes", "forward", *TWO)
    assert "SISO L=1: SISO of the odd degree 1" in text
    assert {row["setting"] for row in rows_of(tmp_path / "results.csv")} == {"mimo", "simo"}
    both = bench(tmp_path / "b", "--setting", "siso", "--lmax", 1, "--antisymmetric", "--passes", "forward", *TWO)
    assert "SISO L=1, forward" in both


def test_convolution_includes_edge_frames(tmp_path: Path) -> None:
    bench(tmp_path, "--operator", "convolution", "--lmax", 1, "--passes", "forward", "--backends", "so2")
    found = {row["backend"]: row for row in rows_of(tmp_path / "results.csv")}
    assert float(found["so2"]["error"]) < 1e-5
    assert found["so2"]["oracle"] == "e3nn"


def test_many_body(tmp_path: Path) -> None:
    text = bench(tmp_path, "--operator", "many-body", "--lmax", 1, "--passes", "forward")
    assert all(name[:16] in text for name in component_names("many_body"))
    assert "repeated products" in text


def test_automatic_choice_fills_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmark asks what a model of that size would ask."""
    monkeypatch.setenv("MLIP_CACHE", str(tmp_path / "cache"))
    bench(tmp_path / "run", "--lmax", 1, "--operator", "convolution", "--passes", "forward", "--backends", "auto")
    row = next(row for row in rows_of(tmp_path / "run" / "results.csv") if row["backend"] == "auto")
    assert row["note"].startswith("chose ")
    kept = [path.read_text() for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert any("2x0e+2x1o" in text and row["note"].removeprefix("chose ") in text for text in kept)


def test_protocol_of_the_paper(tmp_path: Path) -> None:
    """Given sizes win over those of the protocol, or the test would take minutes."""
    size = ("--channels", 2, "--rows", 6, "--lmax", 1, "--out", tmp_path)
    call("bench", "tensor-products", "--paper", *size, *TWO)
    found = rows_of(tmp_path / "results.csv")
    assert {row["setting"] for row in found} == {"mimo", "simo"}
    assert {row["pass"] for row in found} == {"forward"}
    # Outputs up to 2L: the path 1 ⊗ 1 → 2 is in.
    assert {row["paths"] for row in found if row["setting"] == "mimo"} == {"5"}
    text = (tmp_path / "run.json").read_text()
    assert '"rounds": 100' in text
    assert '"warmup": 10' in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--backends", "gaunt_gird"), "There is no backend 'gaunt_gird'. Did you mean 'gaunt_grid'?"),
        (("--backends", ","), "Name at least one backend"),
        (("--lmax", "1-x"), "a degree, a range or a list"),
        (("--lmax", "4-1"), "in rising ranges"),
        (("--lmax", "40"), "from 0 to 12"),
        (("--setting", "mimo,mim"), "--setting is one of mimo, simo, siso, got 'mim'. Did you mean 'mimo'?"),
        (("--operator", "many_body"), "Did you mean 'many-body'?"),
        (("--passes", "backwrd"), "--passes is one of forward, backward, double-backward, got 'backwrd'. Did you"),
        (("--operator", "convolution", "--mode", "uvw"), "measured in mode uvu with free weights: leave out --mode"),
        (("--operator", "convolution", "--weights", "none"), "with free weights"),
        (("--operator", "many-body", "--mode", "uvw"), "measured in mode uuu with free weights"),
        (("--operator", "many-body", "--antisymmetric"), "leave out --antisymmetric"),
        (("--operator", "many-body", "--setting", "siso"), "Nothing can be measured. SISO L=1: Many-body"),
        (("--mode", "uvw", "--weights", "none"), "Mode uvw is nothing without its weights"),
        (("--correlation", 2), "--correlation belongs to --operator many-body"),
        (("--paper",), "leave out --rounds, or --paper"),
        (("--setting", "siso", "--lmax", 1), "Nothing can be measured. SISO L=1: SISO of the odd degree 1"),
        (("--rows", 2_000_000_000), "Inputs and outputs need"),
        (("--mode", "uux"), "--mode is one of"),
        (("--dtype", "float16"), "--dtype is one of float32, float64"),
        (("--device", "gpu"), "--device is cpu or cuda"),
        (("--device", "meta"), "--device is cpu or cuda"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    text = " ".join(bench(tmp_path, *words, status=1).split())
    assert message in text
    assert "Traceback" not in text
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu(tmp_path: Path) -> None:
    assert "There is no CUDA device" in bench(tmp_path, "--device", "cuda", status=1)


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "Choose another folder" in bench(tmp_path / "file" / "x", *TWO, status=1)


def test_a_run_in_which_no_backend_could_be_measured(tmp_path: Path) -> None:
    text = " ".join(bench(tmp_path, "--passes", "forward", "--backends", "so2", status=1).split())
    assert "No backend could be measured. so2: SO2 supports mode uvu, uvw, got 'uuu'" in text
    assert not (tmp_path / "results.csv").exists()


def test_the_plan_says_what_is_measured(tmp_path: Path) -> None:
    for words, mode, weights in (
        (("--mode", "uvw"), "uvw", "free"),
        (("--operator", "convolution"), "uvu", "free"),
        (("--mode", "uvuv"), "uvuv", "none"),
    ):
        folder = tmp_path / "-".join(words)
        bench(folder, *words, "--passes", "forward", *TWO)
        plan = json.loads((folder / "run.json").read_text())["plan"]
        assert (plan["mode"], plan["weights"]) == (mode, weights)


def test_all_digits_at_80_columns() -> None:
    """Long numbers fold the name of a backend, and crop no number."""
    numbers = {"wall_ms": 0.0123456, "cpu_ms": 123456.0, "gflops_per_second": 0.0123456, "peak_mb": 12345.6}
    speedup = {"speedup": 0.0123, "speedup_low": 0.0123, "speedup_high": 0.0123}
    usual = {"wall_ms": 12.34, "cpu_ms": 1234.0, "gflops_per_second": 123.0, "peak_mb": 1234.0, "speedup": 0.95}
    for values in (numbers | speedup, usual | {"speedup_low": 0.88, "speedup_high": 0.99}):
        console = Console(width=80, record=True, file=io.StringIO())
        console.print(_table("x", [Measurement("mimo", 1, "forward", "clebsch_gordan_sparse", error=2e-8, **values)]))
        text = console.export_text()
        assert "2e-08" in text
        assert "…" not in text
        assert max(map(len, text.splitlines())) <= 80
    assert "clebsch_gordan_sparse " in text


def test_outputs_are_checked_before_the_survey(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlip.benchmark.expressivity.survey", lambda *arguments: pytest.fail("measured"))
    (tmp_path / "file").touch()
    assert "Cannot write" in expressivity("--csv", tmp_path / "file" / "x.csv", status=1)
    assert "is a folder" in expressivity("--csv", tmp_path, status=1)
    assert "a .png file" in expressivity("--plot", tmp_path / "p.pdf", status=1)


def test_automatic_choice_has_no_cost_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLIP_CACHE", str(tmp_path / "cache"))
    text = expressivity("--lmax", 1, "--backends", "auto", "--csv", tmp_path / "e.csv")
    assert re.search(r"auto .* 5\+1 +6 \(6\) +6 +as chosen +as chosen", text)
    assert rows_of(tmp_path / "e.csv")[0]["flops"] == ""
    assert not (tmp_path / "cache").exists()


def test_degrees() -> None:
    assert parse_degrees("1-4") == [1, 2, 3, 4]
    assert parse_degrees("3") == [3]
    assert parse_degrees("5, 1-2,2") == [1, 2, 5]
    for text in ("", "-1", "a", "1-", "1--2", "2-1"):
        with pytest.raises(ConfigError):
            parse_degrees(text)


def test_options_of_a_backend_are_part_of_its_name(tmp_path: Path) -> None:
    words = ["--lmax", "1", "--channels", "2", "--rows", "4", "--rounds", "1", "--passes", "forward"]
    names = "gaunt_grid,gaunt_grid:quadrature=gauss_legendre"
    result = CliRunner().invoke(
        app, ["bench", "tensor-products", *words, "--backends", names, "--out", str(tmp_path / "b")]
    )
    assert result.exit_code == 0, result.output
    with (tmp_path / "b" / "results.csv").open() as lines:
        assert {row["backend"] for row in csv.DictReader(lines)} == {"e3nn", *names.split(",")}
    for wrong, words in (
        ("gaunt_grid:quadratur=lebedev", "has no option 'quadratur'"),
        ("gaunt_grid:x", "NAME:option=value"),
    ):
        result = CliRunner().invoke(app, ["bench", "tensor-products", "--backends", wrong])
        assert result.exit_code == 1
        assert words in " ".join(result.output.split())
