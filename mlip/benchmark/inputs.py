"""Random inputs of tensor products, the same for every backend, and whether there is room for them."""

import torch
from e3nn.o3 import Irreps
from torch import Tensor

from mlip.benchmark.plan import Plan
from mlip.core.errors import ConfigError
from mlip.ops.spherical_harmonics import spherical_harmonics


def random_features(irreps: Irreps, rows: int, generator: torch.Generator) -> Tensor:
    """Return ``(rows, irreps.dim)`` of unit variance, float32: exact in every dtype that is measured."""
    return torch.randn((rows, irreps.dim), generator=generator)


def random_harmonics(irreps: Irreps, rows: int, generator: torch.Generator) -> Tensor:
    """Return spherical harmonics of random directions, component normalisation, ``(rows, irreps.dim)``, float64.

    Args:
        irreps: multiplicity 1 everywhere.
        rows: number of directions.
        generator: source of the directions.
    """
    vectors = torch.randn((rows, 3), generator=generator, dtype=torch.float64)
    harmonics = spherical_harmonics(irreps.lmax, torch.nn.functional.normalize(vectors, dim=1))
    return torch.cat([harmonics[:, ir.l**2 : (ir.l + 1) ** 2] for _, ir in irreps], dim=1)


def require_memory(plan: Plan, what: str, numbers: int) -> None:
    """Refuse tensors that are too large, before they are allocated.

    Args:
        plan: dtype and limit.
        what: the tensors, in words, plural.
        numbers: elements of all of them.

    Raises:
        ConfigError: they need more than ``plan.max_memory`` bytes.
    """
    needed = numbers * plan.torch_dtype.itemsize
    if needed > plan.max_memory:
        raise ConfigError(
            f"{what} need {needed / 1e9:.3g} GB, more than --max-memory allows ({plan.max_memory / 1e9:.3g} GB): "
            "take fewer rows or channels."
        )
