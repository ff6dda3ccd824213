"""ASE's optimisers by name, made ready for a structure or a filter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from ase import Atoms
from ase.filters import Filter
from ase.optimize import BFGS, FIRE, FIRE2, LBFGS, BFGSLineSearch
from ase.optimize.optimize import Optimizer
from ase.optimize.precon import Exp, PreconFIRE, PreconLBFGS
from ase.utils import longsum

from mlip.core.errors import ConfigError, did_you_mean

LARGE = 100
"""Atoms from which a preconditioner pays; below, ASE leaves it out as well."""


class _Largest:
    """Preconditioned optimisers stop by the same rule as the others: the largest generalised force.

    ASE lets them stop at a stress of fmax eV/Å³, which for 0.05 is 8 GPa.
    """

    fmax: float
    _actual_atoms: Atoms | Filter

    def gradient_converged(self, gradient: np.ndarray) -> bool:
        forces = self._actual_atoms.get_forces()
        return bool((forces**2).sum(axis=1).max() < self.fmax**2)


class _PreconLBFGS(_Largest, PreconLBFGS):
    """Counts line searches that fail, of which the base class says each one on the terminal.

    Near the minimum rounding is more than what a step gains, in float32 above all, and a direction may not point
    downhill. The memory is dropped then; if the next search fails too, `RuntimeError` says that none is found.
    """

    failed_searches = 0

    def line_search(self, r: np.ndarray, g: np.ndarray, e: float, previously_reset_hessian: bool) -> None:
        try:
            # What the search looks at first, and logs as an error.
            if longsum(g.ravel() * self.p.ravel()) >= 0:
                raise RuntimeError("Armijo linesearch failed: the direction is not downhill")
            # As if it were the second time: the base class raises instead of a warning.
            super().line_search(r, g, e, True)
        except RuntimeError:
            if previously_reset_hessian:
                raise
            self.failed_searches += 1
            self.reset_hessian()
            self.alpha_k = 0.0


class _PreconFIRE(_Largest, PreconFIRE):
    pass


def _preconditioner(target: Atoms | Filter) -> Exp | None:
    return Exp() if len(target) >= LARGE else None


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "FIRE": FIRE,
    "FIRE2": FIRE2,
    "LBFGS": LBFGS,
    "BFGS": BFGS,
    "BFGSLineSearch": BFGSLineSearch,
    "PreconLBFGS": _PreconLBFGS,
    "PreconFIRE": _PreconFIRE,
}
"""By name. FIRE is the most robust; LBFGS needs fewer steps near a minimum; the preconditioned ones are for more than
`LARGE` atoms."""


def failed_searches(optimizer: Optimizer) -> int:
    """Return how many line searches failed and were begun anew, where it is counted."""
    return getattr(optimizer, "failed_searches", 0)


def optimizer_name(name: str) -> str:
    """Return a name of `OPTIMIZERS`, whatever its case.

    Raises:
        ConfigError: there is none of this name.
    """
    known = {one.lower(): one for one in OPTIMIZERS}
    found = known.get(name.lower().replace("-", "").replace("_", ""))
    if found is None:
        near = did_you_mean(name.lower(), known)
        for lower, one in known.items():
            near = near.replace(f"'{lower}'", f"'{one}'")
        raise ConfigError(f"There is no optimizer '{name}'.{near} Known: {', '.join(OPTIMIZERS)}.")
    return found


def make_optimizer(name: str, target: Atoms | Filter) -> Optimizer:
    """Return an optimiser of a structure, or of a structure and its cell through a filter.

    Raises:
        ConfigError: there is none of this name.
    """
    name = optimizer_name(name)
    options: dict[str, Any] = {"logfile": None}
    if name.startswith("Precon"):
        options["precon"] = _preconditioner(target)
    optimizer = OPTIMIZERS[name](target, **options)
    # Without a log file ASE formats its lines all the same, which takes a tenth of a small crystal's step.
    optimizer.log = lambda gradient: None
    return optimizer
