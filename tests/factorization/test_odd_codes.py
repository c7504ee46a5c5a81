"""Odd codes of 2 and 3 bits: the best scale against brute force, and what happens at the edges."""

from __future__ import annotations

import numpy as np
import pytest

from leanmatch.factorization import arrays
from leanmatch.factorization.arrays import (
    ODD_BITS,
    SMALLEST_HALF,
    best_odd_scale,
    largest_code,
    odd_codes,
    round_to_codes,
)
from leanmatch.factorization.solvers import solve

KINDS = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "heavy tails": lambda rng, shape: rng.standard_t(2, size=shape),
    "one sign": lambda rng, shape: rng.exponential(size=shape),
    "one size": lambda rng, shape: rng.choice([-0.3, 0.3], size=shape),
    "mostly zeros": lambda rng, shape: rng.normal(size=shape) * (rng.random(shape) < 0.2),
}


def values_of(kind, shape, seed=0):
    return KINDS[kind](np.random.default_rng(seed), shape).astype(np.float32)


def error_of(values, scale, bits):
    """Squared errors ``(..., scales)`` at scales ``(..., scales)``, from the definition, in float64."""
    odd = np.arange(-largest_code(bits), largest_code(bits) + 1, 2)
    levels = scale[..., None] * odd  # (rows, scales, codes)
    distance = np.abs(values[:, None, :, None].astype(np.float64) - levels[:, :, None, :])
    return np.square(distance.min(axis=-1)).sum(axis=-1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", ODD_BITS)
@pytest.mark.parametrize("n", [1, 2, 5, 17])
def test_the_scale_is_the_best_there_is(kind, bits, n):
    values = values_of(kind, (9, n), seed=n)
    values = values[np.abs(values).max(axis=1) > 0]
    largest = np.abs(values).max(axis=1, keepdims=True).astype(np.float64)
    tried = largest * np.linspace(0.02, 1.2, 4001)  # above the largest value the error only grows
    brute = error_of(values, tried, bits).min(axis=1)
    scale = best_odd_scale(values, bits)
    found = error_of(values, scale[:, None].astype(np.float64), bits)[:, 0]
    size = np.square(values.astype(np.float64)).sum(axis=1)
    assert (found <= brute + 1e-6 * size).all()
    if n == 17 and kind == "normal":
        assert (brute > 0.005 * size).all(), "there was an error to make small"


@pytest.mark.parametrize("bits", ODD_BITS)
def test_codes_are_odd_in_range_nearest_and_all_in_use(bits):
    values = values_of("normal", (7, 3, 41))
    q, scale = round_to_codes(values, bits)
    assert q.dtype == np.int8 and q.shape == values.shape and scale.shape == (7, 3)
    assert scale.dtype == np.float32 and scale.min() > 0
    assert sorted(set(q.ravel().tolist())) == list(range(-largest_code(bits), largest_code(bits) + 1, 2))
    levels = scale[..., None, None] * np.arange(-largest_code(bits), largest_code(bits) + 1, 2)
    nearest = np.abs(values[..., None] - levels).min(axis=-1)
    np.testing.assert_allclose(np.abs(values - q * scale[..., None]), nearest, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("bits", ODD_BITS)
def test_scales_fit_float16_as_an_artifact_keeps_them(bits):
    values = values_of("normal", (50, 40)) * np.geomspace(1e-3, 1e3, 50, dtype=np.float32)[:, None]
    scale = best_odd_scale(values, bits)
    assert (scale == scale.astype(np.float16)).all() and len(np.unique(scale)) > 40
    for size in (1e-12, 1e-30, 1e30):  # beyond float16: float32, with the same codes
        tiny = best_odd_scale((values * size).astype(np.float32), bits)
        np.testing.assert_allclose(tiny, scale * np.float32(size), rtol=2e-3)
        codes = odd_codes(values * np.float32(size), tiny, bits)
        assert (codes == odd_codes(values, scale, bits)).mean() > 0.99


@pytest.mark.parametrize("bits", ODD_BITS)
def test_rows_of_zeros_stay_next_to_zero(bits):
    values = values_of("normal", (4, 12))
    values[[0, 3]] = 0
    q, scale = round_to_codes(values, bits)
    assert (scale[[0, 3]] == SMALLEST_HALF).all() and np.abs(q[[0, 3]]).max() == 1
    assert np.abs(q * scale[:, None])[[0, 3]].max() < 1e-7 < np.abs(values[1]).min()
    q, scale = round_to_codes(values * np.float32(1e-20), bits)
    assert (scale[[0, 3]] == scale[[1, 2]].min()).all(), "no larger than the other rows"
    q, scale = round_to_codes(np.zeros((2, 5), np.float32), bits)
    assert np.abs(q).max() == 1 and (scale == SMALLEST_HALF).all()
    assert round_to_codes(np.zeros((0, 5), np.float32), bits)[1].shape == (0,)


@pytest.mark.parametrize("bits", ODD_BITS)
def test_parts_do_not_depend_on_one_another(bits, monkeypatch):
    values = values_of("heavy tails", (23, 13))
    whole = best_odd_scale(values, bits)
    monkeypatch.setattr(arrays, "_MOST_AT_ONCE", 40)
    np.testing.assert_array_equal(best_odd_scale(values, bits), whole)
    np.testing.assert_array_equal(best_odd_scale(values[5:6], bits), whole[5:6])


def test_errors_are_those_of_the_best_quantizers_of_normal_numbers():
    """Max, "Quantizing for minimum distortion" (1960), equal steps: .1188 of the variance with 2 bits, .03744
    with 3."""
    weight = values_of("normal", (64, 4096))
    for method, wanted in (("int2", 0.1188), ("int3", 0.03744)):
        result = solve(weight, method)
        assert result.report.relative_error == pytest.approx(wanted, rel=0.01)
        assert result.factors.bits == int(method[3:]) and result.factors.scale.shape == (64, 1)
        groups = solve(weight, method, group=16)
        assert groups.report.relative_error < 0.9 * result.report.relative_error


@pytest.mark.parametrize("bits", [8, 6, 4])
def test_more_bits_keep_their_scale(bits):
    values = values_of("normal", (5, 9))
    values[2] = 0
    q, scale = round_to_codes(values, bits)
    wanted = np.abs(values).max(axis=1) / np.float32(2 ** (bits - 1) - 1)
    wanted[2] = 1
    np.testing.assert_array_equal(scale, wanted)
    assert q[0].any() and not q[2].any()
    np.testing.assert_array_equal(q, np.rint(values / scale[:, None]))
