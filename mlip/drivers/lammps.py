"""LAMMPS from Python, with a model in the place of its pair style: ``fix external`` and its callback."""

from __future__ import annotations

import ctypes
import logging
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mlip.calculators.ase import MLIPCalculator
from mlip.calculators.committee import Source
from mlip.core.errors import ConfigError
from mlip.drivers.session import Session, check_masses, require

if TYPE_CHECKING:
    from lammps import lammps

log = logging.getLogger(__name__)

_UNITS = "metal"
"""Å, eV, ps, bar: those in which nothing has to be converted."""

_COMMANDS = ("command", "commands_list", "commands_string", "file")
"""Methods that may run steps."""

_LAMMPS_VIRIAL = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
"""Its order of the components: xx yy zz xy xz yz."""


def start_lammps(arguments: Sequence[str] = ("-log", "none", "-screen", "none")) -> lammps:
    """Return a new instance of LAMMPS; finds the MPI library of the wheel by itself.

    Args:
        arguments: of its command line; none are its own defaults: a log file, and all output on the screen.

    Raises:
        ConfigError: LAMMPS is not installed, or its libraries cannot be loaded.
    """
    require("lammps", "lammps", "The LAMMPS driver")
    # The wheel looks for MPICH beside the interpreter only if told to.
    library = Path(sys.prefix) / "lib" / "libmpi.so.12"
    try:
        if library.is_file():
            ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
        from lammps import lammps

        return lammps(cmdargs=list(arguments))
    except OSError as error:
        raise ConfigError(
            f"LAMMPS is installed and cannot be loaded ({error}): it needs MPICH, pip install 'mlip-kit[lammps]'."
        ) from error


def attach(
    lmp: lammps,
    model: Source | Sequence[Source] | MLIPCalculator,
    elements: Sequence[str],
    *,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype | None = None,
    charge: int | None = None,
    spin: int | None = None,
    fix: str = "mlip",
) -> LammpsDriver:
    """Let a model give energy, forces and virial of all atoms, until ``unfix``.

    >>> lmp = start_lammps()  # doctest: +SKIP
    >>> lmp.file("in.copper")  # units metal, atoms and masses; no pair style  # doctest: +SKIP
    >>> attach(lmp, "sevennet-0", elements=["Cu"])  # doctest: +SKIP
    >>> lmp.command("run 1000")  # doctest: +SKIP

    The energy is part of ``pe`` and ``compute pe/atom``, the virial of ``press``, so that NPT and minimisation work as
    with a pair style. A pair style that is there adds its own forces; if there is none, ``pair_style zero`` is set.
    The model does not divide the virial among atoms: ``compute stress/atom`` is NaN, and heat fluxes with it.
    If the model fails at a step, the run ends there, and ``lmp.command`` raises the error.

    Args:
        lmp: with a box and atoms, in units metal, on one process.
        model: model, path or name; several are a committee. Or a calculator.
        elements: symbol of each atom type, in the order of the types.
        device, dtype, charge, spin: as in :class:`~mlip.calculators.ase.MLIPCalculator`.
        fix: the name of the fix in LAMMPS.

    Returns:
        The driver; it lives as long as the fix does, whether kept or not.

    Raises:
        ConfigError: other units, several processes, no box, elements that do not fit the types and their masses, a
            model that reads what is not given.
        StructureError: an element that the model does not know.
    """
    units = lmp.extract_global("units")
    if units != _UNITS:
        raise ConfigError(
            f"The LAMMPS driver needs 'units {_UNITS}' (Å, eV, ps), and this instance has 'units {units}'."
        )
    if lmp.extract_setting("world_size") > 1:
        raise ConfigError(
            "The LAMMPS driver runs on one process, and this instance has several: start it without mpirun."
        )
    if not lmp.extract_setting("box_exist"):
        raise ConfigError("LAMMPS has no box yet: read or create the box and the atoms before attach.")
    types = lmp.extract_setting("ntypes")
    if isinstance(elements, str) or len(elements) != types:
        raise ConfigError(f"LAMMPS has {types} atom types, elements must name each of them in order, got {elements!r}.")
    if lmp.has_id("fix", fix):
        raise ConfigError(f"LAMMPS has a fix '{fix}' already: unfix it first, or choose another name with fix=….")
    session = Session(model, device=device, dtype=dtype, charge=charge, spin=spin)
    driver = LammpsDriver(lmp, session, elements, fix)
    driver.check_masses()
    pair_style = lmp.extract_global("pair_style")
    if pair_style in (None, "none"):
        # Only to satisfy LAMMPS, which loses atoms without a list of neighbours; the model has its own.
        lmp.commands_list(["pair_style zero 2.0 nocoeff", "pair_coeff * *"])
    elif pair_style != "zero":
        log.warning("The pair style '%s' of LAMMPS adds its energy and forces to those of the model.", pair_style)
    lmp.commands_list([f"fix {fix} all external pf/callback 1 1", f"fix_modify {fix} energy yes virial yes"])
    lmp.set_fix_external_callback(fix, driver.callback, lmp)
    _raise_after_commands(lmp, driver)
    return driver


