"""What is wrong with an extxyz file is said in one sentence, never passed over."""

import numpy as np
import pytest
from ase import Atoms
from ase.io import write
from hypothesis import given, settings
from hypothesis import strategies as st

from mlip.core.errors import ConfigError, DataError
from mlip.data.datasets.extxyz import ExtxyzDataset
from tests.data.frames import frame_text

# ---- labels that are missing, ambiguous, or wrong


def test_missing_forces_are_never_silent(file):
    bare = frame_text(columns="species:S:1:pos:R:3", rows=["H 0 0 0", "H 0 0 0.8"])
    with pytest.raises(DataError) as caught:
        list(ExtxyzDataset(file(frame_text() + bare * 2)))
    message = str(caught.value)
    assert "2 of 3 frames have no forces" in message
    assert "data.xyz:1" in message
    assert "the keys there are: energy" in message


def test_misspelt_label_in_the_file_is_pointed_at(file):
    with pytest.raises(DataError, match=r"keys there are: energy, forcs\. Did you mean 'forcs'\?"):
        list(ExtxyzDataset(file(frame_text(forces="forcs"))))


def test_misspelt_key_in_the_configuration_is_pointed_at(file):
    path = file(frame_text("REF_energy=-1"))
    with pytest.raises(DataError, match=r"energy_key is 'REF_enrgy'.*Did you mean 'REF_energy'\?"):
        list(ExtxyzDataset(path, energy_key="REF_enrgy"))


def test_named_optional_key_that_no_frame_has_is_refused(file):
    with pytest.raises(DataError, match="No frame has the stress 'REF_stress'"):
        list(ExtxyzDataset(file(frame_text()), optional_labels=["stress"], stress_key="REF_stress"))


def test_two_different_energies_are_ambiguous(file):
    with pytest.raises(DataError, match=r"data\.xyz:0 has several keys .* energy, REF_energy.*energy_key: energy"):
        list(ExtxyzDataset(file(frame_text("energy=-1.0 REF_energy=-2.0"))))
    with pytest.raises(DataError, match="several keys"):
        list(ExtxyzDataset(file(frame_text("energy=-1.0 Energy=-2.0"))))


def test_the_same_energy_twice_is_fine(file):
    assert float(ExtxyzDataset(file(frame_text("energy=-1.0 REF_energy=-1.0")))[0].labels["energy"]) == -1.0


def test_frames_with_different_keys_are_ambiguous(file):
    with pytest.raises(DataError, match=r"The energy is 'energy' in .*:0, but 'dft_energy' in .*:1"):
        list(ExtxyzDataset(file(frame_text() + frame_text("dft_energy=-10.5"))))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (frame_text("energy=nan"), r"data\.xyz:0: the energy 'energy' is not finite"),
        (frame_text("energy=abc"), r"the energy 'energy' must be numbers"),
        (frame_text('energy="1 2"'), r"must be one number"),
        (
            frame_text() + frame_text(rows=["H 0 0 0 nan 0 0", "H 0 0 1 0 0 0"]),
            r"data\.xyz:1: the forces .* finite",
        ),
        (
            frame_text(rows=["H 0 0 0 0 0 0", "H 0 0 1 0 5e4 0"]),
            r"force on atom 1 is 5e\+04 eV/Å, above max_force",
        ),
        (frame_text(rows=["H 0 nan 0 0 0 0", "H 0 0 1 0 0 0"]), r"position of atom 0 is not finite"),
        (frame_text(rows=["X 0 0 0 0 0 0", "H 0 0 1 0 0 0"]), r"atom 0 has no chemical element"),
        (
            frame_text(rows=["Qq 0 0 0 0 0 0", "H 0 0 1 0 0 0"]),
            r"data\.xyz:0 is not a readable extxyz frame.*Qq",
        ),
        (frame_text(columns="species:S:1:pos:R:3:forces:R:2"), r"data\.xyz:0"),
    ],
)
def test_values_that_cannot_be_right_are_refused(file, content, words):
    with pytest.raises(DataError, match=words):
        list(ExtxyzDataset(file(content)))


@pytest.mark.parametrize(
    ("value", "words"),
    [("1 2 3 4 5", "3x3 or six"), ("1 2 3 4 5 6 7 8 9", "symmetric")],
)
def test_bad_stress_is_refused(file, value, words):
    with pytest.raises(DataError, match=words):
        list(ExtxyzDataset(file(frame_text(extra=f'REF_stress="{value}"')), labels=["energy", "stress"]))


def test_virial_of_a_molecule_is_refused(file):
    with pytest.raises(DataError, match="needs a cell with a volume"):
        list(ExtxyzDataset(file(frame_text(extra='virials="1 0 0 0 1 0 0 0 1"')), labels=["energy", "stress"]))


# ---- units hints


@pytest.mark.parametrize(
    "hint",
    ["energy_unit=Hartree", "units=atomic", 'units="Ha, Bohr"', "force_unit=Ha/Bohr", "length_unit=bohr"],
)
def test_units_hints_that_contradict_the_configuration_are_refused(file, hint):
    with pytest.raises(DataError, match=r"data\.xyz:1 says .* is read in"):
        list(ExtxyzDataset(file(frame_text(extra="energy_unit=eV") + frame_text(extra=hint))))


