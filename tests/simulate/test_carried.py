"""What the input says of energies and forces neither stands beside those of the result nor spoils its files."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import read

from mlip.calculators.ase import MLIPCalculator
from mlip.data.datasets.extxyz import ExtxyzDataset
from mlip.data.labels import LabelReader, raw_values
from mlip.simulate.carried import without_labels, write_extxyz
from mlip.simulate.ensembles import NVE
from mlip.simulate.md import run_md
from mlip.simulate.properties.files import write_structures
from mlip.simulate.relax import RelaxOptions, relax
from mlip.simulate.relax_many import relax_many
from mlip.simulate.relax_output import write_results
from mlip.simulate.relax_records import Record, Records
from mlip.simulate.relax_table import row_of
from mlip.simulate.structures import write_final_structure
from tests.simulate.pair_model import PairModel

LABELS = {
    "energy": -999.0, "free_energy": -999.0, "REF_energy": -999.0, "energy_dft": -999.0, "virial": np.eye(3) * 5,
    "stress": np.ones(6), "DFT_virials": np.eye(3), "dipole": np.ones(3), "energy_std": 9.0, "reference_energy": -1.0,
    "chirality": 1.0,
}  # fmt: skip
OF_ATOMS = ("forces", "REF_forces", "forces_dft", "magmoms", "charges", "energies", "forces_std", "reference_forces")
KEPT = {"name": "mine", "charge": 0, "spin": 1, "virial_id": "v7"}


def labelled(**info: object) -> Atoms:
    """A crystal with labels of everyone's taste in ``info`` and arrays, as a .traj or database may have them."""
    atoms = bulk("Cu", cubic=True, a=3.4)
    atoms.rattle(0.05, seed=1)
    atoms.info = KEPT | LABELS | info
    for name in OF_ATOMS:
        atoms.set_array(name, np.full((4, 3) if "orces" in name and "std" not in name else 4, 7.0))
    atoms.set_array("site", np.arange(4))
    atoms.set_tags([0, 1, 2, 2])
    return atoms


def relaxed_to(folder: Path, structures: list[Atoms], **options: object) -> list[Atoms]:
    """Relax structures as the command does, with its records; return what the file of structures holds."""
    options = RelaxOptions(max_steps=3, **options)
    found = sorted(relax_many(structures, MLIPCalculator(PairModel()), options), key=lambda one: one.number)
    with Records(folder, {"options": "x"}) as records:
        for one in found:
            records.add(Record(row_of(one, f"in.traj#{one.number}"), one.result.atoms))
        write_results(folder, list(records.done.values()), asdict(options))
    return read(folder / "relaxed.xyz", ":")


def check(frame: Atoms, calculator: EMT | MLIPCalculator) -> None:
    """Labels are those of the calculator, to the digits of the file, or not there."""
    fresh = frame.copy()
    fresh.info = {}
    fresh.calc = calculator
    found = LabelReader(required=("energy", "forces"), optional=("stress", "magmoms")).read(frame, "it")
    assert found["keys"]["energy"] == "energy"
    assert found["keys"]["forces"] == "forces"
    assert found["values"]["energy"] == pytest.approx(fresh.get_potential_energy(), abs=1e-5)
    np.testing.assert_allclose(found["values"]["forces"], fresh.get_forces(), atol=1e-5)
    assert "magmoms" not in found["values"]
    if "stress" in found["values"]:
        np.testing.assert_allclose(found["values"]["stress"], fresh.get_stress(voigt=False), atol=1e-5)
    stale = {*LABELS, *OF_ATOMS} - {"energy", "forces", "stress", "free_energy"}
    assert not stale & raw_values(frame).keys()


@pytest.mark.parametrize("relax_cell", [False, True])
def test_labels_of_the_input_stay_behind(tmp_path: Path, relax_cell: bool) -> None:
    for frame in relaxed_to(tmp_path, [bulk("Cu"), labelled()], relax_cell=relax_cell):
        check(frame, MLIPCalculator(PairModel()))
        assert ("stress" in frame.calc.results) == relax_cell
    assert frame.info == KEPT | {"mlip_name": "in.traj#1"}
    np.testing.assert_array_equal(frame.arrays["site"], np.arange(4))
    np.testing.assert_array_equal(frame.get_tags(), [0, 1, 2, 2])
    # And as a data set that is read without being told any key.
    samples = ExtxyzDataset(tmp_path / "relaxed.xyz", labels=["energy", "forces"], optional_labels=["stress"])
    for sample in samples.read(next(iter(samples.chunks()))):
        assert ("stress" in sample.labels) == relax_cell


