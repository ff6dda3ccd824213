"""The extxyz adapter: right labels in the package's units, or one clear sentence."""

import pickle

import numpy as np
import pytest
from ase import units
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.io import write

from mlip.core.errors import ConfigError, DataError
from mlip.data.datasets.extxyz import ExtxyzDataset
from tests.data.frames import ISOLATED, frame_text

STRESS = np.array([[0.01, 0.002, 0.003], [0.002, 0.02, -0.004], [0.003, -0.004, -0.03]])
"""eV/Å³, all six components different."""


# ---- labels are found


@pytest.mark.parametrize("energy", ["energy", "Energy", "REF_energy", "dft_energy", "DFT_energy", "total_energy"])
@pytest.mark.parametrize("forces", ["forces", "force", "REF_forces", "dft_force"])
def test_usual_keys_are_found(file, energy, forces):
    data = ExtxyzDataset(file(frame_text(f"{energy}=-10.5", forces)))
    assert float(data[0].labels["energy"]) == -10.5
    np.testing.assert_array_equal(data[0].labels["forces"], [[0.1, 0, 0], [-0.1, 0, 0]])
    assert all(value.dtype == np.float64 for value in data[0].labels.values())


def test_named_keys_win_over_usual_ones(file):
    path = file(frame_text("energy=-1.0 pbe0=-2.0"))
    assert float(ExtxyzDataset(path, energy_key="pbe0")[0].labels["energy"]) == -2.0


def test_forces_of_fixed_atoms_are_read_as_they_are(tmp_path):
    atoms = molecule("H2O")
    forces = np.arange(9.0).reshape(3, 3) + 1
    atoms.set_constraint(FixAtoms([0, 1]))
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=forces)
    write(tmp_path / "fixed.xyz", atoms, columns=["symbols", "positions", "forces", "move_mask"])
    sample = ExtxyzDataset(tmp_path / "fixed.xyz")[0]
    np.testing.assert_allclose(sample.labels["forces"], forces)
    assert not sample.atoms.constraints
    assert sample.atoms.calc is None


