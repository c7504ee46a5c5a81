"""Bootstrap intervals: coverage by simulation, pairing, BCa against scipy."""

from __future__ import annotations

import numpy as np
import pytest

from leanmatch.errors import UsageError
from leanmatch.metrics.bootstrap import (
    check_bootstrap,
    interval,
    ratio_influence,
    resample_counts,
    resampled_ratios,
)
from leanmatch.metrics.pairs import RankedPairs


def mean_interval(values, *, resamples=600, seed=0):
    column = values[:, None]
    ones = np.ones_like(column)
    samples = resampled_ratios(column, ones, resamples=resamples, seed=seed)[:, 0]
    influence = ratio_influence(column, ones)[:, 0]
    return interval(samples, float(values.mean()), confidence=0.95, influence=influence)


def reciprocal_ranks(rng, n, loc=0.0):
    ranks = np.ceil(np.exp(rng.normal(1 + loc, 1.3, n)))
    return np.where(ranks <= 10, 1 / ranks, 0.0)


def test_counts_cover_all_resamples_and_units():
    blocks = list(resample_counts(7, 1000, seed=1))
    counts = np.vstack(blocks)
    assert counts.shape == (1000, 7)
    assert set(counts.sum(axis=1)) == {7.0}
    assert counts.mean(axis=0) == pytest.approx(np.ones(7), abs=0.12)
    assert len(np.unique(counts, axis=0)) > 500


def test_blocks_do_not_change_the_number_of_resamples():
    assert sum(len(block) for block in resample_counts(90_000, 101, seed=0)) == 101


@pytest.mark.parametrize("n", [60, 250])
def test_intervals_of_means_cover_the_truth(n):
    """300 simulated evaluations: a standard error is 0.0126, small n undercover a little."""
    rng = np.random.default_rng(n)
    truth = reciprocal_ranks(rng, 2_000_000).mean()
    inside = 0
    for trial in range(300):
        low, high = mean_interval(reciprocal_ranks(rng, n), seed=trial)
        inside += low <= truth <= high
    assert 0.905 <= inside / 300 <= 0.985


def test_paired_intervals_cover_the_true_difference():
    rng = np.random.default_rng(5)
    inside, widths = 0, []
    for trial in range(300):
        shared = rng.random(150)
        ours = np.clip(shared + rng.normal(0.03, 0.1, 150), -1, 2)
        low, high = mean_interval(ours - shared, seed=trial)
        inside += low <= 0.03 <= high
        widths.append(high - low)
    assert 0.91 <= inside / 300 <= 0.985
    assert np.mean(widths) < 0.04, "pairing must remove what the queries have in common (0.13 unpaired)"


def test_intervals_of_auc_cover_the_truth():
    rng = np.random.default_rng(3)
    truth = 0.7602499389065233  # Phi(1 / sqrt 2): two unit normals, one apart
    inside = 0
    for trial in range(200):
        labels = np.arange(160) % 2
        ranked = RankedPairs(rng.normal(labels, 1), labels)
        samples = np.vstack([ranked.metrics(["AUC"], counts) for counts in resample_counts(160, 400, trial)])
        value = float(ranked.metrics(["AUC"])[0, 0])
        low, high = interval(samples[:, 0], value, confidence=0.95)
        inside += low <= truth <= high
    assert 0.9 <= inside / 200 <= 0.985


def test_bca_agrees_with_scipy():
    stats = pytest.importorskip("scipy.stats")
    values = reciprocal_ranks(np.random.default_rng(0), 120)
    want = stats.bootstrap(
        (values,), np.mean, n_resamples=9999, rng=np.random.default_rng(1)
    ).confidence_interval
    got = mean_interval(values, resamples=9999)
    assert got == pytest.approx((want.low, want.high), abs=0.004)
    plain = np.quantile(np.random.default_rng(2).choice(values, (9999, 120)).mean(axis=1), [0.025, 0.975])
    assert got[0] > plain[0] and got[1] > plain[1], "BCa must move to the long tail of a skewed metric"


def test_ratio_of_sums_is_resampled_as_such():
    numerators, denominators = np.array([[1.0], [0], [4]]), np.array([[1.0], [2], [4]])
    samples = resampled_ratios(numerators, denominators, resamples=200, seed=0)
    assert samples.min() == 0 and samples.max() == 1
    assert not np.isclose(samples.mean(), (numerators / denominators).mean())


def test_same_seed_same_interval_and_another_seed_another():
    values = reciprocal_ranks(np.random.default_rng(0), 50)
    assert mean_interval(values, seed=1) == mean_interval(values, seed=1)
    assert mean_interval(values, seed=1) != mean_interval(values, seed=2)


def test_constant_values_have_no_width_and_undefined_resamples_are_left_out():
    assert mean_interval(np.full(5, 0.25)) == (0.25, 0.25)
    samples = np.array([np.nan, 0.1, 0.3])
    assert interval(samples, 0.2, confidence=0.5).low >= 0.1


@pytest.mark.parametrize(
    ("confidence", "resamples", "message"), [(1.0, 500, "confidence is 1"), (0.9, 99, "99")]
)
def test_refused(confidence, resamples, message):
    with pytest.raises(UsageError, match=message):
        check_bootstrap(confidence, resamples)
