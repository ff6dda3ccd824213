"""Splits: seeded, disjoint, without the same geometry on two sides."""

import time

import numpy as np
import pytest
from ase.build import molecule
from hypothesis import given
from hypothesis import strategies as st

from mlip.core.errors import ConfigError, DataError
from mlip.data.content_hash import geometry_hash
from mlip.data.leakage import check_duplicates
from mlip.data.sample import Sample
from mlip.data.splits import group_split, size_split, split_at_sizes, split_indices


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
        ({"train": True}, ConfigError, "count, a fraction, a list"),
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
        check_duplicates({name: [data[index] for index in part] for name, part in split.items()})
    assert check_duplicates({name: [data[index] for index in part] for name, part in split.items()}, allow=True) == 1


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


GROUP_SIZES = st.lists(st.integers(1, 30), min_size=3, max_size=60)


@given(GROUP_SIZES, st.sampled_from([(0.8, 0.1, 0.1), (0.5, 0.5, 0.0), (0.9, 0.1, 0)]), st.integers(0, 3))
def test_groups_stay_together_and_every_sample_is_used(sizes, parts, seed):
    groups = [f"mp-{number}" for number, size in enumerate(sizes) for _ in range(size)]
    split = group_split(groups, *parts, seed=seed)
    assert sorted(index for part in split.values() for index in part) == list(range(len(groups)))
    names = [{groups[index] for index in part} for part in split.values()]
    assert sum(map(len, names)) == len(sizes), "a group is in two parts"
    for part, wanted in zip(("valid", "test"), parts[1:]):
        count = int(wanted * len(groups) + 1e-9)
        assert bool(split[part]) == bool(count)
        # One of the largest groups more or less is as far off as it can be.
        assert abs(len(split[part]) - count) <= max(sizes)
    assert all(type(index) is int for part in split.values() for index in part)


def test_groups_fill_the_parts_to_the_sample_and_do_not_depend_on_the_order_of_samples():
    sizes = np.random.default_rng(0).integers(1, 40, 3000)
    groups = np.repeat([f"mp-{number}" for number in range(3000)], sizes).tolist()
    split = group_split(groups, 0.8, 0.1, 0.1, seed=3)
    assert [len(split[name]) for name in ("valid", "test")] == [int(0.1 * len(groups))] * 2
    mixed = np.random.default_rng(1).permutation(len(groups))
    other = group_split([groups[index] for index in mixed], 0.8, 0.1, 0.1, seed=3)
    assert {groups[index] for index in split["test"]} == {groups[mixed[index]] for index in other["test"]}
    assert group_split(groups, 0.7, 0.2, 0.1, seed=3)["test"] == split["test"]
    assert group_split(groups, 0.8, 0.1, 0.1, seed=4) != split
    few = group_split(groups, 1000, 100, 100)
    assert [len(few[name]) for name in ("train", "valid", "test")] == [1000, 100, 100]


def test_few_large_groups_still_give_every_part_one():
    groups = [name for name in "abcde" for _ in range(1000)]
    split = group_split(groups, 0.8, 0.1, 0.1)
    assert [len(part) for part in split.values()] == [3000, 1000, 1000]


@pytest.mark.parametrize(
    ("groups", "arguments", "error", "words"),
    [
        (["a", "a", "b"], {"train": 1, "valid": 1, "test": 1}, ConfigError, "2 groups cannot be split into train"),
        (["a", None, "b"], {"train": 1.0}, DataError, "Sample 1 has no group"),
        (["a", ""], {"train": 1.0}, DataError, "Sample 1 has no group"),
        (["a", "b"], {"train": 3}, ConfigError, "more samples than"),
        (["a", "b"], {"train": 0, "valid": 1}, ConfigError, "training part is empty"),
        (["a", "b", "a"], {"train": [0, 1], "valid": [2]}, DataError, "group 'a' is in two parts, train and valid"),
    ],
)
def test_bad_group_splits_are_refused(groups, arguments, error, words):
    with pytest.raises(error, match=words):
        group_split(groups, **arguments)


def test_listed_parts_are_taken_as_they_are_by_group_too():
    assert group_split(["a", "b", "a"], [0, 2], [1]) == {"train": [0, 2], "valid": [1], "test": []}


@pytest.mark.slow
def test_the_groups_of_all_of_mptrj_take_seconds():
    groups = [f"mp-{number // 11}" for number in range(1_580_395)]
    start = time.perf_counter()
    split = group_split(groups, 0.9, 0.05, 0.05)
    assert time.perf_counter() - start < 10
    assert len(split["test"]) == pytest.approx(0.05 * len(groups), abs=11)


def test_split_by_size_trains_on_the_small_and_tests_on_the_large():
    sizes = [5, 1, 9, 2, 2, 3, 8, 1, 3, 2]
    split = size_split(sizes, 0.6, 0.2, 0.2)
    assert split == {"train": [1, 3, 4, 7, 9], "valid": [0, 5, 8], "test": [2, 6]}
    assert size_split(sizes, 8, 0, 2) == {"train": [0, 1, 3, 4, 5, 7, 8, 9], "valid": [], "test": [2, 6]}
    assert size_split([1, 1, 1, 1, 2, 3], 0.4, 0.3, 0.3) == {"train": [0, 1, 2, 3], "valid": [4], "test": [5]}
    assert split_at_sizes(sizes, 3, 5) == {"train": [1, 3, 4, 5, 7, 8, 9], "valid": [0], "test": [2, 6]}
    for arguments, words in [((0.5, 0.1), "must add up"), ((0, 0.5, 0.5), "must add up"), ((8, 1, 1), None)]:
        with pytest.raises(ConfigError, match=words or "2 different sizes cannot"):
            size_split(sizes if words else [1, 2] * 5, *arguments)
    with pytest.raises(ConfigError, match="No structure has at most 0 atoms"):
        split_at_sizes(sizes, 0, 5)
