"""The client against the server in memory, and its retries against a server that fails as it is told."""

from __future__ import annotations

import httpx
import numpy as np
import pytest

pytest.importorskip("tenacity", reason="tenacity is not installed (extra client)")

from leanmatch.errors import DataError, LeanmatchError, UsageError
from leanmatch.serve import Client
from leanmatch.serve.client import ClientItem, ServerError


@pytest.fixture
def spoken(client):
    """The client of the product over the test client's server."""

    class Bridge(httpx.BaseTransport):
        def handle_request(self, request):
            found = client.request(
                request.method, request.url.path, content=request.read(), headers=dict(request.headers)
            )
            return httpx.Response(found.status_code, headers=found.headers, content=found.content)

    with Client("http://server", key="write-key-1", transport=Bridge(), attempts=1) as made:
        yield made


def test_everything_once(spoken, encoder):
    hits = spoken.recommend(["number 7"], 3, filter="price < 9", explain=True)[0]
    assert [hit.rank for hit in hits] == [1, 2, 3] and hits[0].query_words[0].start == 0
    assert hits[0].item_words and hits[0].metadata["price"] < 9
    assert spoken.recommend([]) == []
    assert np.array_equal(spoken.embed(["a", "b"]), encoder(["a", "b"]).astype(np.float32))
    assert spoken.upsert([ClientItem("n", "purple socks", {"price": 1})])["added"] == 1
    assert spoken.recommend(["purple"], 1, filter={"column": "price", "le": 1})[0][0].id == "n"
    assert spoken.delete(["n"])["deleted"] == 1
    assert spoken.catalogue()["items"] == 40 and spoken.status()["items"] == 40


def test_refusals_are_told(spoken):
    with pytest.raises(ServerError, match="the columns are") as caught:
        spoken.recommend(["a"], filter="colour = 1")
    assert caught.value.status == 400 and len(caught.value.request) == 32
    with pytest.raises(UsageError, match="one string"):
        spoken.recommend("a")


def answering(*answers):
    """A client of a server that gives these answers in turn, the times it slept and the requests it sent."""
    slept, asked, left = [], [], list(answers)

    def handle(request):
        asked.append(request)
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    made = Client("http://x", transport=httpx.MockTransport(handle), sleep=slept.append, attempts=4)
    return made, slept, asked


def ok():
    return httpx.Response(200, json={"data": [{"id": "m"}]})


def test_busy_is_tried_again_after_the_time_that_is_named():
    client, slept, asked = answering(
        httpx.Response(429, headers={"retry-after": "3"}), httpx.Response(503), httpx.ConnectError("no"), ok()
    )
    assert client.models() == ["m"] and len(asked) == 4
    assert slept[0] == 3 and 0 <= slept[1] < 2 and 0 <= slept[2] < 4


def test_no_retry_where_it_cannot_help():
    client, slept, asked = answering(httpx.Response(400, json={"error": {"message": "no"}}))
    with pytest.raises(ServerError, match="no \\(HTTP 400"):
        client.models()
    assert len(asked) == 1 and not slept


def test_giving_up():
    client, _, asked = answering(*[httpx.Response(429, json={"error": {"message": "busy"}})] * 4)
    with pytest.raises(ServerError, match="busy"):
        client.models()
    assert len(asked) == 4
    client, _, _ = answering(*[httpx.ConnectError("refused")] * 4)
    with pytest.raises(LeanmatchError, match="does not answer"):
        client.models()
    client, _, _ = answering(httpx.Response(200, text="<html>"))
    with pytest.raises(DataError, match="no JSON"):
        client.models()
    with pytest.raises(UsageError, match="attempts is 0"):
        Client("http://x", attempts=0)
