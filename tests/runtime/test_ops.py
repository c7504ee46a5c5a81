"""The encoder's kernels at every level against float64: odd sizes, tails, extreme values."""

from __future__ import annotations

import math

import numpy as np
import pytest

from leanmatch import native
from leanmatch.factorization import DenseSparse, IntMatrix, LowRank
from leanmatch.runtime.build import make_table

ERF = np.vectorize(math.erf)
REFERENCES = {
    "none": lambda x: x,
    "gelu": lambda x: 0.5 * x * (1 + ERF(x / math.sqrt(2))),
    "relu": lambda x: np.maximum(x, 0),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "tanh": np.tanh,
    "silu": lambda x: x / (1 + np.exp(-x)),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
}


def test_the_table_of_activations_is_whole() -> None:
    assert set(native.load().activation_names()) == set(REFERENCES)


@pytest.mark.parametrize("kind", REFERENCES)
def test_activations(level: str, kind: str) -> None:
    x = np.concatenate([np.linspace(-12, 12, 4003), [0.0, -0.0, 1e-30, -80.0, 80.0, -1e4, 1e4]]).astype(
        np.float32
    )
    found = x.copy()
    native.load().op_activate(level, kind, found)
    with np.errstate(over="ignore"):
        wanted = REFERENCES[kind](x.astype(np.float64))
    error = np.abs(found - wanted) / np.maximum(1, np.abs(x))
    assert error.max() <= (0 if kind in ("none", "relu") else 2e-6)


