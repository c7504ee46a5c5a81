"""Every linear path at every level against float64 and exact integers, on odd sizes and extreme values."""

from __future__ import annotations

import doctest
from collections.abc import Callable
from typing import Any

import linear_reference as reference
import native_linear as linear
import numpy as np
import pytest

from leanmatch import native
from leanmatch.errors import DataError, UsageError

LEVELS = tuple(native.load().levels())
TOKENS = (0, 1, 5, 16, 63, 64, 65)
DENSE_SIZES = ((1, 1), (17, 3), (16, 64), (65, 33), (130, 100), (80, 384))
# m, b, blocks, r, k
SPARSE_SIZES = (
    (1, 1, 1, 1, 1),
    (17, 3, 2, 5, 2),  # three columns a block, five atoms
    (65, 16, 3, 64, 4),  # one table in one register
    (48, 16, 9, 64, 1),
    (33, 8, 5, 64, 3),
    (64, 16, 4, 128, 4),  # two registers
    (31, 16, 3, 96, 5),
    (70, 4, 7, 16, 2),  # blocks that share a table
    (40, 8, 6, 32, 4),  # two blocks in a unit of 64 slots
    (65, 12, 7, 32, 4),  # the last one alone
    (33, 16, 5, 32, 4),
    (24, 24, 5, 32, 4),  # atoms from memory
    (50, 12, 5, 64, 4),
    (20, 24, 3, 64, 4),
    (16, 32, 3, 100, 9),
    (20, 6, 4, 6, 6),  # block low rank: k = r
)
Rng = np.random.Generator