@pytest.mark.parametrize("hint", ["energy_unit=eV", 'units="eV, Angstrom"', "forces_unit=eV/Ang", "units=metal"])
def test_units_hints_that_agree_are_fine(file, hint):
    assert len(ExtxyzDataset(file(frame_text(extra=hint)))) == 1


def test_unknown_unit_hint_and_unknown_unit_are_refused(file):
    with pytest.raises(DataError, match="no known unit"):
        list(ExtxyzDataset(file(frame_text(extra="energy_unit=furlong"))))
    with pytest.raises(ConfigError, match=r"Did you mean 'Hartree'\?"):
        list(ExtxyzDataset(file(frame_text()), energy_unit="Hartre"))
    with pytest.raises(ConfigError, match="stress_sign"):
        list(ExtxyzDataset(file(frame_text()), stress_sign=0))
    with pytest.raises(ConfigError, match=r"Did you mean 'forces'\?"):
        list(ExtxyzDataset(file(frame_text()), labels=["energy", "force"]))


# ---- damaged files


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        (
            "hello world\n",
            r"not an extxyz file: frame 0 must begin with the number of atoms, got 'hello world'",
        ),
        (bytes([0x89, 0x48, 0x44, 0x46, 0xFF, 0xFE]), "is not a text file"),
        (frame_text() + "2\n", "truncated: frame 1 has no comment line"),
        (frame_text() + "\n".join(frame_text().splitlines()[:3]), "truncated: frame 1 has 1 of 2 atoms"),
        (frame_text()[:-4], "may be truncated"),
        (frame_text() + "\n" + frame_text(), "after a blank line where frame 1 should begin"),
        (frame_text() + "0\n\n", "must have at least one atom"),
        (frame_text().replace("-0.10 0.0 0.0", "-0.10 0.0"), r"data\.xyz:0 is not a readable extxyz frame"),
        ("{\n", "not an extxyz file"),
    ],
)
def test_damaged_files_give_one_clear_sentence(file, content, words):
    with pytest.raises(DataError, match=words) as caught:
        list(ExtxyzDataset(file(content)))
    assert "data.xyz" in str(caught.value)
    assert "\n" not in str(caught.value)


@settings(max_examples=150)
@given(cut=st.integers(0, 10_000))
def test_a_file_cut_anywhere_is_refused_or_whole(tmp_path_factory, cut):
    whole = frame_text(extra="step=1") + frame_text(
        extra="step=2", rows=["H 0 0 0 0.25 0 0.125", "H 0 0 1.5 0 0 0.375"]
    )
    text = whole[: cut % (len(whole) + 1)]
    path = tmp_path_factory.mktemp("cut") / "cut.xyz"
    path.write_text(text)
    first = frame_text(extra="step=1")
    try:
        data = list(ExtxyzDataset(path))
    except DataError:
        return
    # What is accepted ends exactly where a frame ends.
    assert len(data) == {len(first): 1, len(whole): 2}[len(text)]


def test_paths_that_do_not_exist(tmp_path, file):
    file(frame_text(), "water.xyz")
    with pytest.raises(DataError, match=r"No file matches .*Did you mean 'water\.xyz'\?"):
        list(ExtxyzDataset(tmp_path / "watr.xyz"))
    with pytest.raises(DataError, match="is a folder"):
        list(ExtxyzDataset(tmp_path))
    with pytest.raises(DataError, match=r"set data\.path"):
        list(ExtxyzDataset("???"))
    with pytest.raises(DataError, match="listed once"):
        list(ExtxyzDataset([tmp_path / "water.xyz", tmp_path / "water.xyz"]))


def test_far_apart_atoms_are_read(tmp_path):
    atoms = Atoms("He2", positions=[[0, 0, 0], [80, 0, 0]])
    atoms.info["energy"] = -1.0
    atoms.arrays["forces"] = np.zeros((2, 3))
    write(tmp_path / "far.xyz", atoms, format="extxyz")
    assert len(ExtxyzDataset(tmp_path / "far.xyz")) == 1


def test_labels_without_a_unit_are_read_by_their_name(tmp_path):
    frames = [Atoms("H2", [[0, 0, 0], [0, 0, d]], info={"chirality": -1.0}) for d in (0.7, 0.8)]
    for frame in frames:
        frame.info["class_scores"] = np.array([0.0, 1.0, 0.0])
    write(path := tmp_path / "shapes.xyz", frames, format="extxyz")
    data = ExtxyzDataset(path, labels=["class_scores", "chirality"])
    assert data.provides == ("class_scores", "chirality")
    assert data[1].labels["class_scores"].tolist() == [0.0, 1.0, 0.0]
    assert data[1].labels["chirality"] == -1.0
    frames[1].info = {"chirality": np.array([1.0, 2.0]), "class_scores": np.ones(3)}
    write(path, frames, format="extxyz")
    with pytest.raises(DataError, match=r"shapes.xyz:1: the chirality 'chirality' must have shape \(\), got \(2,\)"):
        list(ExtxyzDataset(path, labels=["chirality"]))
    del frames[1].info["chirality"]
    write(path, frames, format="extxyz")
    with pytest.raises(DataError, match="Give the frames the key 'chirality'"):
        list(ExtxyzDataset(path, labels=["chirality"]))
