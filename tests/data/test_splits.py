"""Splits: seeded, disjoint, without the same geometry on two sides."""

import numpy as np
import pytest
from ase.build import molecule
from hypothesis import given
from hypothesis import strategies as st

from mlip.core.errors import ConfigError, DataError
from mlip.data.sample import Sample
from mlip.data.splits import check_duplicates, geometry_hash, split_indices, split_samples


def samples(count):
    made = []
    for number in range(count):
        atoms = molecule("H2O")
        atoms.rattle(0.1, seed=number)
        made.append(Sample(atoms, {}, {"source": f"a.xyz:{number}"}))
    return made


@given(st.integers(1, 300), st.integers(0, 100), st.integers(0, 100), st.integers(0, 5))
def test_random_parts_are_disjoint_and_depend_on_the_seed_alone(num_samples, valid, test, seed):
    valid, test = valid % num_samples, test % num_samples
    train = num_samples - valid - test
    if train < 1:
        with pytest.raises(ConfigError):
            split_indices(num_samples, max(train, 0), valid, test, seed)
        return
    split = split_indices(num_samples, train, valid, test, seed)
    assert [len(part) for part in split.values()] == [train, valid, test]
    assert sorted(index for part in split.values() for index in part) == list(range(num_samples))
    assert split == split_indices(num_samples, train, valid, test, seed)
    assert all(type(index) is int for part in split.values() for index in part)


@given(
    st.integers(2, 1000),
    st.sampled_from([(0.9, 0.1, 0), (0.8, 0.1, 0.1), (0.7, 0.2, 0.1), (0.29, 0.71, 0.0)]),
)
def test_fractions_that_sum_to_one_use_every_sample(num_samples, parts):
    split = split_indices(num_samples, *parts, seed=1)
    assert sum(len(part) for part in split.values()) == num_samples


def test_seeds_differ():
    assert split_indices(50, 40, 10, seed=0) != split_indices(50, 40, 10, seed=1)


def test_listed_parts_and_files(tmp_path):
    (tmp_path / "valid.txt").write_text("3\n4\n")
    split = split_indices(6, [0, 1, 2], str(tmp_path / "valid.txt"), None)
    assert split == {"train": [0, 1, 2], "valid": [3, 4], "test": []}


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"train": 8, "valid": 4}, ConfigError, "asks for more samples .* train=8, valid=4, test=0 of 10"),
        ({"train": 1.5}, ConfigError, "fraction from 0 to 1"),
        ({"train": -1}, ConfigError, "must not be negative"),
        ({"train": 0, "valid": 5}, ConfigError, "training part is empty"),
        ({"train": [0, 1], "valid": [1]}, DataError, "Sample 1 is listed twice: in train and in valid"),
        ({"train": [0, 0]}, DataError, "listed twice"),
        ({"train": [0, 10]}, DataError, "lists 10, which is no sample: indices go from 0 to 9"),
        ({"train": [0], "valid": 3}, ConfigError, "all be lists"),
        ({"train": "nowhere.txt"}, DataError, "Cannot read the index file"),
    ],
)
def test_bad_splits_are_refused(arguments, error, words):
    with pytest.raises(error, match=words):
        split_indices(10, **arguments)


def test_index_file_with_words_is_refused(tmp_path):
    (tmp_path / "train.txt").write_text("1\ntwo\n")
    with pytest.raises(DataError, match="whole numbers only"):
        split_indices(10, str(tmp_path / "train.txt"))


def test_the_same_geometry_in_two_parts_is_refused():
    data = samples(10)
    split = split_indices(10, 8, 2)
    copied = data[split["train"][0]]
    data[split["valid"][0]] = Sample(copied.atoms.copy(), {}, {"source": "copy"})
    with pytest.raises(DataError, match=r"1 geometries are in two parts, first a\.xyz:\d \(train\) and copy \(valid\)"):
        split_samples(data, 8, 2)
    assert split_samples(data, 8, 2, allow_duplicates=True) == split


def test_copies_in_one_part_are_no_leak():
    one, other = samples(2)
    assert check_duplicates({"train": [one, one], "valid": [other]}) == 0


def test_geometry_hash_ignores_noise_and_the_box_of_a_molecule():
    atoms = molecule("H2O")
    other = atoms.copy()
    other.positions += 1e-9
    other.set_cell([50, 50, 50])
    assert geometry_hash(atoms) == geometry_hash(other)
    other.pbc = True
    assert geometry_hash(atoms) != geometry_hash(other)
    atoms.positions[0, 0] += 1e-3
    assert geometry_hash(atoms) != geometry_hash(molecule("H2O"))
    negative = molecule("H2O")
    negative.positions[:, 0] = -0.0
    assert np.signbit(negative.positions[0, 0])
    zero = negative.copy()
    zero.positions[:, 0] = 0.0
    assert geometry_hash(negative) == geometry_hash(zero)
