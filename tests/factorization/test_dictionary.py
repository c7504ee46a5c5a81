"""Learned dictionaries: planted factors come back, updates are the best ones, weights of the error count."""

from __future__ import annotations

import numpy as np
import pytest

from factor_examples import factors_of
from leanmatch.errors import DataError, UsageError
from leanmatch.factorization import DenseSparse
from leanmatch.factorization import atoms as atoms_module
from leanmatch.factorization.atoms import least_squares_atoms, revive_atoms, weighted_values
from leanmatch.factorization.compensation import swept
from leanmatch.factorization.dense_sparse_solver import dense_sparse
from leanmatch.factorization.dictionary import DenseSparseOptions
from leanmatch.factorization.error_metric import BlockMetric, ErrorMetric
from leanmatch.factorization.pursuit import native as pursuit

SMALL = DenseSparseOptions(block=8, atoms=20, nonzeros=2, iterations=12, beam=2, threads=1)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def correlated_moments(n, seed=3):
    """Second moments of inputs that share a few directions, within blocks and across them."""
    mixing = normal(n, n, seed=seed) * np.geomspace(3, 0.05, n)[:, None]
    inputs = normal(4 * n, n, seed=seed + 1) @ mixing
    return inputs.T @ inputs / len(inputs)


def test_planted_factors_come_back():
    planted = factors_of(m=600, blocks=2, r=12, b=8, k=2)
    options = DenseSparseOptions(block=8, atoms=16, nonzeros=2, iterations=30, threads=1)
    result = dense_sparse(planted.dense(), options)
    assert result.report.relative_error < 0.03
    assert result.report.iterations == 31
    assert result.report.history[0] > 5 * result.report.history[-1]
    assert isinstance(result.factors, DenseSparse)
    np.testing.assert_allclose(np.linalg.norm(result.factors.atoms, axis=2), 1, rtol=1e-5)


def test_the_report_measures_the_factors_and_the_seed_decides():
    weight = normal(100, 16)
    one, again, other = (
        dense_sparse(weight, DenseSparseOptions(**{**vars(SMALL), "seed": seed})) for seed in (0, 0, 1)
    )
    error = np.square(one.factors.dense() - weight).sum() / np.square(weight).sum()
    np.testing.assert_allclose(one.report.relative_error, error, rtol=1e-5)
    np.testing.assert_allclose(one.report.relative_error, min(one.report.history), rtol=1e-4)
    assert one.report.weighted_error is None
    np.testing.assert_array_equal(one.factors.indices, again.factors.indices)
    np.testing.assert_array_equal(one.factors.atoms, again.factors.atoms)
    assert not np.array_equal(one.factors.atoms, other.factors.atoms)


@pytest.mark.parametrize("m", [0, 1, 7])
def test_fewer_rows_than_atoms(m):
    weight = normal(m, 16)
    result = dense_sparse(weight, SMALL)
    assert result.factors.shape == (m, 16)
    assert result.report.relative_error < 1e-6


def test_rows_of_zeros():
    weight = normal(60, 16)
    weight[::2] = 0
    weight[:, :8] = 0
    result = dense_sparse(weight, SMALL)
    assert (result.factors.dense()[::2] == 0).all()
    assert (result.factors.dense()[:, :8] == 0).all()
    assert 0 < result.report.relative_error < 0.4


def squared_error(weight, codes, atoms, rows):
    m, blocks, _ = codes.indices.shape
    error = np.square(pursuit.decode(codes.indices, codes.values, atoms).astype(float) - weight)
    return (error.reshape(m, blocks, -1).sum(axis=2) * rows).sum()


