"""Build the kernels of the shipped models for machines without a compiler, before a wheel is made.

For every configuration in configs/model with its own widths, float32 and float64, and two levels of x86-64 processors.
What is there already is kept; what no model asks for any more is deleted. A wheel holds the folder if it is there.

Example:
  python scripts/build_kernels.py --jobs 8 && pip wheel . --no-deps
"""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from mlip.cli.config_dir import config_dir
from mlip.models.base import AtomisticModel
from mlip.models.build import build_model
from mlip.ops.kernels.choice import kernel_sources
from mlip.ops.kernels.compiler import NoCompiler
from mlip.ops.kernels.library import PREBUILT, prebuild

DTYPES = (torch.float32, torch.float64)

STATISTICS = {
    "elements": ["H", "O"],
    "num_neighbors": 10.0,
    "atomic_energies": {"H": 0.0, "O": 0.0},
    "force_rms": 1.0,
    "energy_per_atom_mean": 0.0,
    "charge": [0],
    "spin": [1],
    "basis": "def2-svp",
    "functional": "b3lyp5",
    "shells": {"H": [0, 0, 1], "O": [0, 0, 0, 1, 1, 2]},
    "onsite": None,
    "onsite_difference": None,
}
"""Of no data: kernels do not depend on them."""


def shipped_models() -> list[str]:
    """Return the names of the configurations of models."""
    return sorted(path.stem for path in (config_dir() / "model").glob("*.yaml"))


def model_of(name: str) -> AtomisticModel:
    """Build a model as it ships."""
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose(overrides=[f"+model={name}"])
    config = OmegaConf.merge({"cutoff": 15.0, "statistics": STATISTICS}, config)
    return build_model(OmegaConf.to_container(config, resolve=True)["model"])


def sources_of(names: list[str]) -> list[str]:
    """Return the sources of all kernels of models, each once."""
    models = [model_of(name) for name in names]
    return list(
        dict.fromkeys(source for model in models for dtype in DTYPES for source in kernel_sources(model, dtype))
    )


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="configurations [all]")
    parser.add_argument("--jobs", type=int, default=1, help="compilers at a time")
    parser.add_argument("--output", type=Path, default=PREBUILT, help="folder [that of the package]")
    chosen = parser.parse_args(arguments)
    if unknown := [name for name in chosen.models if name not in shipped_models()]:
        sys.exit(f"There is no configuration '{unknown[0]}'; known: {', '.join(shipped_models())}.")
    start = time.perf_counter()
    sources = sources_of(chosen.models or shipped_models())
    try:
        with ThreadPoolExecutor(chosen.jobs) as pool:
            paths = {
                path for built in pool.map(lambda source: prebuild(source, chosen.output), sources) for path in built
            }
    except (NoCompiler, OSError) as error:
        sys.exit(f"The kernels cannot be built: {error}.")
    for old in set(chosen.output.glob("*.so")) - paths:
        old.unlink()
    size = sum(path.stat().st_size for path in paths)
    seconds = time.perf_counter() - start
    print(f"{len(sources)} kernels in {len(paths)} libraries, {size / 1e6:.1f} MB, {seconds:.0f} s: {chosen.output}")


if __name__ == "__main__":
    main()
