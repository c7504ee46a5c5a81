"""A pursuit that keeps several supports at every step."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from factor_examples import shapes
from leanmatch.errors import UsageError
from leanmatch.factorization.pursuit import native as pursuit
from slow_pursuit import refit_reference


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("r", [9, 20])
def test_a_beam_of_all_atoms_finds_the_best_pair(each_level, r):
    weight, atoms = normal(30, 12), normal(1, r, 12, seed=1)
    pairs = np.array(list(combinations(range(r), 2)), np.uint8)
    tried = [refit_reference(weight, atoms, np.tile(pair, (30, 1, 1)))[1][:, 0] for pair in pairs]
    best, greedy = np.min(tried, axis=0), pursuit.pursue(weight, atoms, 2).errors[:, 0]
    assert (greedy > best * 1.001).mean() > 0.1  # or greedy would do
    np.testing.assert_allclose(pursuit.pursue(weight, atoms, 2, beam=r).errors[:, 0], best, rtol=1e-4)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shape=shapes(), beam=st.integers(2, 9), seed=st.integers(0, 99))
def test_a_beam_gives_factors(each_level, shape, beam, seed):
    m, blocks, r, b, k = shape
    weight, atoms = normal(m, blocks * b, seed=seed), normal(blocks, r, b, seed=seed + 1)
    codes = pursuit.pursue(weight, atoms, k, beam=beam)
    assert (np.diff(np.sort(codes.indices.astype(int), axis=2), axis=2) > 0).all()
    dense = pursuit.decode(codes.indices, codes.values, atoms).astype(float)
    errors = np.square(dense - weight).reshape(m, blocks, b).sum(axis=2)
    energy = np.square(weight.astype(float)).reshape(m, blocks, b).sum(axis=2)
    assert (np.abs(codes.errors - errors) <= 3e-4 * energy + 1e-12).all()


def test_wider_beams_err_less(each_level):
    weight, atoms = normal(100, 32), normal(2, 64, 16, seed=1)
    totals = [pursuit.pursue(weight, atoms, 4, beam=beam).errors.sum() for beam in (1, 2, 4, 16)]
    assert totals == sorted(totals, reverse=True)
    assert totals[2] < 0.97 * totals[0]


def test_a_beam_survives_duplicates_and_zeros(each_level):
    atoms = normal(1, 6, 5)
    atoms[0, 3:] = atoms[0, :3]
    weight = np.vstack([normal(9, 5, seed=1), np.zeros((1, 5), np.float32)])
    codes = pursuit.pursue(weight, atoms, 5, beam=4)
    assert (np.diff(np.sort(codes.indices.astype(int), axis=2), axis=2) > 0).all()
    assert (np.count_nonzero(codes.values, axis=2) <= 3).all()
    assert codes.indices[9].tolist() == [[0, 1, 2, 3, 4]]
    _, errors = refit_reference(weight, atoms, np.tile(np.arange(3), (10, 1, 1)))
    np.testing.assert_allclose(codes.errors, errors, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    "options", [{"beam": 0}, {"beam": 2, "selection": "correlation"}, {"beam": 2, "nonzeros": 65}]
)
def test_beams_that_do_not_work_are_refused(options):
    with pytest.raises(UsageError, match="beam must be at least 1"):
        pursuit.pursue(normal(3, 16), normal(1, 70, 16), **({"nonzeros": 2} | options))
