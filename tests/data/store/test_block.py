"""Blocks: every field comes back exactly, and damage is noticed."""

import json

import numpy as np
import pytest
from ase import Atoms
from hypothesis import given, settings
from hypothesis import strategies as st

from mlip.core.errors import DataError
from mlip.core.fields import DATA_FIELDS
from mlip.data.content_hash import sample_hash
from mlip.data.datasets.extxyz import ExtxyzDataset
from mlip.data.sample import Sample
from mlip.data.store.block import BLOCK_ATOMS, BLOCK_SAMPLES, pack, runs, unpack, unpack_infos
from mlip.data.store.columns import check_sample
from mlip.data.store.streams import Writer
from tests.data.store.made import assert_same, crystal, molecule, samples


def test_every_field_comes_back_exactly():
    expected = samples(12)
    assert {name for sample in expected for name in sample.labels} == set(DATA_FIELDS)
    for found, sample in zip(unpack(pack(expected)), expected, strict=True):
        assert_same(found, sample)
        assert sample_hash(found) == sample_hash(sample)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 9), st.integers(1, 6)), min_size=1, max_size=8))
def test_any_mixture_of_sizes_and_fields_comes_back(kinds):
    rng = np.random.default_rng(len(kinds))
    expected = [crystal(rng, atoms) if periodic else molecule(rng, atoms, n) for periodic, atoms, n in kinds]
    for sample in expected[::2]:
        sample.labels.popitem()
    for found, sample in zip(unpack(pack(expected)), expected, strict=True):
        assert_same(found, sample)


def test_a_structure_without_labels_comes_back():
    bare = Sample(Atoms("H2", [[0, 0, 0], [0, 0, 0.74]]), {}, {})
    assert_same(unpack(pack([bare]))[0], bare)


def test_partly_periodic_and_asymmetric_tensors_come_back():
    rng = np.random.default_rng(0)
    slab = crystal(rng)
    slab.atoms.pbc = [True, False, True]
    slab.labels["stress"] = rng.normal(size=(3, 3))
    slab.labels["stress"][0, 1] = -0.0
    assert_same(unpack(pack([slab]))[0], slab)


@pytest.mark.parametrize(
    "infos",
    [
        [{}, {}],
        [{"source": "a:0"}, {"source": "a:1"}],
        [{"source": "a:1"}, {"source": "a:0"}],
        [{"source": "Å/b: c:07"}, {"source": "Å/b: c:08"}],
        [{"source": "x"}, {"source": "y", "group": "g"}],
        [{"b": 1, "a": [1, {"c": None}]}, {"a": 2.5, "b": True}],
        [{"source": {"file": "a", "first": 0}}, {"source": {"file": "a", "first": 1}}],
        [{"source": ":0"}, {}],
        [{"source": "a\udcff:1"}, {"source": "a\udcff:2"}],
        [{"source": "a:" + "9" * 5000}],
    ],
)
def test_provenance_comes_back_in_its_order(infos):
    rng = np.random.default_rng(0)
    record = pack([crystal(rng, **info) for info in infos])
    assert [list(info.items()) for info in unpack_infos(record)] == [list(info.items()) for info in infos]
    assert [sample.info for sample in unpack(record)] == infos


def test_samples_are_copies():
    block = unpack(pack(samples(3)))
    first = block[0]
    first.labels["forces"][:] = 0
    first.atoms.positions[:] = 0
    first.info["source"] = "changed"
    assert_same(block[0], samples(3)[0])


def test_blocks_hold_up_to_their_numbers_and_at_least_one_sample():
    rng = np.random.default_rng(0)
    sizes = [200, 200, 200, 600, 5, 507, 1]
    cut = [[len(sample.atoms) for sample in run] for run in runs(iter([crystal(rng, n) for n in sizes]))]
    assert cut == [[200, 200], [200], [600], [5, 507], [1]]
    assert BLOCK_ATOMS == 512
    assert [len(run) for run in runs(crystal(rng, 2) for _ in range(45))] == [BLOCK_SAMPLES, BLOCK_SAMPLES, 5]
    # Three matrices each: one structure is read without decoding ten megabytes of others.
    assert [len(run) for run in runs(molecule(rng, 4, orbitals=100) for _ in range(5))] == [2, 2, 1]
    assert list(runs([])) == []


def test_every_changed_byte_and_every_cut_is_noticed():
    record = pack(samples(3))
    for at in range(0, len(record), 7):
        changed = record[:at] + bytes([record[at] ^ 1 << at % 8]) + record[at + 1 :]
        with pytest.raises(DataError, match=r"damaged: here .* mlip data prepare"):
            unpack(changed, "here")
        with pytest.raises(DataError, match="damaged"):
            unpack(record[:at])


def test_a_record_of_something_else_is_damage():
    writer = Writer()
    writer.text(b"5")
    for record in (writer.finish(), Writer().finish()):
        with pytest.raises(DataError, match="damaged"):
            unpack(record)


BAD = {
    "no atoms": (Sample(Atoms(), {}, {"source": "f:1"}), "f:1: a structure needs at least one atom"),
    "no element": (Sample(Atoms("X"), {}, {"source": "f:1"}), "f:1: atomic numbers must be 1 to 118"),
    "nan position": (Sample(Atoms("H", [[np.nan, 0, 0]]), {}), "positions and cell must be finite"),
    "nan label": (Sample(Atoms("H"), {"energy": np.array(np.nan)}), "the energy is not finite"),
    "shape": (Sample(Atoms("H2"), {"forces": np.zeros((3, 3))}), r"the forces of 2 atoms cannot have .*\(3, 3\)"),
    "matrix": (Sample(Atoms("H"), {"overlap": np.zeros((2, 3))}), r"cannot have the shape \(2, 3\)"),
    "kind": (Sample(Atoms("H"), {"charge": np.array(0.5)}), "the charge must be of kind int"),
    "field": (Sample(Atoms("H"), {"dipole": np.zeros(3)}), "'dipole' is no field"),
    "info": (Sample(Atoms("H"), {}, {"when": np.zeros(2)}), "plain JSON"),
    "info key": (Sample(Atoms("H"), {}, {1: "a"}), "texts as keys"),
    "info tuple": (Sample(Atoms("H"), {}, {"a": (1, 2)}), "lists in place of tuples"),
    "large": (Sample(Atoms("H"), {"charge": np.array(2**63, dtype=np.uint64)}), "of kind int, got uint64"),
    "info nan": (Sample(Atoms("H"), {}, {"when": float("nan")}), "plain JSON"),
}


@pytest.mark.parametrize("name", BAD)
def test_samples_that_cannot_be_right_are_refused(name):
    sample, message = BAD[name]
    with pytest.raises(DataError, match=message):
        check_sample(sample)


@pytest.mark.reference
def test_real_crystals_take_well_below_the_text_compressed_by_xz(reference_data):
    """xz makes 489,900 bytes of the file; numbers are compared with those that the adapter read."""
    expected = list(ExtxyzDataset(reference_data / "mptrj" / "mptrj-random-sharedpart.xyz", optional_labels=["stress"]))
    records = [pack(run) for run in runs(expected)]
    assert sum(map(len, records)) < 0.56 * 489_900
    found = [sample for record in records for sample in unpack(record)]
    for one, other in zip(found, expected, strict=True):
        assert_same(one, other)
    assert json.loads(json.dumps(found[3].info)) == expected[3].info
