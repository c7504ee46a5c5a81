"""Integer dense-sparse layers with tables: their own rounding of inputs, and the head's scales."""

from __future__ import annotations

from typing import Any

import linear_reference as reference
import native_linear as linear
import numpy as np
import pytest
from test_linear import SPARSE_SIZES, TOKENS, check, codes, normal, supports

from leanmatch.errors import UsageError
from leanmatch.factorization import QuantizedDenseSparse
from leanmatch.runtime.kernels.paths import turned

if linear.resolve_level() not in linear.TABLE_LEVELS:
    pytest.skip("this CPU has no integer dense-sparse kernel", allow_module_level=True)

Rng = np.random.Generator


@pytest.fixture
def rng() -> Rng:
    return np.random.default_rng(7)


def parts(rng: Rng, m: int, b: int, blocks: int, r: int, k: int) -> tuple[Any, ...]:
    atoms, values = codes(rng, blocks, r, b), codes(rng, m, blocks, k)
    return atoms, np.full((blocks, r), 0.01, np.float32), supports(rng, m, blocks, r, k), values, np.ones(m)


def exact(x: Any, factors: tuple[Any, ...]) -> Any:
    atoms, scale, indices, values, _ = factors
    return reference.expect_dense_sparse(
        x, atoms * scale[..., None], indices, values.astype(np.float32), None
    ).sums


def test_pruned_rows_turn_too(rng):
    atoms = np.broadcast_to(np.eye(4, dtype=np.int8), (3, 4, 4)).copy()
    values = codes(rng, 5, 3, 2)
    ones = np.ones(5, np.float32)
    pruned = QuantizedDenseSparse(
        atoms, np.ones((3, 4), np.float32), supports(rng, 5, 3, 4, 2), values, ones, identity=True
    )
    middle = normal(rng, 12)
    other = turned(pruned, middle)
    assert (middle < 0).any() and (other.atoms_q < 0).any()
    np.testing.assert_array_equal(other.dense(), pruned.dense())


@pytest.mark.parametrize(("zero", "width"), [(128, 16), (16, 16), (200, 8), (100, 24)])
@pytest.mark.parametrize("choose", [False, True])
def test_rows(rng: Rng, zero: int, width: int, choose: bool) -> None:
    """The zero point with the smallest step that holds a token's range, the head's apart."""
    factors = parts(rng, 20, width, 4, 64, 4)
    layer = linear.dense_sparse_i8(*factors, zero=zero, order=[2, 0, 3, 1], head=1, choose=choose)
    x = normal(rng, 9, 4 * width)
    x[:, 2 * width] = np.abs(x[:, 2 * width]) * 100
    x[3, :] = 0
    x[4, :] = -np.abs(x[4, :])
    rows = layer.quantize_rows(x)
    columns = np.arange(4 * width) // width == 2
    choice = np.array(reference.table_zeros(zero) if choose else [zero])
    assert rows.zero[3] == zero | zero << 8 and (rows.values[3, : 4 * width] == zero).all()
    parted = (rows.scale, rows.zero & 255, ~columns), (rows.head_scale, rows.zero >> 8, columns)
    for scale, taken, where in parted:
        part = x[:, where]
        high, low = (part.max(1, initial=0)[:, None], -part.min(1, initial=0)[:, None])
        steps = np.maximum(high / (255 - choice), low / choice)
        np.testing.assert_array_equal(taken, choice[steps.argmin(axis=1)])
        np.testing.assert_allclose(scale, steps.min(axis=1), rtol=1e-6)
        back = scale[:, None] * (rows.values[:, : 4 * width][:, where].astype(float) - taken[:, None])
        assert (np.abs(back - part) <= 0.501 * scale[:, None] + 1e-9).all()
    other = len(set((rows.zero >> 8).tolist())) > 1
    assert other == (choose and zero >= 64), "a one-sided head must choose another zero point"
    with pytest.raises(UsageError, match="not quantized for this"):
        linear.dense_sparse_i8(*factors)(rows)


