"""The native pursuit against the float64 reference, at every level."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from factor_examples import factors_of, shapes, support_of
from leanmatch.errors import DataError, UsageError
from leanmatch.factorization.pursuit import native as pursuit
from slow_pursuit import pursue_reference, refit_reference

CLEAR = 1e-3  # lead over the runner-up above which float32 must choose the same atom

across_levels = settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def errors_of(weight, codes, atoms):
    m, blocks, _ = codes.indices.shape
    dense = pursuit.decode(codes.indices, codes.values, atoms).astype(float)
    return np.square(dense - weight).reshape(m, blocks, atoms.shape[2]).sum(axis=2)


def assert_distinct(indices):
    assert (np.diff(np.sort(indices.astype(int), axis=2), axis=2) > 0).all()


def assert_same_as_reference(weight, atoms, k, selection, tolerance):
    codes = pursuit.pursue(weight, atoms, k, selection=selection)
    expected = pursue_reference(weight, atoms, k, selection)
    assert_distinct(codes.indices)
    energy = np.square(weight.astype(float)).reshape(*codes.errors.shape, atoms.shape[2]).sum(axis=2)
    assert (np.abs(codes.errors - errors_of(weight, codes, atoms)) <= tolerance * energy + 1e-12).all()
    clear = expected.gap > CLEAR
    np.testing.assert_array_equal(codes.indices[clear], expected.indices[clear])
    difference = np.abs(codes.errors - expected.errors)[clear]
    assert (difference <= tolerance * energy[clear] + 1e-12).all()
    return codes, expected, clear


@pytest.mark.parametrize("selection", pursuit.SELECTIONS)
@across_levels
@given(shape=shapes(), seed=st.integers(0, 99))
def test_same_as_the_reference(each_level, selection, shape, seed):
    m, blocks, r, b, k = shape
    weight, atoms = normal(m, blocks * b, seed=seed), normal(blocks, r, b, seed=seed + 1)
    assert_same_as_reference(weight, atoms, k, selection, tolerance=3e-4)  # some atoms are nearly dependent


@pytest.mark.parametrize("selection", pursuit.SELECTIONS)
@pytest.mark.parametrize(("r", "b", "k"), [(64, 16, 4), (100, 16, 6), (300, 24, 3), (16, 8, 5)])
def test_values_at_the_shapes_that_people_use(each_level, selection, r, b, k):
    weight, atoms = normal(37, 2 * b), normal(2, r, b, seed=1)
    codes, expected, clear = assert_same_as_reference(weight, atoms, k, selection, tolerance=2e-5)
    assert clear.mean() > 0.5
    np.testing.assert_allclose(codes.values[clear], expected.values[clear], rtol=2e-3, atol=2e-4)


def test_gain_errs_less_than_correlation():
    weight, atoms = normal(300, 32), normal(2, 64, 16, seed=1)
    gain, plain = (pursuit.pursue(weight, atoms, 4, selection=name) for name in ("gain", "correlation"))
    assert gain.errors.sum() < 0.99 * plain.errors.sum()


@pytest.mark.parametrize("selection", pursuit.SELECTIONS)
def test_sparse_rows_are_recovered_exactly(each_level, selection):
    """Rows made of two of 16 nearly orthogonal atoms: both are found."""
    factors = factors_of(m=50, blocks=2, r=16, b=16, k=2)
    atoms = np.linalg.qr(normal(2, 16, 16, seed=3))[0] + 0.02 * factors.atoms
    weight = pursuit.decode(factors.indices, factors.values, atoms)
    codes = pursuit.pursue(weight, atoms, 2, selection=selection)
    np.testing.assert_array_equal(np.sort(codes.indices, axis=2), np.sort(factors.indices, axis=2))
    np.testing.assert_allclose(pursuit.decode(codes.indices, codes.values, atoms), weight, atol=1e-5)


@pytest.mark.parametrize("selection", pursuit.SELECTIONS)
def test_duplicate_and_zero_atoms_and_zero_rows(each_level, selection):
    atoms = normal(1, 9, 5, seed=2)
    atoms[0, 4] = atoms[0, 1]
    atoms[0, 5] = -2 * atoms[0, 1]
    atoms[0, 6] = 0
    weight = normal(20, 5)
    weight[3] = 0
    weight[7] = 3 * atoms[0, 5]
    codes = pursuit.pursue(weight, atoms, 4, selection=selection)
    assert_distinct(codes.indices)
    assert codes.indices[3].tolist() == [[0, 1, 2, 3]]
    assert (codes.values[3] == 0).all()
    assert codes.indices[7, 0, 0] == 1  # the first of three of the same direction
    np.testing.assert_allclose(codes.values[7, 0], [-6, 0, 0, 0], atol=1e-4)
    same = np.isin(codes.indices, (1, 4, 5)) & (codes.values != 0)
    assert (same.sum(axis=2) <= 1).all()
    assert (codes.values[codes.indices == 6] == 0).all()
    np.testing.assert_allclose(codes.errors, errors_of(weight, codes, atoms), atol=1e-4)


def test_more_nonzeros_than_columns(each_level):
    """With k above b the error is 0 after b atoms; the others are there, distinct, with the value 0."""
    codes = pursuit.pursue(normal(6, 3), normal(1, 12, 3, seed=1), 12)
    assert_distinct(codes.indices)
    assert codes.errors.max() < 1e-5
    assert (np.count_nonzero(codes.values, axis=2) <= 4).all()


@pytest.mark.parametrize(("scale", "atom_scale"), [(1e-12, 1e12), (1e12, 1e-12), (1e-18, 1.0)])
def test_scale_changes_nothing(each_level, scale, atom_scale):
    weight, atoms = normal(30, 16), normal(1, 20, 16, seed=1)
    codes = pursuit.pursue(weight, atoms, 3)
    other = pursuit.pursue(weight * np.float32(scale), atoms * np.float32(atom_scale), 3)
    clear = pursue_reference(weight, atoms, 3).gap > CLEAR
    np.testing.assert_array_equal(other.indices[clear], codes.indices[clear])
    np.testing.assert_allclose(
        other.values[clear] * (atom_scale / scale), codes.values[clear], rtol=1e-3, atol=1e-4
    )


def test_threads_change_nothing():
    weight, atoms = normal(2100, 32), normal(2, 40, 16, seed=1)
    one = pursuit.pursue(weight, atoms, 3, threads=1)
    for threads in (2, 3, 7):
        many = pursuit.pursue(weight, atoms, 3, threads=threads)
        for first, second in zip(one, many, strict=True):
            np.testing.assert_array_equal(first, second)


@across_levels
@given(shape=shapes(), seed=st.integers(0, 99))
def test_refit_is_least_squares(each_level, shape, seed):
    m, blocks, r, b, k = shape
    k = min(k, b)  # more atoms than columns have no unique coefficients
    weight, atoms = normal(m, blocks * b, seed=seed), normal(blocks, r, b, seed=seed + 1)
    indices = support_of(m, blocks, r, k, seed)
    codes = pursuit.refit(weight, atoms, indices)
    _, errors = refit_reference(weight, atoms, indices)
    energy = np.square(weight.astype(float)).sum()
    np.testing.assert_array_equal(codes.indices, indices)
    np.testing.assert_allclose(codes.errors, errors_of(weight, codes, atoms), atol=1e-4 * (1 + energy))
    assert (codes.errors >= errors - 1e-6 * (1 + energy)).all()
    if 2 * k <= b:  # far from dependent
        np.testing.assert_allclose(codes.errors, errors, rtol=1e-3, atol=1e-5 * (1 + energy))


def test_refit_values_match_lstsq(each_level):
    weight, atoms, indices = normal(40, 48), normal(3, 64, 16, seed=1), support_of(40, 3, 64, 4)
    codes = pursuit.refit(weight, atoms, indices)
    values, errors = refit_reference(weight, atoms, indices)
    np.testing.assert_allclose(codes.values, values, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(codes.errors, errors, rtol=1e-4, atol=1e-4)


def test_refit_leaves_out_dependent_atoms(each_level):
    atoms = normal(1, 4, 6)
    atoms[0, 2] = 3 * atoms[0, 0]
    indices = np.tile(np.array([0, 2, 3], np.uint8), (5, 1, 1))
    weight = normal(5, 6, seed=1)
    codes = pursuit.refit(weight, atoms, indices)
    assert (codes.values[..., 1] == 0).all()
    values, _ = refit_reference(weight, atoms, indices[..., [0, 2]])
    np.testing.assert_allclose(codes.values[..., [0, 2]], values, rtol=1e-3, atol=1e-4)


def test_tensors_are_read_in_place():
    weight = normal(40, 32)
    view = weight[:, ::2]  # not contiguous: copied, and the same result
    atoms = normal(1, 20, 16, seed=1)
    for first, second in zip(
        pursuit.pursue(view, atoms, 3), pursuit.pursue(view.copy(), atoms, 3), strict=True
    ):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
@pytest.mark.parametrize("where", ["weight", "atoms"])
def test_what_is_not_finite_is_refused(each_level, bad, where):
    arrays = {"weight": normal(20, 32), "atoms": normal(2, 20, 16, seed=1)}
    arrays[where].flat[17] = bad
    if where == "atoms" and bad == 1e30:
        assert np.isfinite(pursuit.pursue(**arrays, nonzeros=2).values).all()  # a long atom is no fault
        return
    with pytest.raises(DataError, match="not finite"):
        pursuit.pursue(**arrays, nonzeros=2)
    with pytest.raises(DataError, match="not finite"):
        pursuit.refit(**arrays, indices=support_of(20, 2, 20, 2))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"nonzeros": 0}, UsageError, "from 1 to the number of atoms, 20"),
        ({"nonzeros": 21}, UsageError, "found 21"),
        ({"selection": "best"}, UsageError, "one of gain, correlation"),
        ({"threads": 0}, UsageError, "at least 1"),
        ({"weight": normal(3, 31)}, DataError, "do not fit"),
        ({"weight": normal(3, 32).astype(float)}, DataError, "float32"),
        ({"atoms": normal(20, 16)}, DataError, r"\(B, r, b\)"),
    ],
)
def test_bad_calls_are_refused(options, error, message):
    arguments = {"weight": normal(3, 32), "atoms": normal(2, 20, 16), "nonzeros": 2}
    with pytest.raises(error, match=message):
        pursuit.pursue(**(arguments | options))


def test_a_support_that_does_not_fit_is_refused():
    weight, atoms = normal(3, 32), normal(2, 20, 16)
    with pytest.raises(DataError, match="below the number of atoms, 20"):
        pursuit.refit(weight, atoms, support_of(3, 2, 20, 2) + np.uint8(19))
    with pytest.raises(DataError, match=r"shape \(3, 2, 2\)"):
        pursuit.refit(weight, atoms, support_of(4, 2, 20, 2))
