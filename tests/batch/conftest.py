"""Fixtures of the tests of bulk encoding."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="the data extra (pyarrow) is not installed")
sys.path.insert(0, str(Path(__file__).parent))

from batch_models import rows_of_shop, static_model, write_csv, write_jsonl, write_parquet


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """A static encoder."""
    return static_model(tmp_path_factory.mktemp("static") / "model")


@pytest.fixture
def inputs(tmp_path):
    """A folder with three formats: 35, 12 and 25 items."""
    folder = tmp_path / "in"
    (folder / "deeper").mkdir(parents=True)
    write_csv(folder / "a.csv", rows_of_shop(0, 35))
    write_jsonl(folder / "b.jsonl", rows_of_shop(35, 47))
    write_parquet(folder / "deeper" / "c.parquet", rows_of_shop(47, 72))
    return folder
