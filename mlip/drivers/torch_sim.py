"""torch-sim: a model as its ``ModelInterface``, for batched relaxations and MD."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from mlip.calculators.ase import MLIPCalculator
from mlip.calculators.committee import Source
from mlip.drivers.session import Session, require

if TYPE_CHECKING:
    from mlip.drivers.torch_sim_model import TorchSimModel


def torch_sim_model(
    model: Source | Sequence[Source] | MLIPCalculator,
    *,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype | None = None,
    charge: int | None = None,
    spin: int | None = None,
    stress: bool = True,
) -> TorchSimModel:
    """Return a model for ``torch_sim.optimize``, ``integrate`` and ``static``.

    >>> import torch_sim as ts  # doctest: +SKIP
    >>> ts.integrate(system=[atoms, other], model=torch_sim_model("sevennet-0"), integrator=ts.nve, n_steps=100,
    ...              temperature=300, timestep=0.001)  # doctest: +SKIP

    Args:
        model: model, path or name; several are a committee. Or a calculator.
        device, dtype, charge, spin: as in :class:`~mlip.calculators.ase.MLIPCalculator`; charge and spin are those of
            every system. States are float64 whatever the dtype of the weights.
        stress: whether it is computed; relaxations of cells and NPT need it.

    Raises:
        ConfigError: torch-sim is not installed; a model that reads what is not given.
    """
    require("torch_sim", "torch-sim", "The torch-sim driver")
    from mlip.drivers.torch_sim_model import TorchSimModel

    return TorchSimModel(Session(model, device=device, dtype=dtype, charge=charge, spin=spin).calculator, stress)
