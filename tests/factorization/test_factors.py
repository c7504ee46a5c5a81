"""The forms of a matrix: what they stand for, what they cost, what they refuse."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings

from factor_examples import factors_of, shapes, support_of
from leanmatch.errors import DataError, UsageError
from leanmatch.factorization import Cost, Dense, DenseSparse, IntMatrix, LowRank, QuantizedDenseSparse
from leanmatch.factorization.checks import check_indices, index_dtype


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def codes(*shape, most=127, seed=0):
    return np.random.default_rng(seed).integers(-most, most + 1, shape).astype(np.int8)


def test_dense_is_the_matrix_and_its_cost():
    weight = normal(3, 5)
    assert Dense(weight).dense() is weight
    assert Dense(weight).shape == (3, 5)
    assert Dense(weight).cost() == Cost(macs=15, bits=15 * 32)
    assert Dense(weight).cost(float_bits=16).bytes == 30


def test_int_matrix_scales_each_group_of_a_row():
    q, scale = codes(3, 6, most=7), np.abs(normal(3, 2)) + 0.1
    form = IntMatrix(q, scale, bits=4)
    assert form.group == 3
    for row in range(3):
        for column in range(6):
            assert form.dense()[row, column] == q[row, column] * scale[row, column // 3]
    assert form.dense().dtype == np.float32
    assert form.cost() == Cost(macs=18, bits=18 * 4 + 6 * 16)


def test_low_rank_multiplies_floats_and_codes():
    left, right = normal(4, 2), normal(2, 7)
    np.testing.assert_array_equal(LowRank(left, right).dense(), left @ right)
    assert LowRank(left, right).cost() == Cost(macs=2 * 11, bits=2 * 11 * 32)
    mixed = LowRank(left, IntMatrix(codes(2, 7), np.full((2, 1), 0.5, np.float32)))
    np.testing.assert_allclose(mixed.dense(), left @ (0.5 * codes(2, 7)), rtol=1e-4, atol=1e-4)
    assert (mixed.shape, mixed.rank) == ((4, 7), 2)
    assert mixed.cost().bits == 8 * 32 + 14 * 8 + 2 * 16


@settings(deadline=None, max_examples=40)
@given(shapes())
def test_dense_sparse_is_the_sum_of_its_atoms(shape):
    m, blocks, r, b, _ = shape
    factors = factors_of(*shape)
    sparse = np.zeros((m, blocks, r))
    np.put_along_axis(sparse, factors.indices.astype(int), factors.values, axis=2)
    expected = np.einsum("mir,irb->mib", sparse, factors.atoms.astype(float)).reshape(m, blocks * b)
    assert factors.shape == expected.shape == factors.dense().shape
    np.testing.assert_allclose(factors.dense(), expected, rtol=1e-5, atol=1e-5)


def test_dense_sparse_costs_what_design_says():
    factors = factors_of(m=384, blocks=24, r=64, b=16, k=4)
    m, n = 384, 384
    assert factors.cost().macs == n * 64 + m * 4 * n // 16
    assert factors.cost().bits == n * 64 * 32 + m * 24 * 4 * (32 + 6)
    assert factors.quantize(4).cost().bits == n * 64 * 8 + m * 24 * 4 * (4 + 6) + 16 * (m + 24 * 64)
    assert factors_of(5, 1, 65, 3, 2).cost(16).bits == 3 * 65 * 16 + 5 * 2 * (16 + 7)  # ceil(log2 65)


def test_identity_atoms_are_pruning_and_cost_nothing():
    factors = DenseSparse.with_identity(support_of(6, 3, 4, 2), normal(6, 3, 2), block=4)
    assert factors.cost() == Cost(macs=6 * 3 * 2, bits=6 * 3 * 2 * (32 + 2))
    assert (np.count_nonzero(factors.dense().reshape(6, 3, 4), axis=2) == 2).all()
    quantized = factors.quantize()
    assert quantized.cost().bits == 6 * 3 * 2 * (8 + 2) + 6 * 16
    assert quantized.identity
    assert quantized.dequantize().identity
    with pytest.raises(DataError, match="identity matrices"):
        DenseSparse(normal(3, 4, 4), factors.indices, factors.values, identity=True)
    with pytest.raises(DataError, match="of scale 1"):
        dataclasses.replace(quantized, atoms_scale=quantized.atoms_scale * 2)


@pytest.mark.parametrize(("bits", "most"), [(8, 127), (6, 31), (4, 7)])
def test_quantize_rounds_to_the_nearest_code(bits, most):
    factors = factors_of(m=17, blocks=3, r=20, b=5, k=3)
    factors.values[3] = 0
    quantized = factors.quantize(value_bits=bits)
    again = quantized.dequantize()
    row_step = np.abs(factors.values).max(axis=(1, 2), keepdims=True) / most
    atom_step = np.abs(factors.atoms).max(axis=2, keepdims=True) / 127
    assert (np.abs(again.values - factors.values) <= row_step * 0.5001).all()
    assert (np.abs(again.atoms - factors.atoms) <= atom_step * 0.5001).all()
    assert np.abs(quantized.values_q).max() == most
    assert (quantized.values_q[3] == 0).all()
    assert quantized.values_scale[3] == 1
    np.testing.assert_array_equal(quantized.dense(), again.dense())
    assert (quantized.shape, quantized.value_bits) == (factors.shape, bits)


def test_rounding_survives_the_smallest_and_the_largest_floats():
    factors = factors_of(m=3, blocks=1, r=2, b=2, k=1)
    factors.values[:, 0, 0] = [1e-45, -3e38, 0]
    quantized = factors.quantize()
    np.testing.assert_allclose(quantized.dequantize().values[1], -3e38, rtol=1e-5)
    assert quantized.values_scale[0] > 0


def test_indices_take_the_smallest_dtype():
    assert factors_of(2, 1, 256, 3, 2).indices.dtype == np.uint8
    assert factors_of(2, 1, 257, 3, 2).indices.dtype == np.uint16
    with pytest.raises(DataError, match="at most 65536 atoms"):
        index_dtype(65537)


def good(kind):
    factors = factors_of(m=4, blocks=2, r=5, b=3, k=2)
    return {
        "Dense": Dense(normal(4, 6)),
        "IntMatrix": IntMatrix(codes(4, 6, most=7), np.ones((4, 3), np.float32), bits=4),
        "LowRank": LowRank(normal(4, 2), normal(2, 6)),
        "DenseSparse": factors,
        "QuantizedDenseSparse": factors.quantize(4),
    }[kind]


def planted(array, where, value):
    copy = array.copy()
    copy[where] = value
    return copy


BAD = [
    ("Dense", lambda x: {"weight": x.weight.astype(float)}, "must be float32"),
    ("Dense", lambda x: {"weight": x.weight.tolist()}, "found list"),
    ("Dense", lambda x: {"weight": x.weight[0]}, r"float32 \(m, n\)"),
    ("Dense", lambda x: {"weight": x.weight[:, :0]}, "empty along n"),
    ("Dense", lambda x: {"weight": planted(x.weight, (2, 1), np.nan)}, r"first at \(2, 1\)"),
    ("IntMatrix", lambda x: {"scale": x.scale[:, :0]}, "empty along groups"),
    ("IntMatrix", lambda x: {"scale": np.ones((4, 4), np.float32)}, r"\(m, n / group\)"),
    ("IntMatrix", lambda x: {"scale": planted(x.scale, (0, 0), 0)}, "above 0"),
    ("IntMatrix", lambda x: {"scale": planted(x.scale, (0, 0), np.inf)}, "not finite"),
    ("IntMatrix", lambda x: {"q": planted(x.q, (0, 0), 8)}, "between -7 and 7"),
    (
        "IntMatrix",
        lambda x: {"q": planted(x.q | 1, (1, 2), 9), "bits": 3},
        "3 bits must lie between -7 and 7",
    ),
    ("IntMatrix", lambda x: {"q": planted(x.q | 1, (1, 2), -4), "bits": 3}, r"be odd \(found -4\)"),
    ("IntMatrix", lambda x: {"q": planted(0 * x.q + 3, (0, 0), 5), "bits": 2}, "between -3 and 3"),
    ("IntMatrix", lambda x: {"q": planted(0 * x.q - 3, (0, 0), 0), "bits": 2}, r"be odd \(found 0\)"),
    ("LowRank", lambda x: {"left": x.left[:, :1]}, "must share q"),
    ("LowRank", lambda x: {"right": planted(x.right, (0, 0), np.inf)}, "right has 1 values"),
    ("DenseSparse", lambda x: {"indices": x.indices.astype(np.int64)}, "uint8 or uint16"),
    ("DenseSparse", lambda x: {"indices": planted(x.indices, (0, 0, 0), 5)}, r"5 \(found 5\)"),
    ("DenseSparse", lambda x: {"indices": planted(x.indices, (1, 0), 3)}, "row 1, block 0 names an atom"),
    ("DenseSparse", lambda x: {"indices": x.indices[:, :, :1]}, "that of values"),
    ("DenseSparse", lambda x: {"values": planted(x.values, (0, 0, 0), np.nan)}, "values has 1 values"),
    ("DenseSparse", lambda x: {"atoms": x.atoms[:1]}, "must share B"),
    ("DenseSparse", lambda x: {"atoms": x.atoms[:, :0]}, "empty along r"),
    ("DenseSparse", lambda x: {"atoms": planted(x.atoms, (0, 0, 0), np.inf)}, "atoms has 1 values"),
    ("QuantizedDenseSparse", lambda x: {"atoms_scale": x.atoms_scale[:1]}, r"\(B, r\)"),
    ("QuantizedDenseSparse", lambda x: {"atoms_scale": -x.atoms_scale}, "above 0"),
    ("QuantizedDenseSparse", lambda x: {"values_scale": x.values_scale[:1]}, r"shape \(4,\)"),
    ("QuantizedDenseSparse", lambda x: {"values_scale": x.values_scale * np.nan}, "not finite"),
    ("QuantizedDenseSparse", lambda x: {"values_q": planted(x.values_q, (0, 0, 0), 9)}, "between -7"),
    ("QuantizedDenseSparse", lambda x: {"atoms_q": planted(x.atoms_q, (0, 0, 0), -128)}, "between -127"),
    ("QuantizedDenseSparse", lambda x: {"indices": planted(x.indices, (1, 0), 3)}, "names an atom"),
]


@pytest.mark.parametrize(("kind", "change", "message"), BAD)
def test_bad_arrays_are_refused(kind, change, message):
    form = good(kind)
    with pytest.raises(DataError, match=message):
        dataclasses.replace(form, **change(form))


def test_unknown_bits_are_refused():
    for bits in (1, 5, 6):
        with pytest.raises(UsageError, match="one of 8, 4, 3, 2"):
            dataclasses.replace(good("IntMatrix"), bits=bits)
    with pytest.raises(UsageError, match="one of 8, 6, 4"):
        good("DenseSparse").quantize(value_bits=5)
    with pytest.raises(UsageError, match="atom_bits"):
        good("DenseSparse").quantize(atom_bits=4)
    with pytest.raises(UsageError, match="value_bits"):
        dataclasses.replace(good("QuantizedDenseSparse"), value_bits=2)


def test_no_rows_is_a_matrix_too():
    factors = factors_of(m=0, blocks=2, r=5, b=3, k=2)
    assert factors.dense().shape == factors.quantize().dense().shape == (0, 6)
    assert isinstance(factors.quantize(), QuantizedDenseSparse)
    assert factors.cost().macs == 6 * 5


@pytest.mark.parametrize("nonzeros", [1, 2, 4, 16, 17, 20])
def test_an_atom_named_twice_is_found_wherever_it_is(nonzeros: int) -> None:
    rng = np.random.default_rng(nonzeros)
    indices = np.argsort(rng.random((3, 2, 64)), axis=2)[..., :nonzeros].astype(np.uint8)
    check_indices("indices", indices, 64)
    for first in range(nonzeros):
        for second in range(first):
            bad = indices.copy()
            bad[2, 1, first] = bad[2, 1, second]
            with pytest.raises(DataError, match="row 2, block 1 names an atom twice"):
                check_indices("indices", bad, 64)