@pytest.mark.parametrize("size", [size for size in SPARSE_SIZES if size[3] > 32 and size[2] > 1])
@pytest.mark.parametrize("spread", [0.0, 2.0])
@pytest.mark.parametrize("choose", [False, True])
def test_outputs(rng: Rng, size: tuple[int, ...], spread: float, choose: bool) -> None:
    """Blocks of more than 32 atoms have a table each, so that the head is as long as it was asked for."""
    _, b, blocks, r, _ = size
    atoms, scale, *rest = parts(rng, *size)
    factors = atoms, scale * np.exp(spread * normal(rng, blocks, r)), *rest
    order, head = rng.permutation(blocks), blocks // 2
    layer = linear.dense_sparse_i8(*factors, zero=90, order=order, head=head, choose=choose)
    for tokens in TOKENS:
        x = normal(rng, tokens, blocks * b)
        x[:, np.isin(np.arange(blocks * b) // b, order[:head])] *= 30
        rows = layer.quantize_rows(x)
        assert (rows.head_scale > 2 * rows.scale).sum() >= 0.9 * tokens, "the head must stand out"
        wanted = reference.expect_tables(rows, *factors, None, order[:head], zero=90, choose=choose)
        check(layer(rows), wanted, kind="i8")
        np.testing.assert_array_equal(layer(x), layer(rows))


@pytest.mark.parametrize("head", [1, 3, 6, 7])
def test_blocks_that_share_a_table(rng: Rng, head: int) -> None:
    """The head is rounded up to whole tables, and one is always left."""
    factors = parts(rng, 70, 4, 7, 16, 2)
    x = normal(rng, 40, 28)
    found = linear.dense_sparse_i8(*factors, order=rng.permutation(7), head=head)(x)
    wanted = exact(x, factors)
    assert np.linalg.norm(found - wanted) < 0.02 * np.linalg.norm(wanted)


def test_a_far_off_head_does_not_overflow(rng: Rng) -> None:
    factors = parts(rng, 40, 16, 4, 64, 4)
    x = normal(rng, 3, 64)
    x[:, 16:32] *= np.float32([[1e3], [1e9], [1e20]])
    wanted = exact(x, factors)
    error = np.abs(linear.dense_sparse_i8(*factors, order=[1, 0, 2, 3], head=1)(x) - wanted).max(axis=1)
    assert (error / np.abs(wanted).max(axis=1) < 0.02).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("column", [3, 20])
def test_not_finite(rng: Rng, bad: float, column: int) -> None:
    layer = linear.dense_sparse_i8(*parts(rng, 40, 16, 4, 64, 4), order=[1, 0, 2, 3], head=1)
    x = normal(rng, 5, 64)
    x[2, column] = bad
    y = layer(x)
    assert np.isnan(y[2]).all() and np.isfinite(np.delete(y, 2, axis=0)).all()


def test_turned_atoms_are_the_same_matrix(rng: Rng) -> None:
    """Products with the middle of the inputs are not negative; the matrix is that of before to the bit."""
    atoms, scale, indices, values, row = parts(rng, 30, 8, 5, 20, 3)
    rows = row.astype(np.float32)
    factors = QuantizedDenseSparse(atoms, scale, indices.astype(np.uint8), values, rows)
    middle = normal(rng, 40).astype(np.float32)
    found = turned(factors, middle)
    assert (found.atoms_q != factors.atoms_q).any(), "some must be turned"
    assert (np.einsum("irc,ic->ir", found.atoms_q.astype(float), middle.reshape(5, 8)) >= 0).all()
    np.testing.assert_array_equal(found.dense(), factors.dense())


def test_choosing_zero_points_is_more_exact(rng: Rng) -> None:
    """Inputs that lie on one side of zero: their 8 bits go to that side."""
    factors = parts(rng, 384, 16, 24, 64, 4)
    x = np.abs(normal(rng, 20, 384))
    plain, chosen = (
        np.linalg.norm(linear.dense_sparse_i8(*factors, choose=choose)(x) - exact(x, factors))
        for choose in (False, True)
    )
    assert chosen < 0.95 * plain


def test_the_head_keeps_the_others_fine(rng: Rng) -> None:
    """Far-off inputs in one block: with a head for it the outputs are several times nearer to float64."""
    factors = parts(rng, 384, 16, 24, 64, 4)
    x = normal(rng, 20, 384)
    x[:, 83] *= 25
    order = [5, *(i for i in range(24) if i != 5)]
    plain, apart = (
        np.linalg.norm(linear.dense_sparse_i8(*factors, **options)(x) - exact(x, factors))
        for options in ({}, {"order": order, "head": 1})
    )
    assert apart < plain / 3