@pytest.fixture(params=LEVELS)
def level(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each level in turn, pinned as a user would."""
    name: str = request.param
    if not native.variants()[name].runs:
        pytest.skip(f"this CPU cannot run {name}: {native.variants()[name].why_not}")
    monkeypatch.setenv(native.LIMIT_VARIABLE, name)
    assert linear.resolve_level() == name
    return name


@pytest.fixture
def rng() -> Rng:
    return np.random.default_rng(7)


def normal(rng: Rng, *shape: int) -> Any:
    return rng.standard_normal(shape).astype(np.float32)


def codes(rng: Rng, *shape: int) -> Any:
    return rng.integers(-127, 128, shape).astype(np.int8)


def supports(rng: Rng, m: int, blocks: int, r: int, k: int) -> Any:
    return np.argsort(rng.random((m, blocks, r)), axis=2)[:, :, :k].astype(np.uint8)


def check(
    found: Any,
    expected: reference.Expected,
    *,
    activation: str = "none",
    residual: Any = None,
    kind: str = "f32",
) -> None:
    y, bound = expected.finish(activation, residual, kind)
    assert found.shape == y.shape and found.dtype == np.float32
    assert np.isfinite(y).all()
    excess = np.abs(found.astype(np.float64) - y) - bound
    assert excess.size == 0 or excess.max() <= 0, (
        f"off by {excess.max():.3g} beyond the bound of {bound.max():.3g}"
    )


@pytest.mark.parametrize(("m", "n"), DENSE_SIZES)
def test_dense_f32(level: str, rng: Rng, m: int, n: int) -> None:
    weight, bias = normal(rng, m, n), normal(rng, m)
    layer = linear.dense_f32(weight, bias)
    assert layer.path == "dense_f32" and layer.shape == (m, n) and layer.bytes >= weight.nbytes
    for tokens in TOKENS:
        x = normal(rng, tokens, n)
        check(layer(x), reference.expect_dense(x, weight, bias))


@pytest.mark.parametrize(("m", "n"), DENSE_SIZES)
def test_dense_bf16(level: str, rng: Rng, m: int, n: int) -> None:
    weight, bias = normal(rng, m, n), normal(rng, m)
    if not linear.has_bf16():
        with pytest.raises(UsageError, match=r"(?s)avx512_bf16.*dense_f32"):
            linear.dense_bf16(weight, bias)
        return
    layer = linear.dense_bf16(weight, bias)
    assert layer.path == "dense_bf16"
    for tokens in TOKENS:
        x = normal(rng, tokens, n)
        check(layer(x), reference.expect_bf16(x, weight, bias))
        if tokens == 65 and n > 30:
            with pytest.raises(AssertionError, match="beyond"):  # it did round
                check(layer(x), reference.expect_dense(x, weight, bias))


@pytest.mark.parametrize(("m", "n"), DENSE_SIZES)
def test_dense_i8(level: str, rng: Rng, m: int, n: int) -> None:
    q, scale, bias = codes(rng, m, n), np.abs(normal(rng, m)), normal(rng, m)
    layer = linear.dense_i8_codes(q, scale, bias)
    assert layer.path == "dense_i8" and layer.takes_quantized
    for tokens in TOKENS:
        x = normal(rng, tokens, n) + 0.5
        rows = linear.quantize_rows(x, level=layer.level)
        expected = reference.expect_dense_i8(rows, q, scale, bias)
        check(layer(rows), expected, kind="i8")
        np.testing.assert_array_equal(layer(x), layer(rows))  # floats are quantized the same way


def test_dense_i8_saturated(level: str) -> None:
    """All codes at their ends and alternating signs: vpmaddubsw would saturate on 8-bit activations."""
    m, n = 33, 514
    q = np.full((m, n), 127, np.int8)
    q[1::2] = -127
    scale = np.ones(m, np.float32)
    layer = linear.dense_i8_codes(q, scale)
    for x in (np.ones((3, n)), -np.ones((3, n)), np.tile([1.0, -1.0], (3, n // 2))):
        rows = linear.quantize_rows(x, level=layer.level)
        top = native.load().linear.quantized_max(layer.level)
        assert np.ptp(centred := reference.centred(rows)) >= top - 1 or np.abs(centred).min() == top
        check(layer(rows), reference.expect_dense_i8(rows, q, scale, None), kind="i8")


def test_dense_i8_from_floats(level: str, rng: Rng) -> None:
    weight, x = normal(rng, 70, 200), normal(rng, 20, 200)
    weight[3] = 0
    scale = np.abs(weight).max(axis=1) / np.float32(127)
    q = np.rint(weight / np.where(scale > 0, scale, 1)[:, None]).astype(np.int8)
    layer = linear.dense_i8(weight)
    rows = linear.quantize_rows(x, level=layer.level)
    found, exact = layer(rows), (x.astype(np.float64) @ weight.T.astype(np.float64))
    # One ulp of scale may move a code that lies half-way; so a little looser than exact.
    np.testing.assert_allclose(found, reference.expect_dense_i8(rows, q, scale, None).sums, atol=0.02)
    cosine = (found * exact).sum() / np.linalg.norm(found) / np.linalg.norm(exact)
    assert (found[:, 3] == 0).all() and 0.9995 < cosine < 1.0


@pytest.mark.parametrize("size", SPARSE_SIZES)
def test_dense_sparse_f32(level: str, rng: Rng, size: tuple[int, ...]) -> None:
    m, b, blocks, r, k = size
    atoms, values, bias = normal(rng, blocks, r, b), normal(rng, m, blocks, k), normal(rng, m)
    indices = supports(rng, m, blocks, r, k)
    layer = linear.dense_sparse_f32(atoms, indices, values, bias)
    assert layer.path == "dense_sparse_f32" and layer.shape == (m, blocks * b)
    for tokens in TOKENS:
        x = normal(rng, tokens, blocks * b)
        check(layer(x), reference.expect_dense_sparse(x, atoms, indices, values, bias))


def test_dense_sparse_f32_many_atoms(level: str, rng: Rng) -> None:
    atoms, values = normal(rng, 2, 600, 8), normal(rng, 20, 2, 3)
    indices = supports(rng, 20, 2, 200, 3).astype(np.uint16) + 400
    x = normal(rng, 19, 16)
    check(
        linear.dense_sparse_f32(atoms, indices, values)(x),
        reference.expect_dense_sparse(x, atoms, indices, values, None),
    )


@pytest.mark.parametrize("size", SPARSE_SIZES)
@pytest.mark.parametrize("spread", [0.0, 2.0])
def test_dense_sparse_i8(level: str, rng: Rng, size: tuple[int, ...], spread: float) -> None:
    m, b, blocks, r, k = size
    atoms_q, values_q = codes(rng, blocks, r, b), codes(rng, m, blocks, k)
    atoms_scale = np.exp(spread * normal(rng, blocks, r)) / 300
    values_scale, bias = np.abs(normal(rng, m)) / 50, normal(rng, m)
    indices = supports(rng, m, blocks, r, k)
    layer = linear.dense_sparse_i8(atoms_q, atoms_scale, indices, values_q, values_scale, bias)
    tables = level in linear.TABLE_LEVELS
    assert layer.path == ("dense_sparse_i8" if tables else "dense_sparse_f32")
    assert layer.level == ("avx512_vbmi_vnni" if level == "avx512_amx" else level)
    for tokens in TOKENS:
        x = normal(rng, tokens, blocks * b) + 0.3
        if tables:
            rows = layer.quantize_rows(x)
            expected = reference.expect_tables(
                rows, atoms_q, atoms_scale, indices, values_q, values_scale, bias
            )
            check(layer(rows), expected, kind="i8")
            np.testing.assert_array_equal(layer(x), layer(rows))
        else:
            atoms, values = atoms_q * atoms_scale[..., None], values_q * values_scale[:, None, None]
            check(layer(x), reference.expect_dense_sparse(x, atoms, indices, values, bias))


def test_dense_sparse_i8_is_close_to_float64(level: str, rng: Rng) -> None:
    """Like a trained encoder: unit-norm atoms, an outlying input. Cosine per token at least 0.999."""
    m, b, blocks, r, k = 384, 16, 24, 64, 4
    atoms = normal(rng, blocks, r, b)
    atoms /= np.linalg.norm(atoms, axis=2, keepdims=True)
    values, indices = normal(rng, m, blocks, k), supports(rng, m, blocks, r, k)
    atoms_scale, values_scale = np.abs(atoms).max(axis=2) / 127, np.abs(values).max(axis=(1, 2)) / 127
    atoms_q = np.rint(atoms / atoms_scale[..., None]).astype(np.int8)
    values_q = np.rint(values / values_scale[:, None, None]).astype(np.int8)
    x = normal(rng, 32, blocks * b)
    x[:, 100] *= 4
    exact = reference.expect_dense_sparse(x, atoms, indices, values, None).sums
    found = linear.dense_sparse_i8(atoms_q, atoms_scale, indices, values_q, values_scale)(x)
    cosine = (found * exact).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(exact, axis=1)
    assert cosine.min() > 0.999


@pytest.mark.parametrize("activation", linear.ACTIVATIONS)
@pytest.mark.parametrize("with_residual", [False, True])
def test_epilogue(level: str, rng: Rng, activation: str, with_residual: bool) -> None:
    m, n, tokens = 37, 24, 70
    weight, bias, x = normal(rng, m, n), 3 * normal(rng, m), normal(rng, tokens, n)
    residual = normal(rng, tokens, m) if with_residual else None
    options = {"activation": activation, "residual": residual}
    check(linear.dense_f32(weight, bias)(x, **options), reference.expect_dense(x, weight, bias), **options)
    atoms, values, indices = normal(rng, 3, 16, 8), normal(rng, m, 3, 4), supports(rng, m, 3, 16, 4)
    sparse = linear.dense_sparse_f32(atoms, indices, values, bias)
    check(sparse(x, **options), reference.expect_dense_sparse(x, atoms, indices, values, bias), **options)
    q, scale = codes(rng, m, n), np.full(m, 0.01, np.float32)
    dense = linear.dense_i8_codes(q, scale, bias)
    rows = linear.quantize_rows(x, level=dense.level)
    expected = reference.expect_dense_i8(rows, q, scale, bias)
    check(dense(rows, **options), expected, **options, kind="i8")
    assert np.ptp(expected.sums) > 10, "activations must see both signs"
    if residual is not None:  # the residual may be the output itself
        y = residual.copy()
        dense(rows, activation=activation, residual=y, out=y)
        check(y, expected, **options, kind="i8")


def test_gelu_far_out(level: str) -> None:
    x = np.concatenate([np.linspace(-8, 8, 4001), [-1e30, -1e4, -50, 50, 1e4, 1e30]])[:, None]
    found = linear.dense_f32(np.ones((1, 1)))(x, activation="gelu")
    check(found, reference.expect_dense(x, np.ones((1, 1)), None), activation="gelu")
    assert abs(found[-1, 0] / 1e30 - 1) < 1e-6


@pytest.mark.parametrize("value", [0.0, 1e-44, 1e-36, 1e-20, 1e30])
def test_extreme_activations(level: str, rng: Rng, value: float) -> None:
    """Zeros, denormals and huge values: finite, no division by zero, other rows untouched."""
    m, blocks, b, r, k = 20, 3, 8, 32, 4
    x = normal(rng, 4, blocks * b)
    x[1] = value * np.sign(x[1])
    q, scale = codes(rng, m, blocks * b), np.full(m, 0.01, np.float32)
    dense = linear.dense_i8_codes(q, scale)
    rows = linear.quantize_rows(x, level=dense.level)
    check(dense(rows), reference.expect_dense_i8(rows, q, scale, None), kind="i8")
    assert (np.abs(rows.dequantize() - x) <= np.maximum(0.51 * rows.scale[:, None], 1e-30)).all()
    atoms_q, values_q, indices = (
        codes(rng, blocks, r, b),
        codes(rng, m, blocks, k),
        supports(rng, m, blocks, r, k),
    )
    ones = np.full((blocks, r), 0.01, np.float32), np.full(m, 0.01, np.float32)
    sparse = linear.dense_sparse_i8(atoms_q, ones[0], indices, values_q, ones[1])
    y, alone = sparse(x), sparse(x[2:])
    assert np.isfinite(y).all()
    np.testing.assert_array_equal(y[2:], alone)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite(level: str, rng: Rng, bad: float) -> None:
    """A bad activation spoils its own row, visibly, and no other."""
    x = normal(rng, 9, 32)
    x[4, 17] = bad
    layers = [
        linear.dense_i8(normal(rng, 20, 32)),
        linear.dense_sparse_i8(
            codes(rng, 2, 64, 16),
            np.ones((2, 64)),
            supports(rng, 20, 2, 64, 4),
            codes(rng, 20, 2, 4),
            np.ones(20),
        ),
    ]
    for layer in layers:
        if layer.takes_quantized:
            y = layer(x)
            assert np.isnan(y[4]).all() and np.isfinite(np.delete(y, 4, axis=0)).all()


def test_quantize_rows(level: str, rng: Rng) -> None:
    top = native.load().linear.quantized_max(level)
    assert top == (127 if level in ("avx2", "avx512") else 255)
    for n in (1, 15, 16, 100):
        x = normal(rng, 11, n)
        x[3], x[4] = np.abs(x[3]), -np.abs(x[4])
        rows = linear.quantize_rows(x, level=level)
        assert rows.values.shape[1] >= n + 3 and (rows.values[:, n:] == 0).all() and rows.values.max() <= top
        step = (np.maximum(x.max(1), 0) - np.minimum(x.min(1), 0)) / top
        np.testing.assert_allclose(rows.scale, step, rtol=1e-5)
        # Half a step, and half a step more at the ends, where the zero point was rounded.
        assert (np.abs(rows.dequantize() - x) <= 1.001 * rows.scale[:, None]).all()
        inner = (rows.values[:, :n] > 0) & (rows.values[:, :n] < top)
        assert (np.abs(rows.dequantize() - x) <= 0.501 * rows.scale[:, None])[inner].all()
        assert rows.zero[3] == 0 and rows.zero[4] == top


def test_low_rank(level: str, rng: Rng) -> None:
    left, right, bias, x = normal(rng, 50, 20), normal(rng, 20, 70), normal(rng, 50), normal(rng, 130, 70)
    parts = linear.dense_f32(left, bias), linear.dense_f32(right)
    layer = linear.low_rank(*parts)
    assert layer.path == "low_rank" and layer.shape == (50, 70)
    bound = reference.expect_dense(np.abs(x), np.abs(left) @ np.abs(right), np.abs(bias), terms=90).bound
    exact = x.astype(np.float64) @ right.T.astype(np.float64) @ left.T.astype(np.float64) + bias
    check(layer(x), reference.Expected(exact, bound))
    with pytest.raises(ValueError, match="taken"):
        parts[0](normal(rng, 2, 20))
    int8 = linear.low_rank(linear.dense_i8(left, bias), linear.dense_i8(right))
    rows = linear.quantize_rows(x, level=linear.dense_i8(right).level)
    np.testing.assert_array_equal(int8(x), int8(rows))
    assert np.abs(int8(x) - exact).max() < 0.05 * np.abs(exact).max()


def table(**options: Any) -> Any:
    codes_of = np.ones((2, 3, 2), np.int8), np.ones((2, 3)), np.zeros((2, 2, 1), np.uint8)
    return linear.dense_sparse_i8(*codes_of, np.ones((2, 2, 1), np.int8), np.ones(2), **options)


Maker = Callable[[], Any]
BAD: dict[str, tuple[type[Exception], str, Maker]] = {
    "activation": (
        UsageError,
        "tanh",
        lambda: linear.dense_f32(np.ones((2, 2)))(np.ones((1, 2)), activation="tanh"),
    ),
    "width": (DataError, "n = 2", lambda: linear.dense_f32(np.ones((2, 2)))(np.ones((1, 3)))),
    "residual": (
        DataError,
        "residual",
        lambda: linear.dense_f32(np.ones((2, 2)))(np.ones((1, 2)), residual=np.ones((2, 2))),
    ),
    "out": (
        DataError,
        "out must",
        lambda: linear.dense_f32(np.ones((2, 2)))(np.ones((1, 2)), out=np.ones((1, 2))),
    ),
    "bias": (DataError, "bias", lambda: linear.dense_f32(np.ones((2, 2)), np.ones(3))),
    "axes": (DataError, "2 axes", lambda: linear.dense_f32(np.ones(2))),
    "empty": (DataError, "at least one", lambda: linear.dense_f32(np.ones((0, 2)))),
    "level": (UsageError, "no such level", lambda: linear.dense_f32(np.ones((2, 2)), level="sse9")),
    "rows": (
        UsageError,
        "takes floats",
        lambda: linear.dense_f32(np.ones((2, 2)))(linear.quantize_rows(np.ones((1, 2)))),
    ),
    "code": (DataError, "-128", lambda: linear.dense_i8_codes(np.full((1, 1), -128, np.int8), [1])),
    "dtype": (DataError, "int8", lambda: linear.dense_i8_codes(np.ones((1, 1)), [1])),
    "weight": (DataError, "finite", lambda: linear.dense_i8(np.full((1, 1), np.nan))),
    "long": (DataError, "66311", lambda: linear.dense_i8_codes(np.ones((1, 66312), np.int8), [1])),
    "index": (
        DataError,
        "names no atom of 3",
        lambda: linear.dense_sparse_f32(
            np.ones((1, 3, 2)), np.full((2, 1, 1), 3, np.uint8), np.ones((2, 1, 1))
        ),
    ),
    "index dtype": (
        DataError,
        "uint8 or uint16",
        lambda: linear.dense_sparse_f32(np.ones((1, 3, 2)), np.zeros((2, 1, 1), int), np.ones((2, 1, 1))),
    ),
    "shapes": (
        DataError,
        "same shape",
        lambda: linear.dense_sparse_f32(
            np.ones((1, 3, 2)), np.zeros((2, 1, 1), np.uint8), np.ones((2, 1, 2))
        ),
    ),
    "atoms": (
        DataError,
        "at most 128",
        lambda: linear.dense_sparse_i8(
            np.ones((1, 129, 2), np.int8),
            np.ones((1, 129)),
            np.zeros((2, 1, 1), np.uint8),
            np.ones((2, 1, 1), np.int8),
            np.ones(2),
        ),
    ),
    "zero": (DataError, "1 to 254, got 0", lambda: table(zero=0)),
    "head": (DataError, "0 to 2 blocks, got 3", lambda: table(head=3)),
    "order": (DataError, "every block once", lambda: table(order=[1, 1])),
    "order's length": (DataError, "one element per block", lambda: table(order=[0])),
    "inner": (
        DataError,
        "left takes 3",
        lambda: linear.low_rank(linear.dense_f32(np.ones((2, 3))), linear.dense_f32(np.ones((2, 2)))),
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_errors(case: str) -> None:
    error, message, make = BAD[case]
    with pytest.raises(error, match=message):
        make()


def test_peaks_are_there() -> None:
    for name, variant in native.variants().items():
        if variant.runs and name != "portable":
            peaks = linear.measure_peaks(name)
            assert "fma" in peaks and all(0.01 < value < 1000 for value in peaks.values())


def test_examples_in_the_docstrings_hold() -> None:
    results = doctest.testmod(linear)
    assert results.attempted >= 3
    assert results.failed == 0
