"""``POST /v1/embeddings``: OpenAI's form, token ids, and faults that are told by their place."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest
from catalogue_models import WordEncoder


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
    assert embed("x", model="gpt").status_code == 404 and embed("x", dimensions=3).status_code == 400
    assert embed("x", dimensions=24).status_code == 200
    assert embed([]).status_code == embed("").status_code == embed([["x"]]).status_code == 422


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
