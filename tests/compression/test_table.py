"""The table of the compression benchmark, from made-up result files."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "research"))
    names = [name for name in sys.modules if name.startswith("compression_")]
    yield importlib.import_module("compression_table"), importlib.import_module("compression_match")
    for name in [n for n in sys.modules if n.startswith("compression_") and n not in names]:
        del sys.modules[name]


def test_values_survive_packing(scripts):
    _, match = scripts
    values = np.random.default_rng(0).random(50).astype(np.float32)
    assert np.array_equal(match.unpack(match.pack(values)), values)


def test_the_table_compares_methods_on_the_same_queries(scripts, tmp_path):
    table, match = scripts
    draw = np.random.default_rng(0)
    dense = draw.random(200)

    def scores(values):
        return {"quora MRR@10": {"mean": float(values.mean()), "queries": match.pack(values)}}

    for method, loss in (("stf", 0.01), ("svd", 0.2)):
        result = {
            "task": "match",
            "method": method,
            "ratio": 2.67,
            "whole": False,
            "steps": 5,
            "batch": 8,
            "seed": 0,
            "mac_ratio": 2.9,
            "byte_ratio": 7.0,
            "model_bytes": 1e7,
            "training_seconds": 3.0,
            "final": scores(dense - loss),
            "dense": scores(dense),
        }
        (tmp_path / f"{method}.json").write_text(json.dumps(result))
    out, plot = tmp_path / "table.md", tmp_path / "plot.svg"
    out.write_text("By hand.\n\n<!-- tables -->\nan older table\n")
    table.main([str(tmp_path), "-o", str(out), "--plot", str(plot)])
    text = out.read_text()
    assert text.startswith("By hand.\n\n<!-- tables -->\n") and "an older table" not in text
    assert plot.read_text().startswith("<?xml")
    # a constant difference has an interval of no width
    assert "(-1.0 to -1.0)" in text
    assert "| SVD, then train | +19.0 (+19.0 to +19.0) |" in text