@pytest.mark.parametrize("width", [1, 3, 16, 24, 33, 384, 401])
def test_layer_norm(level: str, width: int) -> None:
    rng = np.random.default_rng(width)
    x = rng.normal(3, 10, (5, width)).astype(np.float32)
    x[1] = 7  # no variance
    gamma, beta = rng.normal(1, 1, (2, width)).astype(np.float32)
    double = x.astype(np.float64)
    centred = double - double.mean(1, keepdims=True)
    wanted = centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-5) * gamma + beta
    native.load().op_layer_norm(level, x, (gamma, beta, 1e-5))
    np.testing.assert_allclose(x, wanted, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("width", [1, 3, 16, 24, 33, 384, 401])
def test_root_mean_square_norm(level: str, width: int) -> None:
    rng = np.random.default_rng(width)
    x = rng.normal(3, 10, (5, width)).astype(np.float32)
    x[1] = 0
    gamma = rng.normal(1, 1, width).astype(np.float32)
    double = x.astype(np.float64)
    wanted = double / np.sqrt((double**2).mean(1, keepdims=True) + 1e-6) * gamma
    native.load().op_layer_norm(level, x, (gamma, None, 1e-6))
    np.testing.assert_allclose(x, wanted, atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize("width", [1, 3, 16, 24, 33, 401])
@pytest.mark.parametrize("kind", REFERENCES)
def test_gates(level: str, kind: str, width: int) -> None:
    x = np.random.default_rng(width).normal(0, 3, (7, 2 * width)).astype(np.float32)
    found = x.copy()
    native.load().op_gate(level, kind, found)
    double = x.astype(np.float64)
    wanted = REFERENCES[kind](double[:, :width]) * double[:, width:]
    np.testing.assert_allclose(found.ravel()[: 7 * width].reshape(7, width), wanted, atol=5e-5, rtol=5e-6)


@pytest.mark.parametrize("width", [2, 6, 10, 32, 36, 64, 130])
def test_rotations(level: str, width: int) -> None:
    rng = np.random.default_rng(width)
    x = rng.normal(0, 3, (5, width)).astype(np.float32)
    angles = rng.uniform(0, 6, width // 2)
    turn = np.concatenate([np.cos(angles), np.sin(angles)]).astype(np.float32)
    found = x.copy()
    native.load().op_rotate(level, turn, found)
    wanted = (x[:, : width // 2] + 1j * x[:, width // 2 :]) * np.exp(1j * angles)
    np.testing.assert_allclose(found, np.concatenate([wanted.real, wanted.imag], axis=1), atol=3e-6)


@pytest.mark.parametrize("window", [0, 1, 5, 16, 40, 1000])
@pytest.mark.parametrize("width", [10, 32])
@pytest.mark.parametrize("length", [1, 16, 33, 65, 130])
def test_attention_in_a_window(level: str, length: int, width: int, window: int) -> None:
    rng = np.random.default_rng(length * 100 + width)
    qkv = rng.normal(0, 2, (length, 3, width)).astype(np.float32)
    qkv[rng.random(length) < 0.2] *= 4
    bias = rng.normal(0, 2, 2 * length - 1).astype(np.float32) if length % 2 else None
    scores = np.einsum("qd,kd->qk", *(qkv[:, i].astype(np.float64) for i in (0, 1))) / math.sqrt(width)
    away = np.arange(length)[None, :] - np.arange(length)[:, None]
    scores = np.where(abs(away) > window, -np.inf, scores + (0 if bias is None else bias[away + length - 1]))
    weights = np.exp(scores - scores.max(1, keepdims=True))
    wanted = weights / weights.sum(1, keepdims=True) @ qkv[:, 2]
    module = native.load()
    for bf16 in (False, True) if module.linear.has_bf16() and width == 32 and level == "avx512" else (False,):
        found = np.full((length, width), np.nan, np.float32)
        start = length // 3
        module.op_attention(level, qkv, bias, start, length, found, bf16=bf16, window=window)
        assert np.isnan(found[:start]).all(), "rows of other threads were written"
        if bf16:
            error = np.linalg.norm(found[start:] - wanted[start:]) / np.linalg.norm(wanted[start:])
            assert error < 0.05
        else:
            np.testing.assert_allclose(found[start:], wanted[start:], atol=1e-4, rtol=1e-4)
        for row in range(start, length):  # the same bits, whoever stands beside it
            alone = np.empty((length, width), np.float32)
            module.op_attention(level, qkv, bias, row, row + 1, alone, bf16=bf16, window=window)
            np.testing.assert_array_equal(alone[row], found[row])


@pytest.mark.parametrize("width", [1, 8, 20, 32, 64, 72])
@pytest.mark.parametrize("length", [1, 2, 7, 16, 33, 63, 64, 65, 130])
def test_attention(level: str, length: int, width: int) -> None:
    rng = np.random.default_rng(length * 100 + width)
    qkv = rng.normal(0, 2, (length, 3, width)).astype(np.float32)
    bias = rng.normal(0, 2, 2 * length - 1).astype(np.float32) if length % 2 else None
    scores = np.einsum("qd,kd->qk", *(qkv[:, i].astype(np.float64) for i in (0, 1))) / math.sqrt(width)
    if bias is not None:
        at = np.arange(length)
        scores += bias[at[None, :] - at[:, None] + length - 1]
    weights = np.exp(scores - scores.max(1, keepdims=True))
    wanted = weights / weights.sum(1, keepdims=True) @ qkv[:, 2]
    start, stop = length // 3, length
    found = np.full((length, width), np.nan, np.float32)
    native.load().op_attention(level, qkv, bias, start, stop, found)
    assert np.isnan(found[:start]).all(), "rows of other threads were written"
    np.testing.assert_allclose(found[start:], wanted[start:], atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("width", [32, 64])
@pytest.mark.parametrize("length", [1, 2, 7, 16, 33, 63, 65, 130])
def test_attention_in_bfloat16(length: int, width: int) -> None:
    if not native.load().linear.has_bf16():
        pytest.skip("no bfloat16 on this CPU")
    rng = np.random.default_rng(length * 100 + width)
    qkv = rng.normal(0, 1, (length, 3, width)).astype(np.float32)
    bias = rng.normal(0, 2, 2 * length - 1).astype(np.float32) if length % 2 else None
    exact, found = np.empty((length, width), np.float32), np.full((length, width), np.nan, np.float32)
    native.load().op_attention("avx512", qkv, bias, 0, length, exact)
    start = length // 3
    native.load().op_attention("avx512", qkv, bias, start, length, found, bf16=True)
    assert np.isnan(found[:start]).all(), "rows of other threads were written"
    error = np.abs(found[start:] - exact[start:])
    assert 0 < error.max() < 0.03 * max(1, np.abs(exact).max())
    assert np.linalg.norm(error) < 0.006 * np.linalg.norm(exact[start:]) + 1e-3


def test_attention_of_far_apart_scores(level: str) -> None:
    qkv = np.zeros((3, 3, 16), np.float32)
    qkv[0, 0], qkv[0, 1], qkv[1, 1] = 300, 300, -300  # scores of +-360000: one key takes all
    qkv[:, 2] = np.arange(3)[:, None]
    found = np.empty((3, 16), np.float32)
    native.load().op_attention(level, qkv, None, 0, 3, found)
    np.testing.assert_allclose(found[:, 0], [0, 1, 1], atol=1e-6)


@pytest.mark.parametrize("width", [1, 15, 384])
def test_normalize(level: str, width: int) -> None:
    x = np.random.default_rng(0).normal(size=width).astype(np.float32)
    wanted = x / np.linalg.norm(x.astype(np.float64))
    native.load().op_normalize(level, x)
    np.testing.assert_allclose(x, wanted, atol=1e-6)
    zero = np.zeros(width, np.float32)
    native.load().op_normalize(level, zero)
    assert not zero.any()


def tables():
    rng = np.random.default_rng(5)
    indices = np.argsort(rng.random((7, 3, 9)), axis=2)[:, :, :4].astype(np.uint8)
    values = rng.normal(size=(7, 3, 4)).astype(np.float32)
    sparse = DenseSparse(rng.normal(size=(3, 9, 10)).astype(np.float32), indices, values)
    whole = IntMatrix(
        rng.integers(-127, 128, (7, 30)).astype(np.int8), rng.random((7, 3)).astype(np.float32) + 0.1
    )
    low = LowRank(rng.normal(size=(7, 5)).astype(np.float32), rng.normal(size=(5, 30)).astype(np.float32))
    coded = LowRank(
        IntMatrix(rng.integers(-127, 128, (7, 5)).astype(np.int8), np.full((7, 1), 0.1, np.float32)),
        low.right,
    )
    odd = {
        f"int{bits}": IntMatrix(
            (rng.integers(-half, half, (7, 30)) * 2 + 1).astype(np.int8),
            rng.random((7, groups)).astype(np.float32) + 0.1,
            bits,
        )
        for bits, half, groups in ((3, 4, 1), (2, 2, 2))
    }
    return odd | {
        "sparse": sparse,
        "sparse int8": sparse.quantize(),
        "int": whole,
        "low": low,
        "low int8": coded,
    }


@pytest.mark.parametrize("kind", tables())
def test_tables_decode_their_rows(level: str, kind: str) -> None:
    factors = tables()[kind]
    table = make_table(factors)
    assert (table.rows, table.width) == factors.shape
    found = np.stack([table.decode(row, level) for row in range(7)])
    np.testing.assert_allclose(found, factors.dense(), atol=2e-5, rtol=2e-5)
    with pytest.raises(ValueError, match="no such row"):
        table.decode(7, level)
