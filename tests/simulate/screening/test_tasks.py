"""Tasks give what the commands of the same names give."""

from dataclasses import asdict

import numpy as np
import pytest
from ase.build import bulk, molecule

from mlip.calculators.ase import MLIPCalculator
from mlip.core.errors import ConfigError, SimulationError
from mlip.core.units import GPA
from mlip.simulate.properties.eos import equation_of_state
from mlip.simulate.relax import relax_with
from mlip.simulate.screening.record import DONE, FAILED, ScreenRecord, decode_line
from mlip.simulate.screening.task import Item, ScreeningTask
from mlip.simulate.screening.tasks.eos import EosTask
from mlip.simulate.screening.tasks.phonons import PhononTask
from mlip.simulate.screening.tasks.registry import find_task
from mlip.simulate.screening.tasks.relax import RelaxTask
from mlip.simulate.screening.worker import work_on
from tests.simulate.pair_model import PairModel
from tests.simulate.screening.helpers import PairSource, items


def results(task: ScreeningTask, some: list[Item]) -> dict[int, ScreenRecord]:
    told: list[int | bytes] = []
    lines = work_on(some, task, PairSource(), 12, told.append)
    assert [one for one in told if isinstance(one, bytes)] == lines
    assert sorted(one for one in told if isinstance(one, int)) == sorted(item.number for item in some)
    for number, line in enumerate(told):
        # None ends that has not begun.
        assert isinstance(line, int) or decode_line(line).number in told[:number]
    found = {record.number: record for record in map(decode_line, lines)}
    assert set().union(*(record.values for record in found.values())) <= set(task.columns)
    return found


def test_relax_gives_what_each_gives_alone() -> None:
    task, some = RelaxTask(relax_cell=True, fmax=0.01), items(6)
    some.append(Item(9, "methane", molecule("CH4")))
    found = results(task, some)
    assert found[9].status == FAILED
    assert "no cell to relax" in found[9].error
    for item in some[:-1]:
        alone = relax_with(item.atoms, MLIPCalculator(PairModel()), task)
        record = found[item.number]
        assert record.status == DONE
        assert record.values["converged"]
        assert record.values["energy_after"] == pytest.approx(alone.after.energy, abs=1e-8)
        assert record.values["steps"] == alone.steps
        np.testing.assert_allclose(record.structure.positions, alone.atoms.positions, atol=1e-7)
        np.testing.assert_allclose(record.structure.get_stress(), alone.atoms.get_stress(), atol=1e-8)


def test_eos_gives_the_curve_of_each() -> None:
    task = EosTask(points=5, span=0.06, relax_ions=False)
    some = [Item(0, "cu", bulk("Cu", a=3.4)), Item(1, "methane", molecule("CH4")), Item(2, "cu4", bulk("Cu", a=3.5))]
    found = results(task, some)
    assert [found[number].status for number in range(3)] == [DONE, FAILED, DONE]
    assert "periodic along all axes" in found[1].error
    alone = equation_of_state(some[0].atoms, MLIPCalculator(PairModel()), **asdict(task))
    values = found[0].values
    assert values["b0"] == pytest.approx(alone.curve.b0 / GPA, rel=1e-9)
    assert values["v0"] == pytest.approx(alone.curve.v0, rel=1e-9)
    np.testing.assert_allclose(values["energies"], alone.energies, atol=1e-10)
    assert found[0].structure.get_potential_energy() == pytest.approx(min(values["energies"]), abs=1e-12)


@pytest.mark.slow
def test_phonons() -> None:
    pytest.importorskip("phonopy")
    pytest.importorskip("seekpath")
    from mlip.simulate.properties.phonons import phonons

    task = PhononTask(min_length=6.0, mesh=20.0, relax_first=True)
    some = [Item(0, "cu", bulk("Cu", a=3.4)), Item(1, "methane", molecule("CH4"))]
    found = results(task, some)
    assert [found[number].status for number in range(2)] == [DONE, FAILED]
    alone = phonons(some[0].atoms, MLIPCalculator(PairModel()), **asdict(task))
    assert set(found[0].values) == set(task.columns)
    assert (found[0].values["formula_primitive"], found[0].values["atoms_primitive"]) == ("Cu", 1)
    assert found[0].values["highest_frequency"] == pytest.approx(alone.highest, abs=1e-6)
    assert found[0].values["lowest_frequency"] == pytest.approx(alone.lowest, abs=1e-6)
    assert found[0].values["heat_capacity_300K"] == pytest.approx(
        alone.as_dict()["heat_capacity_J_per_K_mol"], abs=1e-6
    )
    np.testing.assert_allclose(found[0].values["dos"], alone.dos[:, 1], atol=1e-6)


def test_options_are_checked() -> None:
    assert find_task("eos").of({"span": 0.1}).options()["span"] == 0.1
    with pytest.raises(ConfigError, match=r"no task 'relx'\. Did you mean 'relax'"):
        find_task("relx")
    with pytest.raises(ConfigError, match=r"relax has no option 'point'"):
        RelaxTask.of({"point": 3})
    with pytest.raises(ConfigError, match=r"no option 'relax_cell'\..*It has span, points"):
        EosTask.of({"relax_cell": True})
    with pytest.raises(SimulationError, match="at least 5 points"):
        EosTask(points=3)
    with pytest.raises(SimulationError, match="displacement"):
        PhononTask(displacement=-1)
    with pytest.raises(ConfigError, match="Did you mean 'FIRE'"):
        RelaxTask(optimizer="FIR")