@pytest.mark.parametrize("form", ["stress 3x3", "stress voigt", "virial", "virials"])
def test_stress_and_virial_agree(tmp_path, form):
    atoms = bulk("Cu", cubic=True)
    voigt = STRESS[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
    if form == "stress 3x3":
        atoms.info["REF_stress"] = STRESS
    elif form == "stress voigt":
        atoms.info["stress"] = voigt
    else:
        atoms.info[form] = -atoms.get_volume() * STRESS
    atoms.info["energy"] = -1.0
    write(tmp_path / "a.xyz", atoms, format="extxyz")
    data = ExtxyzDataset(tmp_path / "a.xyz", labels=["energy", "stress"])
    np.testing.assert_allclose(data[0].labels["stress"], STRESS, atol=1e-8)


def test_stress_read_by_ase_itself_has_the_same_sign_and_order(tmp_path):
    atoms = bulk("Cu", cubic=True)
    voigt = STRESS[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, stress=voigt)
    write(tmp_path / "a.xyz", atoms)
    data = ExtxyzDataset(tmp_path / "a.xyz", labels=["energy"], optional_labels=["stress"])
    np.testing.assert_allclose(data[0].labels["stress"], STRESS, atol=1e-8)


def test_optional_labels_are_provided_if_every_sample_has_them(file):
    stress = frame_text(extra='REF_stress="1 0 0 0 1 0 0 0 1"')
    every = ExtxyzDataset(file(stress * 2), optional_labels=["stress"])
    assert every.provides == ("energy", "forces", "stress")
    some = ExtxyzDataset(file(stress + frame_text()), optional_labels=["stress"])
    assert some.provides == ("energy", "forces")
    assert "stress" in some[0].labels


def test_units_are_converted_once(tmp_path):
    atoms = bulk("Cu", cubic=True)
    atoms.info.update(energy=2.0, stress=STRESS)
    atoms.arrays["forces"] = np.ones((4, 3))
    write(tmp_path / "a.xyz", atoms, format="extxyz")
    data = ExtxyzDataset(
        tmp_path / "a.xyz",
        labels=["energy", "forces", "stress"],
        energy_unit="Hartree",
        length_unit="Bohr",
        stress_unit="GPa",
        stress_sign=-1,
    )
    sample = data[0]
    assert float(sample.labels["energy"]) == pytest.approx(2 * units.Hartree)
    np.testing.assert_allclose(sample.labels["forces"], units.Hartree / units.Bohr)
    np.testing.assert_allclose(sample.labels["stress"], -STRESS * units.GPa, atol=1e-10)
    np.testing.assert_allclose(sample.atoms.cell.lengths(), atoms.cell.lengths() * units.Bohr, rtol=1e-7)
    np.testing.assert_allclose(sample.atoms.positions, atoms.positions * units.Bohr, rtol=1e-6)


def test_virial_in_atomic_units(tmp_path):
    atoms = bulk("Cu", cubic=True)
    atoms.info.update(energy=1.0, virial=-atoms.get_volume() * STRESS)
    write(tmp_path / "a.xyz", atoms, format="extxyz")
    data = ExtxyzDataset(tmp_path / "a.xyz", labels=["stress"], energy_unit="Hartree", length_unit="Bohr")
    expected = STRESS * units.Hartree / units.Bohr**3
    np.testing.assert_allclose(data[0].labels["stress"], expected, rtol=1e-6)


def test_samples_say_where_they_come_from_and_pickle(file):
    path = file(frame_text() + frame_text(extra="config_type=md"))
    data = pickle.loads(pickle.dumps(ExtxyzDataset(path)))
    assert [sample.source for sample in data] == [f"{path}:0", f"{path}:1"]
    assert data[1].info["config_type"] == "md"
    assert data.provides == ("energy", "forces")
    assert data.units["energy"] == "eV"
    with pytest.raises(IndexError):
        data[2]


def test_several_files_and_patterns(file, tmp_path):
    file(frame_text() * 2, "b.xyz")
    file(frame_text(), "a.xyz")
    assert len(ExtxyzDataset(tmp_path / "*.xyz")) == 3
    listed = ExtxyzDataset([str(tmp_path / "b.xyz"), str(tmp_path / "a.xyz")])
    assert listed[0].source.endswith("b.xyz:0")


# ---- isolated atoms


def test_isolated_atoms_give_their_energies_and_are_no_samples(file):
    unmarked = '1\nProperties=species:S:1:pos:R:3 energy=-54.5 pbc="F F F"\nN 0 0 0\n'
    path = file(ISOLATED + frame_text() + unmarked)
    data = ExtxyzDataset(path)
    assert data.isolated_atom_energies() == {"H": -3.25, "N": -54.5}
    assert len(data) == 1
    kept = ExtxyzDataset(path, include_isolated_atoms=True)
    assert len(kept) == 3
    assert "forces" not in kept[0].labels


def test_an_ion_is_a_sample_and_isolated_atoms_need_no_group(file):
    ion = '1\nProperties=species:S:1:pos:R:3:forces:R:3 energy=-1.5 charge=1 traj=b pbc="F F F"\nH 0 0 0 0 0 0\n'
    data = ExtxyzDataset(file(ISOLATED + ion + frame_text(extra="traj=a")), group_key="traj")
    assert data.isolated_atom_energies() == {"H": -3.25}
    assert [sample.info["group"] for sample in data] == ["b", "a"]


def test_a_key_for_a_label_that_is_not_read_is_refused(file):
    with pytest.raises(ConfigError, match="stress_key is 'S', but the stress is in neither labels nor optional_labels"):
        ExtxyzDataset(file(frame_text()), stress_key="S")


def test_one_atom_in_a_crystal_is_a_sample(file):
    crystal = (
        '1\nLattice="2 0 0 0 2 0 0 0 2" Properties=species:S:1:pos:R:3:forces:R:3 energy=-3 pbc="T T T"\n'
        "Cu 0 0 0 0 0 0\n"
    )
    data = ExtxyzDataset(file(crystal))
    assert len(data) == 1
    assert data.isolated_atom_energies() == {}


def test_two_energies_for_one_atom_are_refused(file):
    with pytest.raises(DataError, match=r"Two energies for the isolated atom H: -3\.25 eV .*:0\) and -4\.0 eV .*:1"):
        list(ExtxyzDataset(file(ISOLATED + ISOLATED.replace("-3.25", "-4.0") + frame_text())))


def test_only_isolated_atoms_are_refused_unless_asked_for(file):
    path = file(ISOLATED)
    with pytest.raises(DataError, match="only isolated atoms"):
        list(ExtxyzDataset(path))
    assert len(ExtxyzDataset(path, include_isolated_atoms=True)) == 1


def test_isolated_atom_with_two_atoms_is_refused(file):
    with pytest.raises(DataError, match="the frame has 2 atoms"):
        list(ExtxyzDataset(file(frame_text(extra="config_type=IsolatedAtom"))))