def test_least_squares_atoms_cannot_be_bettered():
    weight, atoms = normal(200, 16), normal(2, 12, 8, seed=1)
    rows = np.random.default_rng(2).uniform(0.1, 3, (200, 2))
    codes = pursuit.pursue(weight, atoms, 3)
    best = least_squares_atoms(weight, codes, atoms, rows)
    lowest = squared_error(weight, codes, best, rows)
    assert lowest < 0.95 * squared_error(weight, codes, atoms, rows)
    assert lowest < squared_error(weight, codes, least_squares_atoms(weight, codes, atoms), rows)
    for seed in range(5):
        moved = best + 0.01 * normal(*best.shape, seed=seed + 5)
        assert squared_error(weight, codes, moved, rows) > lowest


def test_unused_and_weak_atoms_become_the_worst_rows():
    weight, atoms = normal(50, 8), normal(1, 10, 8, seed=1)
    atoms[0, 3] = 0  # nobody gains by it
    codes = pursuit.pursue(weight, atoms, 2)
    worst = weight[np.argsort(-codes.errors[:, 0])]
    revived, replaced = revive_atoms(weight, codes, atoms)
    assert replaced == 1
    np.testing.assert_array_equal(revived[0, 3], worst[0])
    revived, replaced = revive_atoms(weight, codes, atoms, share=0.3)
    assert replaced == 3
    assert {tuple(row) for row in worst[:3]} <= {tuple(row) for row in revived[0]}
    np.testing.assert_array_equal(least_squares_atoms(weight, codes, atoms)[0, 3], atoms[0, 3])


def test_moments_lower_the_weighted_error_and_compensation_more_so():
    weight, metric = normal(120, 32), ErrorMetric(moments=correlated_moments(32))
    options = {**vars(SMALL), "iterations": 8}
    plain = dense_sparse(weight, DenseSparseOptions(**options))
    weighted = dense_sparse(weight, DenseSparseOptions(**options), metric)
    mended = dense_sparse(weight, DenseSparseOptions(**{**options, "compensate": True}), metric)
    blind = metric.error(weight, plain.factors.dense())
    assert weighted.report.weighted_error < 0.8 * blind
    assert mended.report.weighted_error < 0.8 * weighted.report.weighted_error
    assert plain.report.relative_error < weighted.report.relative_error


@pytest.mark.parametrize("fisher", [None, np.random.default_rng(2).exponential(size=(120, 32)) ** 2])
def test_every_sweep_lowers_the_error_of_all_blocks_together(fisher):
    weight = normal(120, 32)
    metric = ErrorMetric(moments=correlated_moments(32), fisher=fisher)
    errors = []
    for sweeps in range(4):
        options = DenseSparseOptions(
            **{**vars(SMALL), "iterations": 8, "compensate": True, "sweeps": sweeps, "beam": 2}
        )
        found = dense_sparse(weight, options, metric)
        damped = ErrorMetric(moments=metric.damped, fisher=fisher)
        errors.append(damped.error(weight, found.factors.dense()))
    assert (np.diff(errors) < 0).all()
    assert errors[2] < 0.92 * errors[0]


def test_a_block_is_solved_given_the_errors_of_all_others():
    """With as many nonzeros as columns the swept block ends at its best reply to a planted error."""
    weight, metric = normal(20, 16), ErrorMetric(moments=correlated_moments(16))
    moments = metric.damped
    options = DenseSparseOptions(block=8, atoms=8, nonzeros=8, iterations=2)
    exact = dense_sparse(weight, options).factors
    wrong = dense_sparse(weight + np.eye(20, 16, 8, dtype=np.float32), options).factors
    parts = [
        DenseSparse(source.atoms[i : i + 1], source.indices[:, i : i + 1], source.values[:, i : i + 1])
        for i, source in enumerate((exact, wrong))
    ]
    error = weight[:, 8:] - parts[1].dense()
    found = swept(weight, parts, metric, BlockMetric(), options)
    reply = weight[:, :8] + error @ moments[8:, :8] @ np.linalg.inv(moments[:8, :8])
    np.testing.assert_allclose(found[0].dense(), reply, atol=1e-3)
    np.testing.assert_allclose(reply[12:], weight[12:, :8], atol=1e-3)  # rows without an error
    assert np.abs(reply[:8] - weight[:8, :8]).max() > 0.1


