"""Decoding and its gradients against float64, at every level."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from factor_examples import factors_of, shapes
from leanmatch.errors import DataError
from leanmatch.factorization.dense_sparse import decode_reference
from leanmatch.factorization.pursuit.native import decode, decode_backward

across_levels = settings(
    deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
USUAL = [(33, 2, 20, b, 3) for b in (8, 16, 32, 12)] + [(9, 3, 300, 16, 4)]


def backward_reference(gradient, factors):
    m, blocks, k = factors.indices.shape
    g = gradient.astype(float).reshape(m, blocks, factors.block)
    d_values, d_atoms = np.zeros((m, blocks, k)), np.zeros(factors.atoms.shape)
    for row in range(m):
        for i in range(blocks):
            for j in range(k):
                atom = factors.indices[row, i, j]
                d_values[row, i, j] = factors.atoms[i, atom].astype(float) @ g[row, i]
                d_atoms[i, atom] += factors.values[row, i, j] * g[row, i]
    return d_values, d_atoms


def check(shape):
    factors = factors_of(*shape)
    arrays = factors.indices, factors.values, factors.atoms
    np.testing.assert_allclose(decode(*arrays), decode_reference(*arrays), rtol=1e-5, atol=1e-5)
    gradient = np.random.default_rng(1).normal(size=factors.shape).astype(np.float32)
    for threads in (1, 3):
        found = decode_backward(gradient, *arrays, threads=threads)
        for got, expected in zip(found, backward_reference(gradient, factors), strict=True):
            assert got.dtype == np.float32
            np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


@across_levels
@given(shape=shapes())
def test_odd_shapes(each_level, shape):
    check(shape)


@pytest.mark.parametrize("shape", USUAL)
def test_usual_shapes(each_level, shape):
    check(shape)


def test_gradients_are_those_of_decode():
    """Finite differences of <decode, direction> in float64."""
    factors = factors_of(5, 2, 7, 4, 2)
    direction = np.random.default_rng(1).normal(size=factors.shape).astype(np.float32)
    d_values, d_atoms = decode_backward(direction, factors.indices, factors.values, factors.atoms)
    for gradient, change in ((d_values, "values"), (d_atoms, "atoms")):
        arrays = {"values": factors.values.astype(float), "atoms": factors.atoms.astype(float)}
        step = np.random.default_rng(2).normal(size=arrays[change].shape)
        ends = []
        for sign in (1, -1):
            moved = arrays | {change: arrays[change] + sign * 1e-6 * step}
            ends.append((decode_reference(factors.indices, **moved) * direction).sum())
        assert abs(gradient).max() > 0.1
        np.testing.assert_allclose((gradient * step).sum(), (ends[0] - ends[1]) / 2e-6, rtol=1e-4)


def test_out_is_written_in_place():
    factors = factors_of(5, 2, 7, 4, 2)
    out = np.full(factors.shape, np.nan, np.float32)
    assert decode(factors.indices, factors.values, factors.atoms, out=out) is out
    np.testing.assert_allclose(out, factors.dense(), atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: {"indices": a["indices"] + np.uint8(7)}, "below the number of atoms, 7"),
        (lambda a: {"indices": a["indices"][:, :1]}, r"shape \(5, 2, 2\)"),
        (lambda a: {"atoms": a["atoms"][:1]}, "must share B"),
        (lambda a: {"values": a["values"].astype(float)}, "float32"),
        (lambda a: {"out": np.zeros((5, 7), np.float32)}, r"shape \(5, 8\)"),
        (lambda a: {"out": np.zeros((8, 5), np.float32).T}, "contiguous"),
    ],
)
def test_bad_calls_are_refused(change, message):
    factors = factors_of(5, 2, 7, 4, 2)
    arrays = {"indices": factors.indices, "values": factors.values, "atoms": factors.atoms}
    with pytest.raises(DataError, match=message):
        decode(**(arrays | change(arrays)))
    with pytest.raises(DataError, match=r"shape \(5, 8\)"):
        decode_backward(np.zeros((5, 7), np.float32), **arrays)
