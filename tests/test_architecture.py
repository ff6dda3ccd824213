"""The house stays as drawn: layers, targets, sizes, and no consumer that names a concrete component."""

from __future__ import annotations

import ast
import inspect
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml

from mlip.cli.config_dir import config_dir
from mlip.core.build import TARGET, locate
from mlip.core.fields import FIELDS
from mlip.data.graphs.base import GraphBuilder
from mlip.models.build import KERNELS
from tests.components import component_names, repository_root

ROOT = repository_root()
PACKAGE = ROOT / "mlip"
SOURCES = sorted(PACKAGE.rglob("*.py"))
CONFIGS = sorted(config_dir().rglob("*.yaml"))
LIMIT = 320
LONGEST_FUNCTION = 60

PLUG_POINTS = {
    "mlip.ops.tensor_product": "tensor_product",
    "mlip.ops.many_body": "many_body",
    "mlip.ops.radial": "radial",
    "mlip.ops.envelope": "envelope",
    "mlip.nn.heads": "head",
    "mlip.nn.pair_terms": "pair_term",
    "mlip.nn.conditioning": "conditioning",
    "mlip.nn.radial_weights": "radial_weights",
    "mlip.nn.self_connection": "self_connection",
    "mlip.nn.nonlinearity": "nonlinearity",
    "mlip.nn.front_end": "front_end",
    "mlip.data.graphs": "graph",
}


