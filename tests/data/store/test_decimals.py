"""Numbers as integers: the same bits back, and the integers that were in the text."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mlip.core.units import KBAR, KCAL_PER_MOL
from mlip.data.store.decimals import find_multiples, put_floats, take_floats
from mlip.data.store.streams import Reader, Writer


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def through(values):
    """Return the numbers after packing, and the size of the record."""
    writer = Writer()
    put_floats(writer, values)
    record = writer.finish()
    return take_floats(Reader(record, "here"), values.size), len(record)


@given(arrays(np.float64, st.integers(0, 40), elements=st.floats(allow_nan=False, width=64)))
def test_any_number_comes_back_bit_for_bit(values):
    assert through(values)[0].tobytes() == values.tobytes()


@given(
    arrays(np.int64, st.integers(1, 60), elements=st.integers(-(2**53) + 1, 2**53 - 1)),
    st.integers(0, 15),
    st.sampled_from([1.0, KBAR, -KBAR, KCAL_PER_MOL, 27.211386024367243]),
)
def test_decimals_with_or_without_a_factor_come_back(integers, decimals, factor):
    values = integers / 10.0**decimals * factor
    assert through(values)[0].tobytes() == values.tobytes()


@pytest.mark.parametrize(
    "values",
    [
        [0.0, -0.0],
        [-0.0],
        [1e300, -1e-300, 5e-324],
        [np.inf, -np.inf, np.nan],
        [2.0**53, 2.0**53 + 2, -(2.0**63)],
        [0.1, 0.2, 0.30000000000000004],
        [1e-17, 0.5, 0.25, 0.125, -1e-17, 0.75, 0.5, 0.5, 0.5],
        [],
    ],
)
def test_awkward_numbers_come_back(values):
    values = np.array(values, dtype=np.float64)
    assert through(values)[0].tobytes() == values.tobytes()


def test_the_integers_are_those_of_the_text():
    text = ["-5.96479136", "0.00000000", "12.5", "0.10565223"]
    found = find_multiples(np.array([float(word) for word in text]))
    assert found.integers.tolist() == [-596479136, 0, 1250000000, 10565223]
    assert (found.decimals, found.factor) == (8, 1.0)


def test_stress_in_kbar_is_found_behind_its_conversion():
    kbar = np.array([-12.34567891, 0.5, 1234.00000001])
    found = find_multiples(kbar * KBAR)
    assert (found.decimals, found.factor) == (8, KBAR)
    assert found.integers.tolist() == [-1234567891, 50000000, 123400000001]


def test_numbers_that_carry_noise_of_arithmetic_stay_small(rng):
    exact = np.round(rng.uniform(-10, 10, 300), 8)
    noisy = np.nextafter(exact, np.where(rng.integers(0, 2, 300), 20, exact))
    back, size = through(noisy)
    assert back.tobytes() == noisy.tobytes()
    assert find_multiples(noisy).decimals == 8
    assert size < 0.62 * noisy.nbytes


def test_decimals_take_half_of_the_space_and_noise_no_more_than_its_own(rng):
    assert through(np.round(rng.normal(size=3000), 8))[1] < 0.5 * 24000
    assert find_multiples(rng.normal(size=3000)) is None
    assert through(rng.normal(size=3000))[1] < 1.01 * 24000
