"""Baselines against what theory says they are, and the one table of all methods."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from leanmatch.errors import DataError, UsageError
from leanmatch.factorization.error_metric import ErrorMetric
from leanmatch.factorization.solvers import SOLVERS, find_solver, solve


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


SMALL = {
    "dense-sparse": {"block": 8, "atoms": 10, "nonzeros": 2, "iterations": 3},
    "svd": {"rank": 1},
    "fwsvd": {"rank": 1},
    "int4": {"group": 8},
}


@pytest.mark.parametrize("m", [1, 17])
@pytest.mark.parametrize("method", SOLVERS)
def test_every_method_has_the_same_face(method, m):
    weight = normal(m, 24)
    metric = ErrorMetric(fisher=np.ones((m, 24)))
    result = solve(weight, method, metric, **SMALL.get(method, {}))
    dense = result.factors.dense()
    assert dense.shape == result.factors.shape == weight.shape
    assert dense.dtype == np.float32
    error = np.square(dense.astype(float) - weight).sum() / np.square(weight.astype(float)).sum()
    np.testing.assert_allclose(result.report.relative_error, error, rtol=1e-6)
    np.testing.assert_allclose(result.report.weighted_error, error, rtol=1e-6)
    assert error < 0.95
    assert result.factors.cost().bits > 0
    assert (result.report.method in (method, "n:m")) and result.report.iterations >= 1
    assert solve(np.zeros_like(weight), method, metric, **SMALL.get(method, {})).report.relative_error == 0


def test_svd_is_the_best_of_its_rank():
    weight = normal(20, 12)
    singular = np.linalg.svd(weight, compute_uv=False)
    result = solve(weight, "svd", rank=5)
    np.testing.assert_allclose(
        result.report.relative_error, (singular[5:] ** 2).sum() / (singular**2).sum(), rtol=1e-4
    )
    assert result.factors.cost().macs == 5 * 32
    assert solve(weight, "svd", rank=12).report.relative_error < 1e-10


def test_svd_in_the_metric_of_the_inputs():
    inputs = normal(200, 12, seed=1) * np.geomspace(4, 0.1, 12, dtype=np.float32)
    weight, metric = normal(20, 12), ErrorMetric(moments=inputs.T @ inputs / 200)
    plain = metric.error(weight, solve(weight, "svd", rank=4).factors.dense())
    assert solve(weight, "svd", metric, rank=4).report.weighted_error < 0.7 * plain


def test_fwsvd_is_the_best_for_weights_along_rows():
    weight = normal(20, 12)
    rows = np.random.default_rng(1).exponential(size=(20, 1)) ** 2
    metric = ErrorMetric(fisher=np.broadcast_to(rows, (20, 12)).copy())
    result = solve(weight, "fwsvd", metric, rank=4)
    singular = np.linalg.svd(np.sqrt(rows) * weight, compute_uv=False)
    best = (singular[4:] ** 2).sum() / (singular**2).sum()
    np.testing.assert_allclose(result.report.weighted_error, best, rtol=1e-3)
    assert metric.error(weight, solve(weight, "svd", rank=4).factors.dense()) > 1.05 * best
    with pytest.raises(UsageError, match="Fisher"):
        solve(weight, "fwsvd", rank=4)


def test_pruning_keeps_the_best_of_each_group():
    weight = normal(12, 16)
    result = solve(weight, "n:m", keep=3, of=8)
    lowest = min_error = 0.0
    for group in weight.astype(float).reshape(-1, 8):
        lowest = min(np.square(np.delete(group, kept)).sum() for kept in combinations(range(8), 3))
        min_error += lowest
    np.testing.assert_allclose(
        result.report.relative_error, min_error / np.square(weight.astype(float)).sum(), rtol=1e-5
    )
    kept = result.factors.dense()
    np.testing.assert_array_equal(kept[kept != 0], weight[kept != 0])
    assert (np.count_nonzero(kept.reshape(-1, 8), axis=1) == 3).all()


def test_pruning_goes_by_the_metric():
    weight = np.array([[1, 2, 3, 4]], np.float32)
    moments = ErrorMetric(moments=np.diag([100.0, 1, 1, 1]))
    fisher = ErrorMetric(fisher=np.array([[1.0, 100, 1, 1]]))
    assert solve(weight, "2:4").factors.dense().tolist() == [[0, 0, 3, 4]]
    assert solve(weight, "2:4", moments).factors.dense().tolist() == [[1, 0, 0, 4]]
    assert solve(weight, "2:4", fisher).factors.dense().tolist() == [[0, 2, 0, 4]]


@pytest.mark.parametrize(("method", "most"), [("int8", 127), ("int4", 7)])
def test_rounding_is_off_by_half_a_step_at_most(method, most):
    weight = normal(9, 32)
    result = solve(weight, method, group=16)
    step = np.abs(weight.reshape(9, 2, 16)).max(axis=2) / most
    assert (np.abs(result.factors.dense() - weight).reshape(9, 2, 16) <= 0.5001 * step[..., None]).all()
    assert result.factors.bits == int(method[3:])
    whole = solve(weight, "int8", group=0).factors.scale
    assert whole.shape == (9, 1)


def test_names_and_options_come_from_the_table():
    with pytest.raises(UsageError, match="one of dense-sparse, svd, fwsvd"):
        find_solver("magic")
    with pytest.raises(UsageError, match="has no option atoms") as error:
        solve(normal(4, 8), "svd", atoms=3)
    assert "one of rank" in str(error.value)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("svd", {"rank": 0}, "at least 1"),
        ("svd", {"rank": 9}, r"min\(m, n\) = 8"),
        ("n:m", {"keep": 5, "of": 4}, "from 1 to 4"),
        ("n:m", {"keep": 1, "of": 3}, "must divide"),
        ("int8", {"bits": 5}, "one of 8, 4, 3, 2"),
        ("int8", {"bits": 1}, "one of 8, 4, 3, 2"),
        ("int2", {"group": 3}, "one of 1, 2, 4, 8"),
        ("int8", {"group": 3}, "one of 1, 2, 4, 8"),
    ],
)
def test_bad_options_are_refused(method, options, message):
    with pytest.raises(UsageError, match=message):
        solve(normal(20, 8), method, **options)


@pytest.mark.parametrize("method", SOLVERS)
def test_bad_matrices_are_refused(method):
    weight = normal(20, 48)
    weight[3, 5] = np.nan
    with pytest.raises(DataError, match=r"first at \(3, 5\)"):
        solve(weight, method)
    with pytest.raises(DataError, match="float32"):
        solve(weight.astype(float), method)
    with pytest.raises(DataError, match="empty along n"):
        solve(weight[:, :0], method)
