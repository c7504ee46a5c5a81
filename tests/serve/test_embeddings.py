"""``POST /v1/embeddings``: OpenAI's form, token ids, and faults that are told by their place."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest
from catalogue_models import WordEncoder

from leanmatch.errors import UsageError
from leanmatch.serve.monitoring.metrics import Metrics
from leanmatch.serve.options import ServeOptions
from leanmatch.serve.service import Service


def test_embeddings_as_openai_has_them(client, encoder):
    def embed(input_, **more):
        return client.post("/v1/embeddings", json={"input": input_, "model": "hash-1", **more})

    expected = encoder(["one thing", "two"])
    found = embed(["one thing", "two"]).json()
    assert [row["index"] for row in found["data"]] == [0, 1]
    assert np.allclose([row["embedding"] for row in found["data"]], expected, atol=0)
    assert found["usage"] == {"prompt_tokens": 3, "total_tokens": 3, "truncated_texts": 0}
    packed = embed("one thing", encoding_format="base64").json()["data"][0]["embedding"]
    assert np.frombuffer(base64.b64decode(packed), "<f4").tolist() == expected[0].tolist()
    assert embed("x", model="gpt").status_code == 404
    assert embed([]).status_code == embed("").status_code == embed([["x"]]).status_code == 422


def test_dimensions_as_openai_has_them(open_client, encoder):
    def embed(client, **more):
        return client.post("/v1/embeddings", json={"input": ["one thing", "two"], "model": "hash-1", **more})

    def vectors(client, **more):
        return np.array([row["embedding"] for row in embed(client, **more).json()["data"]])

    client, whole = open_client(), encoder(["one thing", "two"])
    assert np.allclose(vectors(client), whole) and np.allclose(vectors(client, dimensions=24), whole)
    short = whole[:, :3] / np.linalg.norm(whole[:, :3], axis=1, keepdims=True)
    assert np.allclose(vectors(client, dimensions=3), short, atol=1e-6)
    packed = embed(client, dimensions=3, encoding_format="base64").json()["data"][1]["embedding"]
    assert np.allclose(np.frombuffer(base64.b64decode(packed), "<f4"), short[1], atol=1e-6)
    refused = embed(client, dimensions=25)
    error = refused.json()["error"]
    assert refused.status_code == 400 and error["param"] == "dimensions" and "have 24" in error["message"]
    assert embed(client, dimensions=0).status_code == embed(client, dimensions="3").status_code == 422
    fewer = open_client(dimensions=3)
    assert np.allclose(vectors(fewer), short, atol=1e-6) and np.allclose(vectors(fewer, dimensions=24), whole)


def test_a_server_has_no_more_dimensions_than_its_catalogue(folder, encoder):
    service = Service(ServeOptions(catalogue=str(folder), dimensions=25), Metrics(), encoder)
    with pytest.raises(UsageError, match="dimensions is 25, and the catalogue's vectors have 24"):
        service._holding.load()
    with pytest.raises(UsageError, match="dimensions is 0"):
        ServeOptions(catalogue=str(folder), dimensions=0)


@pytest.mark.parametrize(
    ("input_", "place"),
    [
        (["a", "", "b"], "input.1: the text is empty"),
        (["a", "b", " \t"], "input.2: the text is blank"),
        (["a", "\ud83d"], "input.1: the text has half"),
        ("\udc00", "input: the text has half"),
        (["a", 3], "input.1: "),
        ([["x"]], "input.0.0: "),
        ([[1, 2], [3, -1]], "input.1.1: "),
        ([1, "x"], "input.1: "),
        ([], "input: "),
        ("", "input: the text is empty"),
        (None, "input: "),
    ],
)
def test_a_fault_in_the_input_of_embeddings_is_told_by_its_place(client, input_, place):
    response = client.post(
        "/v1/embeddings",
        content=json.dumps({"input": input_, "model": "hash-1"}),
        headers={"content-type": "application/json"},
    )
    assert response.status_code == 422
    error = response.json()["error"]
    assert error["message"].startswith(place) and error["param"] == place.partition(":")[0], error


def test_token_arrays(open_client, encoder):
    class WithTokens(WordEncoder):
        words = ("one", "thing", "two")

        def encode_tokens(self, token_ids):
            return self([" ".join(self.words[i] for i in ids) for ids in token_ids])

    client = open_client(WithTokens(dimension=24))
    for ids in ([0, 1], [[0, 1], [2]]):  # tiktoken's, for all that the server knows
        refused = client.post("/v1/embeddings", json={"input": ids, "model": "hash-1"})
        assert refused.status_code == 400 and refused.json()["error"]["param"] == "input"
        for remedy in ("check_embedding_ctx_length=False", "--allow-token-ids"):
            assert remedy in refused.json()["error"]["message"]
    client = open_client(WithTokens(dimension=24), allow_token_ids=True)
    found = client.post("/v1/embeddings", json={"input": [[0, 1], [2]], "model": "hash-1"}).json()
    assert np.allclose([row["embedding"] for row in found["data"]], encoder(["one thing", "two"]))
    assert found["usage"]["prompt_tokens"] == 3