class LammpsDriver:
    """A model behind a fix of LAMMPS; made by :func:`attach`.

    Attributes:
        error: what the model raised at the last step, or None.
        calls: how many times forces were computed.
    """

    def __init__(self, lmp: lammps, session: Session, elements: Sequence[str], fix: str) -> None:
        self.error: BaseException | None = None
        self.calls = 0
        self._lmp, self._session, self._fix = lmp, session, fix
        self._command, self._raised = lmp.command, True
        self._numbers = session.check_elements(elements)

    def check_masses(self) -> None:
        """Compare the elements with the masses of the types, if they are set.

        Raises:
            ConfigError: they do not fit.
        """
        masses = self._lmp.numpy.extract_atom("mass")
        if masses is not None:
            check_masses(self._numbers, masses[1 : len(self._numbers) + 1], "Atom type")

    def callback(self, lmp: lammps, step: int, count: int, tags: np.ndarray, x: np.ndarray, f: np.ndarray) -> None:
        """Write forces (atoms, 3) in eV/Å into ``f``, energy and virial into LAMMPS (called by LAMMPS)."""
        f[:] = 0.0
        with _Guard(self):
            if self.calls == 0:
                # Masses may have been set since.
                self.check_masses()
            self.calls += 1
            # Atoms change their places in memory; in the order of their tags they are always the same ones.
            order = np.argsort(tags[:count], kind="stable")
            types = lmp.numpy.extract_atom("type")[:count][order]
            origin, cell, periodic = _box(lmp)
            found = self._session.evaluate(self._numbers[types - 1], x[order] - origin, cell, periodic, virial=True)
            f[order] = found.forces
            energies = np.empty(count)
            energies[order] = found.energies
            lmp.fix_external_set_energy_global(self._fix, found.energy)
            lmp.fix_external_set_energy_peratom(self._fix, energies.tolist())
            lmp.fix_external_set_virial_global(self._fix, [float(found.virial[place]) for place in _LAMMPS_VIRIAL])
            # Left at zero, the stress of atoms and heat fluxes would be numbers, and wrong ones.
            lmp.fix_external_set_virial_peratom(self._fix, [[np.nan] * len(_LAMMPS_VIRIAL)] * count)

    def fail(self, error: BaseException) -> None:
        """Remember what happened in the callback, and end the run before its next step."""
        self.error, self._raised = error, False
        library: Any = self._lmp.lib
        library.lammps_force_timeout(self._lmp.lmp)

    def raise_error(self) -> None:
        """Raise what the model raised in the command that has just ended, once."""
        if self.error is not None and not self._raised:
            self._raised = True
            # Or no later run would make a step.
            self._command("timer timeout off")
            raise self.error


class _Guard:
    """Keep an exception and end the run: one that leaves a callback is printed and forgotten, and the run goes on."""

    def __init__(self, driver: LammpsDriver) -> None:
        self._driver = driver

    def __enter__(self) -> None:
        self._driver.error = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is not None:
            self._driver.fail(error)
        return error is not None


def _raise_after_commands(lmp: lammps, driver: LammpsDriver) -> None:
    """Let the methods of this instance that run commands raise what the model raised in them.

    LAMMPS's own error function ends the process where it is called in a callback.
    """

    def checked(run: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(run)
        def command(*args: Any, **kwargs: Any) -> Any:
            result = run(*args, **kwargs)
            driver.raise_error()
            return result

        return command

    for name in _COMMANDS:
        setattr(lmp, name, checked(getattr(lmp, name)))


def _box(lmp: lammps) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return origin (3,) and cell (3, 3), rows in Å, and which axes are periodic (3,)."""
    low, high, xy, yz, xz, periodic, _ = lmp.extract_box()
    low, high = np.array(low), np.array(high)
    cell = np.diag(high - low)
    cell[1, 0], cell[2, 0], cell[2, 1] = xy, xz, yz
    return low, cell, np.array(periodic, dtype=bool)
