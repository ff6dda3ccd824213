"""Equivariant machine-learning potentials, from the data set to the ASE calculator.

``from mlip import MLIPCalculator`` attaches a trained model to ASE, ``HamiltonianCalculator`` predicts matrices over
atomic orbitals; everything else is reached through the ``mlip`` command or the subpackages. Nothing heavy is imported
until it is used.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "HamiltonianCalculator": "mlip.calculators.hamiltonian",
    "MLIPCalculator": "mlip.calculators.ase",
    "keep_freed_memory": "mlip.core.memory",
    "load_model": "mlip.models.model_file",
    "save_model": "mlip.models.model_file",
}

__all__ = ["HamiltonianCalculator", "MLIPCalculator", "__version__", "keep_freed_memory", "load_model", "save_model"]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'mlip' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