def imports(path: Path) -> Iterator[str]:
    """Yield every module a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def targets(config: Any) -> Iterator[dict[str, Any]]:
    """Yield every mapping with a ``_target_``."""
    if isinstance(config, dict):
        if TARGET in config:
            yield config
        for value in config.values():
            yield from targets(value)
    elif isinstance(config, list):
        for value in config:
            yield from targets(value)


def test_layers_are_kept() -> None:
    """The contracts in pyproject.toml: arrows point down, inference knows neither Lightning nor Hydra."""
    command = [
        sys.executable,
        "-c",
        "from importlinter.cli import lint_imports_command; lint_imports_command()",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*command, "--no-cache"], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: str(p.relative_to(config_dir())))
def test_targets_of_configurations_exist_and_take_the_options(path: Path) -> None:
    for config in targets(yaml.safe_load(path.read_text(encoding="utf-8"))):
        parameters = inspect.signature(locate(config[TARGET])).parameters
        if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
            continue
        options = set(config) - {TARGET, "_partial_", "defaults"}
        # Groups named in the defaults list become options of the same name, or of that behind an @.
        groups = [key for entry in config.get("defaults", []) if isinstance(entry, dict) for key in entry]
        # Files that say their package write into the model itself.
        written = {group: _written_into_model(path.parent / group) for group in groups}
        options |= {name for group in groups for name in written[group] or {group.rpartition("@")[2]}}
        if path.parent.name == "model":
            options -= {KERNELS}
        assert options <= set(parameters), f"{config[TARGET]} takes no {options - set(parameters)}"


def _written_into_model(group: Path) -> set[str]:
    """Return the keys of the options of a group that are there in the model itself (``# @package model``)."""
    texts = [path.read_text(encoding="utf-8") for path in group.glob("*.yaml")]
    return {key for text in texts if text.startswith("# @package model\n") for key in yaml.safe_load(text)}


@pytest.mark.parametrize("package", sorted(PLUG_POINTS))
def test_every_component_has_a_configuration(package: str) -> None:
    """A python file in a plug point without a yaml would escape the contracts."""
    group = PLUG_POINTS[package]
    configured = set()
    for path in (config_dir() / "model" / group).glob("*.yaml"):
        for config in targets(yaml.safe_load(path.read_text(encoding="utf-8"))):
            module = config[TARGET].rpartition(".")[0]
            # A component may be given parts of another kind, as a head its activation.
            configured |= {module} if module.startswith(f"{package}.") else set()
    folder = ROOT / package.replace(".", "/")
    modules = {f"{package}.{path.stem}" for path in folder.glob("*.py") if path.stem != "__init__"}
    assert {module for module in modules if has_component(import_module(module))} == configured


def has_component(module: ModuleType) -> bool:
    """Whether a module defines a class that can be built and is a torch module or a graph builder: a component."""
    return any(
        inspect.isclass(found)
        and found.__module__ == module.__name__
        and issubclass(found, torch.nn.Module | GraphBuilder)
        and not inspect.isabstract(found)
        for found in vars(module).values()
    )


def test_consumers_name_no_backend() -> None:
    """Blocks and models take objects and factories; only repulsive pair terms have an envelope of their own."""
    allowed = {("base.py", "mlip.ops.envelope.polynomial")}
    plugs = list(PLUG_POINTS)
    found = {
        (path.name, module)
        for folder in ("nn", "models", "training", "evaluation", "calculators", "simulate", "drivers")
        for path in (PACKAGE / folder).rglob("*.py")
        for module in imports(path)
        if any(module.startswith(f"{package}.") and not module.endswith(".base") for package in plugs)
    }
    assert found <= allowed, f"import the base class instead: {found - allowed}"


def test_every_file_is_small() -> None:
    sizes = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert sizes
    large = {name: size for name, size in sizes.items() if size > LIMIT}
    assert not large, f"more than {LIMIT} lines, split by idea: {large}"


def body_lines(function: ast.FunctionDef) -> int:
    """Count the lines of a function without its signature and its docstring."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return function.end_lineno - body[0].lineno + 1 if body else 0


def test_every_function_is_short() -> None:
    long = {
        f"{path.relative_to(ROOT)}:{node.name}": body_lines(node)
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and body_lines(node) > LONGEST_FUNCTION
    }
    assert not long, f"more than {LONGEST_FUNCTION} lines, split: {long}"


def test_every_module_says_what_it_is() -> None:
    silent = [
        str(path.relative_to(ROOT)) for path in SOURCES if not ast.get_docstring(ast.parse(path.read_text("utf-8")))
    ]
    assert not silent


def test_nobody_sets_global_state() -> None:
    """Default dtype and device belong to the user; pickled models and cleared errors to nobody."""
    forbidden = (
        "set_default_dtype",
        "set_default_device",
        "set_default_tensor_type",
        "pickle.load",
        "sys.path.append",
    )
    found = [
        f"{path.relative_to(ROOT)}: {word}"
        for path in SOURCES
        for word in forbidden
        if word in path.read_text(encoding="utf-8")
    ]
    assert not found


def test_utils_modules_do_not_exist() -> None:
    assert not [path for path in SOURCES if path.stem in {"utils", "helpers", "misc", "common"}]


def test_no_machine_paths() -> None:
    """Files name no folder of one machine."""
    words = ("/home/", "/root/", "/mnt/")
    texts = [*SOURCES, *CONFIGS, *sorted((ROOT / "tests").rglob("*.py")), ROOT / "pyproject.toml"]
    found = [
        str(path.relative_to(ROOT))
        for path in texts
        if path != Path(__file__) and any(word in path.read_text(encoding="utf-8") for word in words)
    ]
    assert not found


def test_doctor_needs_no_test_packages() -> None:
    """What ships runs without the test extra."""
    runtime = [path for path in (PACKAGE / "testing").glob("*.py") if path.stem != "strategies"]
    wanted = {module.split(".")[0] for path in runtime for module in imports(path)}
    assert not wanted & {"pytest", "hypothesis", "_pytest"}


def test_importing_the_package_is_light() -> None:
    code = "import sys, mlip; print(sorted({'torch', 'ase', 'e3nn', 'lightning'} & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_plug_points_are_enumerated() -> None:
    """The tests that enumerate configurations would pass on an empty folder."""
    for group, least in {
        "tensor_product": 13,
        "many_body": 3,
        "radial": 4,
        "envelope": 3,
        "activation": 2,
        "head": 1,
        "graph": 6,
        "": 1,
    }.items():
        assert len(component_names(group)) >= least
    assert set(FIELDS) >= {"energy", "forces", "stress"}
