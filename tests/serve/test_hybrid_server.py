"""Hybrid search and reranking over HTTP: answers, refusals, changes, time-outs."""

import time

import numpy as np
import pytest

pytest.importorskip("bm25s", reason="bm25s is not installed (extra hybrid)")

from leanmatch.errors import ModelError
from leanmatch.index import Catalogue, Item, WriteOptions, rebuild_catalogue, upsert_items

SHOP = [Item("x", "projector XJ-200", {"price": 5.0}), Item("y", "projector XJ-300", {"price": 50.0})]


class Lengths:
    """Scores an item by the length of its text; a query that holds "slow" takes its time."""

    name = "lengths"

    def __init__(self):
        self.pairs = []

    def scores(self, pairs):
        self.pairs += pairs
        if any("slow" in query for query, _ in pairs):
            time.sleep(1.0)
        if any("fault" in query for query, _ in pairs):
            raise ModelError("this reranker is broken", remedy="none")
        return np.array([float(len(item)) for _, item in pairs])

    logits = scores


@pytest.fixture
def hybrid(folder, encoder):
    upsert_items(folder, SHOP, encoder)
    rebuild_catalogue(folder, encoder, WriteOptions(hybrid=True))
    return folder


@pytest.fixture
def reranker(monkeypatch):
    made = Lengths()
    monkeypatch.setattr("leanmatch.serve.service.load_reranker", lambda name, threads=None: made)
    return made


def ask(client, text, **options):
    return client.post("/v1/recommend", json={"texts": [text], **options})


def zscore(values):
    return (np.array(values) - np.mean(values)) / np.std(values)


def items(answer):
    assert answer.status_code == 200, answer.text
    return answer.json()["results"][0]["recommendations"]


def test_a_hybrid_catalogue_is_searched_by_terms(hybrid, open_client, encoder):
    client = open_client()
    for spelling, weight in (("xj200", 0.5), ("XJ 200", 0.2), ("XJ-200", 0.5)):
        first = next(item for item in items(ask(client, spelling, k=42)) if item["id"] == "x")
        expected = (1 - weight) * first["cosine"] + weight * first["lexical"]
        assert first["lexical"] > 0.4 and first["score"] == pytest.approx(expected, abs=1e-5)
        assert items(ask(client, spelling, k=1, lexical_weight=0.9))[0]["id"] == "x"
    expected = Catalogue.open(hybrid).recommend(encoder, ["xj200"], 9, lexical_weight=0.3)[0]
    got = items(ask(client, "xj200", k=9, lexical_weight=0.3))
    assert [item["id"] for item in got] == [item.id for item in expected]
    dense = items(ask(client, "xj200", hybrid=False))
    assert "lexical" not in dense[0] and "cosine" not in dense[0]
    assert (
        items(ask(client, "xj200", filter="price > 20 and price < 60", k=1, lexical_weight=1))[0]["id"] == "y"
    )
    assert "+terms" in client.get("/metrics").text


def test_explanations_name_the_terms(hybrid, open_client):
    client = open_client()
    first = items(ask(client, "projector xj200", explain=True, lexical_weight=1.0))[0]
    assert first["explanation"]["terms"][0] in {"xj200", "200"} and first["explanation"]["query"]
    assert "terms" not in items(ask(client, "xj200", explain=True, hybrid=False))[0]["explanation"]


