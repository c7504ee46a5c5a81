"""leanmatch.batch.Encode: Arrow in, Arrow out, in any process."""

from __future__ import annotations

import pickle
import sys

import numpy as np
import pyarrow as pa
import pytest

from leanmatch import load
from leanmatch.batch import Encode
from leanmatch.errors import DataError, UsageError
from leanmatch.models import PromptOptions

TEXTS = ["usb dock", "red 😀 lamp", "usb dock", "日本 café"]


def test_table_and_batch_get_a_column_of_vectors(model):
    table = pa.table({"sku": [1, 2, 3, 4], "text": TEXTS})
    encode = Encode(model)
    for source in (table, table.to_batches()[0]):
        out = encode(source)
        assert type(out) is type(source)
        assert out.schema == encode.schema(source.schema)
        assert out.column("sku").to_pylist() == [1, 2, 3, 4]
        vectors = np.array(out.column("vector").to_pylist(), np.float32)
        assert np.array_equal(vectors, load(model).encode_document(TEXTS, normalize_embeddings=True))
    assert next(iter(encode.batches(table.to_batches()))).num_rows == 4
    assert encode(table.slice(0, 0)).num_rows == 0
    assert encode.truncated == 0


def test_lists_of_any_size(model):
    table = pa.table({"text": TEXTS})
    encode = Encode(model, fixed_size=False)
    out = encode(table)
    assert out.schema == encode.schema(table.schema)
    assert pa.types.is_list(out.schema.field("vector").type)
    assert out["vector"].to_pylist() == Encode(model)(table)["vector"].to_pylist()
    assert encode(table.slice(0, 0)).num_rows == 0


def test_chunked_and_sliced_input(model):
    chunked = pa.chunked_array([TEXTS[:1], [], TEXTS[1:]])
    out = Encode(model)(pa.table({"text": chunked}).slice(1, 2))
    expected = load(model).encode_document(TEXTS[1:3], normalize_embeddings=True)
    assert np.array_equal(np.array(out["vector"].to_pylist(), np.float32), expected)


def test_columns_precision_role_and_name(model):
    table = pa.table({"title": ["red", "blue"], "text": ["lamp", None]})
    encode = Encode(
        model,
        ("title", "text"),
        role="query",
        prompts=PromptOptions(query="usb "),
        precision="int8",
        threads=1,
        vector_column="embedding",
    )
    out = pickle.loads(pickle.dumps(encode))(table)
    assert out.column_names == ["title", "text", "embedding", "embedding_scale"]
    codes = np.array(out["embedding"].to_pylist(), np.float64)
    vectors = codes * np.array(out["embedding_scale"])[:, None]
    expected = load(model).encode(["usb red lamp", "usb blue"], normalize_embeddings=True)
    assert np.abs(vectors - expected).max() <= np.abs(expected).max() / 127 / 2 + 1e-7
    assert np.abs(codes).max() == 127


def test_a_pickle_carries_no_model(model):
    encode = Encode(model)
    encode(pa.table({"text": TEXTS}))
    assert len(pickle.dumps(encode)) < 1000


def test_what_cannot_be_encoded(model):
    with pytest.raises(DataError, match="no column 'text'; the columns are: title"):
        Encode(model)(pa.table({"title": TEXTS}))
    with pytest.raises(DataError, match=r"row 2 column 'text': the text is missing or blank \(found None\)"):
        Encode(model)(pa.table({"text": ["red", None]}))
    with pytest.raises(DataError, match="column 'vector' already"):
        Encode(model)(pa.table({"text": ["red"], "vector": [1]}))
    for wrong in ({"role": "x"}, {"precision": "x"}, {"threads": 0}):
        with pytest.raises(UsageError):
            Encode(model, **wrong)


def test_workers_need_no_torch(model):
    import subprocess

    code = (
        "import sys, pyarrow as pa\n"
        "from leanmatch.batch import Encode\n"
        "Encode(sys.argv[1])(pa.table({'text': ['usb dock']}))\n"
        "assert not {'torch', 'transformers', 'sentence_transformers'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code, model], check=True)