def test_fisher_rows_and_columns_count():
    weight = normal(120, 16)
    rng = np.random.default_rng(1)
    fisher = rng.exponential(size=(120, 1)) ** 2 * rng.exponential(size=(1, 16)) ** 2
    metric = ErrorMetric(fisher=fisher)
    plain, weighted = dense_sparse(weight, SMALL), dense_sparse(weight, SMALL, metric)
    assert weighted.report.weighted_error < 0.7 * metric.error(weight, plain.factors.dense())
    both = ErrorMetric(moments=correlated_moments(16), fisher=fisher)
    assert dense_sparse(weight, SMALL, both).report.weighted_error < both.error(weight, plain.factors.dense())


def test_values_for_any_weight_of_each_entry_cannot_be_bettered(monkeypatch):
    weight, atoms = normal(40, 16), normal(2, 12, 8, seed=1)
    fisher = np.random.default_rng(1).exponential(size=weight.shape) ** 3
    fisher[5] = 0
    codes = pursuit.pursue(weight, atoms, 3)

    def weighted(values):
        error = weight - pursuit.decode(codes.indices, values.astype(np.float32), atoms).astype(float)
        return (fisher * error**2).sum()

    best = weighted_values(weight, fisher, codes, atoms)
    assert weighted(best) < 0.8 * weighted(codes.values)
    np.testing.assert_array_equal(best[5], codes.values[5])
    for seed in range(5):
        assert weighted(best + 0.05 * normal(*best.shape, seed=seed)) > weighted(best)
    monkeypatch.setattr(atoms_module, "CELLS", 6)
    np.testing.assert_allclose(weighted_values(weight, fisher, codes, atoms), best, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block": 0}, "block must be at least 1"),
        ({"nonzeros": 65}, "from 1 to 64"),
        ({"atoms": 0}, "atoms must be from 1"),
        ({"beam": 0}, "beam must be at least 1"),
        ({"sweeps": -1}, "sweeps must be at least 0"),
        ({"iterations": -1}, "iterations"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        DenseSparseOptions(**options)


def test_what_does_not_fit_is_refused():
    with pytest.raises(UsageError, match="must divide the 20 columns"):
        dense_sparse(normal(9, 20))
    with pytest.raises(UsageError, match="second moments"):
        dense_sparse(normal(9, 16), DenseSparseOptions(compensate=True))
    with pytest.raises(DataError, match=r"moments must have the shape \(16, 16\)"):
        dense_sparse(normal(9, 16), None, ErrorMetric(moments=np.eye(4)))
    with pytest.raises(DataError, match=r"fisher must have the shape \(9, 16\)"):
        dense_sparse(normal(9, 16), None, ErrorMetric(fisher=np.ones((4, 4))))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"moments": np.ones((2, 3))}, "square"),
        ({"moments": np.array([[1.0, 2], [0, 1]])}, "symmetric"),
        ({"moments": np.diag([1.0, -1])}, "at least 0"),
        ({"moments": np.full((2, 2), np.nan)}, "not finite"),
        ({"fisher": -np.ones((2, 2))}, "at least 0"),
        ({"fisher": np.full((2, 2), np.inf)}, "not finite"),
    ],
)
def test_bad_calibration_is_refused(arrays, message):
    with pytest.raises(DataError, match=message):
        ErrorMetric(**arrays)


def test_damping_makes_moments_of_dead_inputs_usable():
    weight = normal(40, 16)
    for moments in (np.zeros((16, 16)), np.diag([1.0] * 3 + [0.0] * 13)):
        result = dense_sparse(weight, SMALL, ErrorMetric(moments=moments))
        assert np.isfinite(result.factors.dense()).all()
    with pytest.raises(DataError, match="needed here"):
        _ = ErrorMetric().damped
