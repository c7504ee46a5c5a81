"""The Spark of docs/how-to/encode.md, as it is printed, on a local master; needs pyspark and Java."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

pytest.importorskip("pyspark", reason="pyspark is not installed")
if shutil.which("java") is None:
    pytest.skip("there is no Java for Spark", allow_module_level=True)

sys.path.insert(0, str(Path(__file__).parents[1]))

from leanmatch import load


@pytest.fixture(scope="module")
def spark():
    from pyspark.sql import SparkSession

    os.environ.update(PYSPARK_PYTHON=sys.executable, SPARK_LOCAL_IP="127.0.0.1")
    settings = {
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.driver.memory": "512m",
    }
    builder = SparkSession.builder.master("local[2]").appName("leanmatch")
    for name, value in settings.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    yield session
    session.stop()


def test_the_documented_job(spark, model, tmp_path, repository):
    from test_docs import code_blocks

    texts = ["usb dock", "red lamp", "hdmi cable", "café 日本 😀"] * 20
    items = spark.createDataFrame([(n, text) for n, text in enumerate(texts)], ["sku", "title"])
    page = repository / "docs" / "how-to" / "encode.md"
    (snippet,) = code_blocks(page.read_text(encoding="utf-8"), frozenset({"python"}))
    for printed, used in (("lean/", model), ("vectors-of-spark", tmp_path / "vectors-of-spark")):
        assert f'"{printed}"' in snippet
        snippet = snippet.replace(f'"{printed}"', repr(str(used)))
    exec(snippet, {"items": items})
    table = pq.read_table(tmp_path / "vectors-of-spark")
    order = np.argsort(table["sku"].to_numpy())
    vectors = np.array(table["vector"].to_pylist(), np.float32)[order]
    assert np.array_equal(vectors, load(model).encode_document(texts, normalize_embeddings=True))