def test_changes_over_http_change_the_terms(hybrid, open_client):
    client = open_client()
    key = {"authorization": "Bearer write-key-1"}
    body = {"items": [{"id": "z", "text": "spare lamp ZK-77"}]}
    assert client.post("/v1/items", json=body, headers=key).status_code == 200
    assert items(ask(client, "zk77", k=1, lexical_weight=1))[0]["id"] == "z"
    assert client.post("/v1/items/delete", json={"ids": ["z"]}, headers=key).status_code == 200
    assert items(ask(client, "zk77", k=1, lexical_weight=1))[0]["id"] != "z"


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        ({"hybrid": True}, 400, "no terms"),
        ({"lexical_weight": 0.5}, 400, "hybrid"),
        ({"lexical_weight": 1.5}, 422, "less than or equal to 1"),
        ({"hybrid": "yes"}, 422, "hybrid"),
        ({"rerank": True}, 400, "--rerank MODEL"),
        ({"rerank": 1}, 422, "rerank"),
    ],
)
def test_refusals_of_a_server_without_either(client, options, status, message):
    answer = ask(client, "thing", **options)
    assert answer.status_code == status and message in answer.text


def test_reranking(open_client, reranker):
    client = open_client(rerank="lengths", rerank_top=7, rerank_weight=1)
    plain = items(ask(client, "thing number 3", k=7))
    reranker.pairs.clear()
    best = items(ask(client, "thing number 3", k=2, rerank=True))
    assert len(reranker.pairs) == 7 and {item for _, item in reranker.pairs} == {
        item["text"] for item in plain
    }
    longest = sorted(plain, key=lambda item: -len(item["text"]))[:2]
    assert [item["id"] for item in best] == [item["id"] for item in longest]
    assert best[0]["score"] == len(best[0]["text"]) and -1 <= best[0]["cosine"] <= 1
    assert len(items(ask(client, "thing", k=20, rerank=True))) == 20  # k above rerank_top
    reranker.pairs.clear()
    assert items(ask(client, "thing", k=2)) and not reranker.pairs  # only where it is asked for
    explained = items(ask(client, "thing number 3", k=2, rerank=True, explain=True))
    assert explained[0]["id"] == best[0]["id"] and explained[0]["explanation"]["query"]
    answer = client.post("/v1/recommend", json={"texts": ["a"] * 17, "rerank": True})
    assert answer.status_code == 400 and "at most 16" in answer.text


def test_reranking_weighs_the_search_and_the_reranker(open_client, reranker):
    client = open_client(rerank="lengths", rerank_top=40)
    plain = items(ask(client, "thing number 3", k=40))
    cosines, lengths = ([row["score"] for row in plain], [len(row["text"]) for row in plain])
    sums = 0.5 * zscore(cosines) + 0.5 * zscore(lengths)
    best = items(ask(client, "thing number 3", k=40, rerank=True))
    assert [row["score"] for row in best] == pytest.approx(-np.sort(-sums), abs=1e-3)  # cosines are rounded
    by_length = np.argsort(-np.array(lengths), kind="stable")
    orders = [[row["id"] for row in order] for order in (best, plain, [plain[at] for at in by_length])]
    assert orders[0] not in orders[1:]


def test_reranking_of_a_hybrid_search(hybrid, open_client, reranker):
    first = items(ask(open_client(rerank="lengths"), "xj200", k=1, rerank=True))[0]
    assert {"score", "cosine", "lexical"} <= set(first)


def test_nobody_waits_behind_a_reranker_and_a_late_one_is_told(open_client, reranker):
    from leanmatch.serve.options import Limits

    client = open_client(rerank="lengths", limits=Limits(timeout_seconds=0.5))
    items(ask(client, "thing"))
    assert ask(client, "slow", rerank=True).status_code == 503
    began = time.monotonic()
    assert items(ask(client, "thing"))  # while the thread is still at it
    assert time.monotonic() - began < 0.5


def test_a_fault_of_the_reranker_is_its_requests_alone(open_client, reranker):
    client = open_client(rerank="lengths")
    assert ask(client, "fault", rerank=True).status_code == 500
    assert items(ask(client, "thing", rerank=True))


def test_a_server_whose_reranker_is_missing_does_not_start(open_client, tmp_path):
    client = open_client(wait=False, rerank=str(tmp_path / "nowhere"))
    deadline = time.monotonic() + 60
    while (status := client.get("/health").json()["status"]) == "starting":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert "failed" in status and "nowhere" in status