def test_one_key_does_not_lose_the_file(tmp_path: Path) -> None:
    """Journals of before have them still, and can be gone on with."""
    keys = ("energy", "free_energy", "stress", "forces", "magmoms", "")
    frames = [bulk("Cu", cubic=True) for _ in keys]
    for key, atoms in zip(keys, frames, strict=True):
        atoms.calc = MLIPCalculator(PairModel())
        atoms.get_stress()
        if key in ("forces", "magmoms"):
            atoms.set_array(key, np.full((4, 3) if key == "forces" else 4, -999.0))
        elif key:
            atoms.info[key] = -999.0
    row = row_of(next(iter(relax_many(frames[:1], MLIPCalculator(PairModel())))), "x")
    write_results(tmp_path, [Record(row, atoms) for atoms in frames], {})
    found = read(tmp_path / "relaxed.xyz", ":")
    assert len(found) == len(keys)
    for atoms in found:
        assert atoms.get_potential_energy() == pytest.approx(frames[0].get_potential_energy(), abs=1e-8)
    assert (tmp_path / "summary.json").exists()


@pytest.mark.parametrize(
    "odd",
    [
        lambda atoms: atoms.info.update(text="\ud800"),
        lambda atoms: atoms.info.update(Lattice="1 0 0 0 1 0 0 0 1"),
        lambda atoms: atoms.info.update(Properties="species:S:1:pos:R:3"),
        lambda atoms: atoms.set_array("move_mask", np.array([True, False, True, True])),
        lambda atoms: [atoms.set_array("a", np.ones((4, 2))), atoms.set_array("a0", np.ones(4))],
        lambda atoms: atoms.set_array("cubes", np.ones((4, 3, 2))),
        lambda atoms: atoms.set_array("empty", np.ones((4, 0))),
    ],
)
def test_what_the_format_cannot_hold_is_left_out(tmp_path: Path, odd) -> None:
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.01, seed=0)
    atoms.calc = EMT()
    atoms.get_forces()
    odd(atoms)
    write_extxyz(tmp_path / "a.xyz", [atoms, bulk("Cu")])
    first, second = read(tmp_path / "a.xyz", ":")
    assert len(second) == 1
    np.testing.assert_allclose(first.cell.array, atoms.cell.array)
    np.testing.assert_allclose(first.positions, atoms.positions, atol=1e-7)
    assert first.get_potential_energy() == pytest.approx(atoms.get_potential_energy(), abs=1e-7)
    np.testing.assert_allclose(first.get_forces(apply_constraint=False), atoms.get_forces(), atol=1e-7)


def test_inputs_of_a_model_are_no_labels() -> None:
    kept = {"charge": 1, "Total_Charge": 1, "spin": 2, "multiplicity": 2, "tags": 0, "fixed": 0, "fragments": 0}
    kept |= {"initial_magmoms": 0, "initial_charges": 0, "momenta": 0, "energy_above_hull": 0, 3: "three"}
    assert without_labels(kept | {"Energy": 1, "QM_Force": 1, "Virials": 1, "magmoms_dft": 1}) == kept


def test_single_results(tmp_path: Path) -> None:
    """``final.xyz`` of a relaxation and of MD, and the structures of the properties."""
    result = relax(labelled(), EMT(), relax_cell=True, max_steps=2)
    write_final_structure(tmp_path / "relax", result.atoms)
    summary = run_md(labelled(), EMT(), NVE(300), 1)
    write_final_structure(tmp_path / "md", summary.atoms)
    write_structures(tmp_path / "eos.xyz", [result.atoms])
    for path in ("relax/final.xyz", "md/final.xyz", "eos.xyz"):
        frame = read(tmp_path / path)
        check(frame, EMT())
        assert frame.info == {"charge": 0, "spin": 1}
        np.testing.assert_array_equal(frame.arrays["site"], np.arange(4))
    assert read(tmp_path / "relax/final.cif").get_chemical_formula() == "Cu4"


def test_a_cif_has_no_occupancies_of_the_input(tmp_path: Path) -> None:
    atoms = bulk("Cu", cubic=True)
    atoms.info["occupancy"] = {"0": {"Cu": 1}}
    row = row_of(next(iter(relax_many([atoms], MLIPCalculator(PairModel())))), "a")
    write_results(tmp_path, [Record(row, atoms)], {}, cif=True)
    (path,) = (tmp_path / "cif").iterdir()
    assert read(path).get_chemical_formula() == "Cu4"


def test_a_screening_keeps_none(tmp_path: Path) -> None:
    from mlip.simulate.screening.record import encode
    from mlip.simulate.screening.task import Item
    from mlip.simulate.screening.tasks.relax import RelaxTask

    (record,) = RelaxTask(max_steps=2).run([Item(0, "a", labelled())], MLIPCalculator(PairModel()), 100)
    content = json.loads(encode(record))["structure"]
    assert content["info"] == KEPT
    assert {*content["arrays"]} == {"site", "tags"}
