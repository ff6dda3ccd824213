"""Line searches that fail for want of digits: counted into one sentence, and not said one by one."""

import logging
import warnings
import zlib

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.optimize.precon import PreconLBFGS

from mlip.core.errors import StructureError
from mlip.simulate.relax import relax
from mlip.simulate.relax_optimizers import failed_searches, make_optimizer


class Rounded(EMT):
    """EMT whose forces have a part that is no gradient, as rounding has: near the minimum no direction is downhill."""

    def calculate(self, *args, **kwargs) -> None:
        super().calculate(*args, **kwargs)
        chance = np.random.default_rng(zlib.crc32(self.atoms.positions.tobytes()))
        self.results["forces"] = self.results["forces"] + chance.normal(0, 2e-3, self.results["forces"].shape)


def crystal() -> Atoms:
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=1)
    return atoms


def test_they_are_counted_and_nothing_is_printed(
    caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    with caplog.at_level(logging.INFO):
        found = relax(crystal(), Rounded(), optimizer="PreconLBFGS", fmax=1e-5, max_steps=100)
    assert not found.converged
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert not recwarn.list
    (warning,) = found.warnings
    assert "line search" in warning
    assert "continue with the optimizer FIRE, or with float64" in warning


def test_steps_are_those_of_the_base_class() -> None:
    paths = []
    for make in (
        lambda atoms: make_optimizer("PreconLBFGS", atoms),
        lambda atoms: PreconLBFGS(atoms, None, precon=None),
    ):
        atoms, path = crystal(), []
        atoms.calc = Rounded()
        optimizer = make(atoms)
        optimizer.attach(lambda atoms=atoms, path=path: path.append(atoms.positions.copy()))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                optimizer.run(fmax=1e-5, steps=40)
            except RuntimeError as error:
                path.append(str(error)[:30])
        paths.append(path)
        if optimizer.__class__ is not PreconLBFGS:
            assert failed_searches(optimizer) > 0
    assert len(paths[0]) == len(paths[1])
    for ours, theirs in zip(*paths, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_calculation_that_fails_is_said() -> None:
    class Failing(EMT):
        calls = 0

        def calculate(self, *args, **kwargs) -> None:
            self.calls += 1
            if self.calls > 3:
                raise StructureError("The energy is nan.")
            super().calculate(*args, **kwargs)

    with pytest.raises(Exception, match="The energy is nan"):
        relax(crystal(), Failing(), optimizer="PreconLBFGS", fmax=1e-5)
