"""Many relaxations give what each gives alone, and what is done stays done."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.constraints import FixAtoms, FixCartesian

from mlip.calculators.ase import MLIPCalculator
from mlip.core.errors import ConfigError, SimulationError
from mlip.simulate.inputs import InputStructure
from mlip.simulate.relax import RelaxOptions, relax_with
from mlip.simulate.relax_many import relax_many
from mlip.simulate.relax_records import RECORDS, Record, Records, fingerprint
from mlip.simulate.relax_table import RelaxedRow, as_csv, counts, row_of
from tests.simulate.pair_model import PairModel


def crystals(count: int = 8) -> list[Atoms]:
    found = []
    for seed in range(count):
        atoms = bulk("Cu", "fcc", a=3.2 + 0.05 * seed, cubic=bool(seed % 2))
        atoms.rattle(0.05, seed=seed)
        found.append(atoms)
    return found


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("FIRE2", "BFGS", "BFGSLineSearch", "PreconLBFGS")]


@pytest.mark.parametrize("optimizer", ["LBFGS", pytest.param("FIRE", marks=pytest.mark.slow), *SLOW])
def test_together_as_one_by_one(optimizer: str) -> None:
    options = RelaxOptions(optimizer=optimizer, relax_cell=True, fmax=0.005)
    structures = crystals(5)
    before = [atoms.copy() for atoms in structures]
    found = {one.number: one for one in relax_many(structures, MLIPCalculator(PairModel()), options, max_atoms=12)}
    assert structures == before
    assert len(found) == len(structures)
    for number, atoms in enumerate(structures):
        result, alone = found[number].result, relax_with(atoms, MLIPCalculator(PairModel()), options)
        assert result.converged
        assert result.steps == alone.steps
        assert result.after.energy == pytest.approx(alone.after.energy, abs=1e-8)
        np.testing.assert_allclose(result.atoms.positions, alone.atoms.positions, atol=1e-7)
        np.testing.assert_allclose(result.atoms.get_stress(), alone.atoms.get_stress(), atol=1e-8)
        assert result.space_groups == alone.space_groups


def test_one_that_fails_does_not_stop_the_others() -> None:
    structures = crystals(3)
    structures.insert(1, molecule("CH4"))
    structures.insert(2, bulk("Au"))
    overlapping = bulk("Cu", cubic=True)
    overlapping.positions[1] = overlapping.positions[0] + 0.01
    structures.append(overlapping)
    broken = bulk("Cu")
    broken.positions[0, 0] = np.nan
    structures.append(broken)
    options = RelaxOptions(relax_cell=True)
    found = sorted(relax_many(structures, MLIPCalculator(PairModel()), options), key=lambda one: one.number)
    errors = [one.error for one in found]
    assert [bool(error) for error in errors] == [False, True, True, False, False, True, True]
    assert [one.result is None for one in found] == [bool(error) for error in errors]
    assert "no cell to relax" in errors[1]
    assert "contains Au" in errors[2]
    assert "overlap" in errors[5]
    assert "finite" in errors[6]
    table = as_csv([row_of(one, f"s{one.number}", structures[one.number]) for one in found]).splitlines()
    assert len(table) == 8
    assert table[0].startswith("number,name,status,formula,atoms,steps,energy_before_eV")
    assert table[2].startswith("1,s1,failed,CH4,5,,")


def test_info_may_be_anything() -> None:
    structures = crystals(4)
    structures[1].info["atoms"] = 4
    structures[2].info |= {3: "three", "info": [1], "more": object()}
    found = sorted(relax_many(structures, MLIPCalculator(PairModel())), key=lambda one: one.number)
    assert [one.error for one in found] == [""] * 4
    assert found[1].result.atoms.info["atoms"] == 4
    assert found[2].result.atoms.info[3] == "three"


def test_options_are_checked_at_once() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'BFGSLineSearch'"):
        RelaxOptions(optimizer="bfgslinesearc")
    assert RelaxOptions(optimizer="bfgs_linesearch").optimizer == "BFGSLineSearch"
    with pytest.raises(SimulationError, match="finite number of GPa"):
        RelaxOptions(pressure=float("nan"))


def test_counts_and_changes() -> None:
    rows = [
        RelaxedRow(0, "a", "converged", steps=3, energy_gain=0.1, volume_change=0.2, space_group_before="x"),
        RelaxedRow(1, "b", "not converged", steps=9, energy_gain=0.3, warnings="w"),
        RelaxedRow(2, "c", "failed", error="e"),
    ]
    found = counts(rows)
    assert (found["converged"], found["not_converged"], found["failed"], found["with_warnings"]) == (1, 1, 1, 1)
    assert found["median_steps"] == 6
    assert found["median_energy_gain_eV_per_atom"] == pytest.approx(0.2)
    assert found["space_group_changed"] == 1


class TestRecords:
    PRINTS = {"structures": "a", "options": "b", "model": "c"}  # noqa: RUF012

    def record(self, number: int) -> Record:
        atoms = crystals(number + 1)[-1]
        atoms.calc = MLIPCalculator(PairModel())
        atoms.get_forces()
        return Record(RelaxedRow(number, f"s{number}", "converged", energy_after=atoms.get_potential_energy()), atoms)

    def begun(self, folder: Path, count: int = 3) -> Path:
        with Records(folder, self.PRINTS) as records:
            for number in range(count):
                records.add(self.record(number))
        return folder / RECORDS

    def test_all_digits_come_back(self, tmp_path: Path) -> None:
        self.begun(tmp_path)
        with Records(tmp_path, self.PRINTS, restart=True) as records:
            assert list(records.done) == [0, 1, 2]
            for number, found in records.done.items():
                wanted = self.record(number)
                assert found.row == wanted.row
                np.testing.assert_array_equal(found.atoms.positions, wanted.atoms.positions)
                np.testing.assert_array_equal(found.atoms.cell.array, wanted.atoms.cell.array)
                np.testing.assert_array_equal(found.atoms.get_forces(), wanted.atoms.get_forces())
                assert found.atoms.get_potential_energy() == wanted.atoms.get_potential_energy()

    def test_all_that_a_structure_has_comes_back(self, tmp_path: Path) -> None:
        record = self.record(1)
        atoms = record.atoms
        atoms.set_tags([0, 1, 2, 3])
        atoms.set_masses([63.5, 1, 2, 3])
        atoms.set_initial_magnetic_moments([[0, 0, 1.5]] * 4)
        atoms.arrays |= {"site": np.array(list("abcd")), "used": np.array([True, False] * 2)}
        plain = {"material_id": "mp-1", "n": 3, "x": 0.1, "list": [1, {"a": None}], "yes": True, "nothing": None}
        atoms.info = {**plain, "vector": np.array([0.1, 0.2]), "number": np.float64(0.3), 7: "seven", "odd": object()}
        with Records(tmp_path, self.PRINTS) as records:
            records.add(record)
            same = records.done[1].atoms
        with Records(tmp_path, self.PRINTS, restart=True) as records:
            found = records.done[1].atoms
        for one in (same, found):
            assert list(one.arrays) == list(atoms.arrays)
            for name, values in atoms.arrays.items():
                np.testing.assert_array_equal(one.arrays[name], values)
                assert one.arrays[name].dtype == values.dtype
            np.testing.assert_array_equal(one.info.pop("vector"), [0.1, 0.2])
            assert one.info == {**plain, "number": 0.3, "7": "seven"}
            assert one.calc.results.keys() == {"energy", "free_energy", "forces"}

    def test_cut_at_every_byte(self, tmp_path: Path) -> None:
        path = self.begun(tmp_path, 2)
        content = path.read_bytes()
        ends = [k + 1 for k, byte in enumerate(content) if byte == ord("\n")]
        for cut in [*range(0, len(content), 97), *ends, *(end - 1 for end in ends), len(content)]:
            path.write_bytes(content[:cut])
            with Records(tmp_path, self.PRINTS, restart=True) as records:
                whole = sum(end <= cut for end in ends[1:])
                assert len(records.done) == whole
                records.add(self.record(5))
            lines = path.read_bytes().splitlines()
            assert len(lines) == whole + 2
            assert json.loads(lines[-1])["row"]["number"] == 5

    def test_damage_in_the_middle_drops_what_follows(self, tmp_path: Path) -> None:
        path = self.begun(tmp_path)
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join([*lines[:2], b"\0" * 50 + b"\n", lines[3]]))
        with Records(tmp_path, self.PRINTS, restart=True) as records:
            assert list(records.done) == [0]

    @pytest.mark.parametrize("name", ["structures", "options", "model"])
    def test_other_runs_are_refused(self, tmp_path: Path, name: str) -> None:
        path = self.begun(tmp_path)
        before = path.read_bytes()
        with pytest.raises(SimulationError, match=f"begun with other {name}"):
            Records(tmp_path, self.PRINTS | {name: "z"}, restart=True)
        assert path.read_bytes() == before

    def test_foreign_files_are_refused(self, tmp_path: Path) -> None:
        (tmp_path / RECORDS).write_text("[1, 2]\n")
        with pytest.raises(SimulationError, match="not of this version"):
            Records(tmp_path, self.PRINTS, restart=True)
        with pytest.raises(SimulationError, match="nothing to go on from"):
            Records(tmp_path / "x", self.PRINTS, restart=True)

    def test_two_processes_do_not_mix(self, tmp_path: Path) -> None:
        with Records(tmp_path, self.PRINTS), pytest.raises(SimulationError, match="Another process"):
            Records(tmp_path, self.PRINTS, restart=True)
        Records(tmp_path, self.PRINTS, restart=True).close()

    def test_a_full_disk_keeps_whole_records(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import mlip.simulate.journal as module

        with Records(tmp_path, self.PRINTS) as records:
            records.add(self.record(0))

            def full(handle: int) -> None:
                raise OSError(28, "No space left on device")

            with monkeypatch.context() as patch:
                patch.setattr(module.os, "fsync", full)
                with pytest.raises(SimulationError, match="1 structures are done"):
                    records.add(self.record(1))
        with Records(tmp_path, self.PRINTS, restart=True) as records:
            assert list(records.done) == [0]

    def test_constraints_come_back_or_are_left_out(self, tmp_path: Path) -> None:
        from mlip.simulate.relax_symmetry import KeptSymmetry

        kept, odd = self.record(1), self.record(3)
        kept.atoms.set_constraint([FixAtoms([0]), FixCartesian(1, (True, False, True))])
        odd.atoms.set_constraint(KeptSymmetry(bulk("Cu", cubic=True)))
        with Records(tmp_path, self.PRINTS) as records:
            records.add(kept)
            records.add(odd)
        with Records(tmp_path, self.PRINTS, restart=True) as records:
            assert [c.todict() for c in records.done[1].atoms.constraints] == [
                c.todict() for c in kept.atoms.constraints
            ]
            assert not records.done[3].atoms.constraints


def test_fingerprint_tells_inputs_and_options_apart() -> None:
    options = RelaxOptions()
    inputs = [InputStructure(f"s{k}", atoms) for k, atoms in enumerate(crystals(2))]
    known = fingerprint(inputs, options, "m")
    assert known == fingerprint([InputStructure(f"s{k}", atoms) for k, atoms in enumerate(crystals(2))], options, "m")
    assert fingerprint(inputs, replace(options, fmax=0.04), "m")["options"] != known["options"]

    def changed(**changes) -> str:
        atoms = inputs[1].atoms.copy()
        for name, value in changes.items():
            setattr(atoms, name, value)
        return fingerprint([inputs[0], InputStructure("s1", atoms)], options, "m")["structures"]

    inputs[1].atoms.set_tags(0)
    inputs[1].atoms.set_masses([63.0] * 4)
    inputs[1].atoms.set_initial_magnetic_moments([1.0] * 4)
    inputs[1].atoms.set_initial_charges([0.5] * 4)
    arrays = inputs[1].atoms.arrays
    assert arrays.keys() >= {"tags", "masses", "initial_magmoms", "initial_charges"}
    full = fingerprint(inputs, options, "m")["structures"]
    assert full != known["structures"]
    ours = [changed(arrays={**arrays, name: arrays[name] + 1}) for name in arrays if name != "numbers"]
    assert len({full, *ours}) == 6
    inputs = [InputStructure(f"s{k}", atoms) for k, atoms in enumerate(crystals(2))]
    others = [
        changed(positions=inputs[1].atoms.positions + 1e-12),
        changed(pbc=(True, True, False)),
        changed(info={"charge": 1}),
        changed(constraints=[FixAtoms([0])]),
        changed(numbers=np.array([29, 29, 29, 6])),
    ]
    assert len({known["structures"], *others}) == 6
