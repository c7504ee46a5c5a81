"""A number of bits for each row: the best share of the bits against brute force, and what a matrix checks."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from leanmatch.errors import DataError
from leanmatch.factorization import MixedIntMatrix
from leanmatch.factorization.arrays import best_odd_scale, odd_codes
from leanmatch.factorization.factors import ROW_BITS
from leanmatch.factorization.mixed import ROW_ERRORS, UNSEEN, bits_of_rows, round_rows


def loss(counts, bits):
    error = dict(zip(ROW_BITS, ROW_ERRORS, strict=True))
    return sum((count + UNSEEN) * error[int(b)] for count, b in zip(counts, bits, strict=True))


@pytest.mark.parametrize("average", [2.0, 2.2, 2.6, 3.0, 3.8, 5.0, 6.0])
@pytest.mark.parametrize("seed", range(4))
def test_no_other_share_of_as_many_bits_has_less_error(average, seed):
    counts = np.random.default_rng(seed).choice([0, 0, 1, 2, 9, 400], 5)
    bits = bits_of_rows(counts, average)
    spent = int(bits.sum())
    assert bits.dtype == np.uint8 and average * 5 - 2 < spent <= average * 5
    others = (other for other in itertools.product(ROW_BITS, repeat=5) if sum(other) <= spent)
    assert loss(counts, bits) <= min(loss(counts, other) for other in others) + 1e-12


def test_rows_that_are_read_more_often_never_have_fewer_bits():
    counts = np.random.default_rng(0).geometric(0.01, 1000) - 1
    bits = bits_of_rows(counts, 2.7)
    assert set(bits.tolist()) == {2, 3, 4} or set(bits.tolist()) == {2, 3, 4, 6}
    ordered = bits[np.argsort(counts, kind="stable")]
    assert all(
        bits[counts == count].max() <= bits[counts > count].min(initial=6) for count in set(counts.tolist())
    )
    assert ordered[0] == 2 and ordered[-1] > 2
    assert bits_of_rows(np.zeros(10, np.int64), 2.25).tolist() == [3, 3] + 8 * [2], "of equal rows the first"


@pytest.mark.parametrize("n", [1, 7, 32])
def test_each_row_is_rounded_as_if_it_were_alone(n):
    rng = np.random.default_rng(n)
    weight = rng.normal(size=(11, n)).astype(np.float32)
    weight[3] = 0
    bits = np.array([2, 3, 4, 6, 6, 2, 3, 2, 4, 4, 3], np.uint8)
    mixed = round_rows(weight, bits)
    assert mixed.shape == (11, n) and mixed.average_bits == pytest.approx(bits.mean())
    for row, width in enumerate(bits.tolist()):
        if row != 3:
            scale = best_odd_scale(weight[row : row + 1], width)
            assert mixed.scale[row] == scale[0]
            np.testing.assert_array_equal(mixed.q[row], odd_codes(weight[row : row + 1], scale, width)[0])
    assert np.abs(mixed.dense()[3]).max() < 1e-7
    np.testing.assert_array_equal(mixed.dense(), mixed.q * mixed.scale[:, None])
    np.testing.assert_array_equal(mixed.as_int8().dense(), mixed.dense())
    assert mixed.cost().bits == n * int(bits.sum()) + 18 * 11 and mixed.cost().macs == 11 * n


def test_errors_are_those_that_the_share_counts_with():
    weight = np.random.default_rng(0).normal(size=(16, 8192)).astype(np.float32)
    for bits, wanted in zip(ROW_BITS, ROW_ERRORS, strict=True):
        dense = round_rows(weight, np.full(16, bits, np.uint8)).dense()
        assert np.square(weight - dense).sum() / np.square(weight).sum() == pytest.approx(wanted, rel=0.02)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"row_bits": np.array([2, 5, 6], np.uint8)}, r"one of 2, 3, 4, 6 \(found 5 in row 1\)"),
        ({"row_bits": np.array([2, 3], np.uint8)}, "row_bits must have one entry for each of 3 rows"),
        ({"scale": np.ones(2, np.float32)}, "scale must have one entry for each of 3 rows"),
        ({"scale": np.array([1, 0, 1], np.float32)}, "above 0"),
        (
            {"q": np.array([[1, 5], [7, 1], [63, 1]], np.int8)},
            r"of 2 bits .* -3 and 3 \(found 1 to 5 in row 0\)",
        ),
        ({"q": np.array([[1, 3], [7, 2], [63, 1]], np.int8)}, "even number in row 1"),
        ({"q": np.ones((3, 2), np.int16)}, "int8"),
    ],
)
def test_bad_arrays_are_refused(change, message):
    good = {
        "q": np.array([[1, 3], [7, -7], [63, 1]], np.int8),
        "scale": np.ones(3, np.float32),
        "row_bits": np.array([2, 3, 6], np.uint8),
    }
    MixedIntMatrix(**good)
    with pytest.raises(DataError, match=message):
        MixedIntMatrix(**(good | change))
