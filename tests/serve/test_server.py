"""The server through its HTTP interface: what it answers, what it refuses, what it says about itself."""

from __future__ import annotations

import json
import logging
import threading
import time
from dataclasses import asdict
from urllib.parse import quote

import pytest
from catalogue_models import WordEncoder

from leanmatch.errors import UsageError
from leanmatch.index import Catalogue, Item, upsert_items
from leanmatch.serve import Limits, ServeOptions
from leanmatch.serve.suggestions import sample_queries


def ids(response):
    assert response.status_code == 200, response.text
    return [[one["id"] for one in result["recommendations"]] for result in response.json()["results"]]


def ask(client, *texts, **more):
    return client.post("/v1/recommend", json={"texts": list(texts), "k": 3, **more})


def test_recommend_is_what_the_catalogue_says(client, folder, encoder):
    expected = Catalogue.open(folder).recommend(encoder, ["number 7", "thing"], 3)
    response = ask(client, "number 7", "thing")
    assert ids(response) == [[one.id for one in rows] for rows in expected]
    first = response.json()["results"][0]["recommendations"][0]
    assert first["rank"] == 1 and first["metadata"] == expected[0][0].metadata
    assert first["score"] == pytest.approx(expected[0][0].score, abs=1e-6)


def test_filters_in_both_forms(client):
    as_json = {"and": [{"column": "category", "eq": "Toys"}, {"column": "price", "lt": 10}]}
    texts = (
        ask(client, "thing", k=40, filter=as_json),
        ask(client, "thing", k=40, filter='category = "Toys" and price < 10'),
    )
    assert ids(texts[0]) == ids(texts[1]) and len(ids(texts[0])[0]) == 6
    assert all(
        one["metadata"]["category"] == "Toys" for one in texts[0].json()["results"][0]["recommendations"]
    )
    assert ids(ask(client, "thing", filter="price > 1000")) == [[]]


def test_exclusions(client):
    (all_,) = ids(ask(client, "number 7", k=40))
    assert len(all_) == 40
    (without,) = ids(ask(client, "number 7", k=40, exclude=[all_[0], "nobody"]))
    assert without == all_[1:]
    assert len(ids(ask(client, "THING  number 7", k=40))[0]) == 39
    assert len(ids(ask(client, "THING  number 7", k=40, exclude_self=False))[0]) == 40


def test_explanations_are_the_effect_of_deleting_a_word(client, encoder):
    text = "number 7 please"
    one = ask(client, text, explain=True).json()["results"][0]["recommendations"][0]
    query, item = one["explanation"]["query"], one["explanation"]["item"]
    assert [text[word["start"] : word["end"]] for word in query] == ["number", "7", "please"]
    assert [one["text"][word["start"] : word["end"]] for word in item] == one["text"].split()
    vectors = encoder([text, "7 please", one["text"]])
    assert query[0]["importance"] == pytest.approx(
        vectors[0] @ vectors[2] - vectors[1] @ vectors[2], abs=1e-5
    )
    assert "explanation" not in ask(client, text).json()["results"][0]["recommendations"][0]


def test_a_query_that_was_explained_as_an_item_is_explained_again(client):
    """Every vector that it needs is kept then: nothing is left to encode."""
    asked = {"k": 40, "explain": True, "exclude_self": False}
    first = ask(client, "thing number 7", **asked)
    assert ids(first)[0][0] == "i7"  # the query is the text of an item
    assert ask(client, "thing number 7", **asked).json() == first.json()
    assert ids(ask(client, "thing number 7", filter="price > 1000", **asked)) == [[]]


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"texts": []}, 422, "texts"),
        ({"texts": ["  "]}, 422, "texts.0"),
        ({"texts": ["a", "\ud800"]}, 422, "texts.1: the text has half of a surrogate pair"),
        ({"texts": ["a"], "k": 10**400}, 400, "at most 1000"),
        ({"texts": ["a"], "exclude": ["x"] * 10_001}, 400, "10,001 identifiers to leave out; at most 10,000"),
        ({"texts": ["a"], "filter": "price < 1e999"}, 400, "finite numbers"),
        ({"texts": ["a"], "filter": "price < " + "9" * 400}, 400, "finite numbers"),
        ({"texts": ["a"], "filter": "price in (1, " + "9" * 5000 + ")"}, 400, "finite numbers"),
        ({"texts": ["a"], "filter": {"column": "price", "lt": 10**400}}, 400, "finite numbers"),
        ({"texts": ["a"], "filter": {"column": "price", "in": [1, 10**400]}}, 400, "finite numbers"),
        ({"texts": ["a"], "filter": {"column": "price", "lt": float("inf")}}, 400, "finite numbers"),
        ({"texts": ["a"], "filter": {"column": "x" * 10**5, "lt": 1}}, 400, "no column 'xxx"),
        ({"texts": ["a"] * 17, "explain": True}, 400, "at most 16 a request are explained"),
        ({"texts": ["a"], "k": 0}, 422, "k"),
        ({"texts": ["a"], "k": 2000}, 400, "at most 1000"),
        ({"texts": ["a"], "colour": 1}, 422, "colour"),
        ({"texts": ["a"] * 200}, 400, "at most 128"),
        ({"texts": ["a" * 9000]}, 400, "9,000 characters"),
        ({"texts": ["a"], "filter": "price <"}, 400, "a value"),
        ({"texts": ["a"], "filter": {"price": 3}}, 400, "no filter"),
        ({"texts": ["a"], "filter": "colour = 1"}, 400, "the columns are: category"),
        ({"texts": ["a"], "filter": 'price = "x"'}, 400, "type number"),
    ],
)
def test_requests_that_are_refused(client, body, status, said):
    response = client.post(
        "/v1/recommend", content=json.dumps(body), headers={"content-type": "application/json"}
    )
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert said in error["message"] and error["type"] == "invalid_request_error"
    assert response.headers["x-request-id"]


def test_too_large_with_and_without_a_length(open_client):
    client = open_client(limits=Limits(body_bytes=1000))
    assert client.post("/v1/recommend", content=b"x" * 2000).status_code == 413

    def pieces():
        for _ in range(20):
            yield b"x" * 100

    assert client.post("/v1/recommend", content=pieces()).status_code == 413
    assert ask(client, "a").status_code == 200


def test_other_errors_have_the_same_form(client):
    for response in (
        client.get("/v1/recommend"),
        client.post("/v1/nothing"),
        client.post("/v1/recommend", content="{"),
    ):
        assert response.json()["error"]["message"] and response.status_code in (404, 405, 422)


def test_a_path_of_the_api_says_which_methods_it_takes(client):
    wrong = client.get("/v1/recommend")
    assert wrong.status_code == 405 and wrong.headers["allow"] == "POST"
    assert wrong.json()["error"]["message"].startswith("/v1/recommend takes POST, not GET")
    assert client.post("/v1/catalogue").headers["allow"] == "GET"
    assert client.get("/v1/nothing").status_code == 404 and client.get("/").status_code == 200


class Slow(WordEncoder):
    """Encodes when it is allowed to."""

    def __init__(self, **options):
        super().__init__(**options)
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, texts):
        assert self.gate.wait(20)
        return super().__call__(texts)


def in_threads(calls):
    """Results of calls made at the same time."""
    found = [None] * len(calls)

    def run(i):
        found[i] = calls[i]()

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(calls))]
    for thread in threads:
        thread.start()
    return threads, found


def until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def under_way(client):
    text = client.get("/metrics").text
    return float(
        next(line for line in text.splitlines() if line.startswith("leanmatch_requests_under_way")).split()[1]
    )


def test_requests_of_several_connections_are_one_batch(open_client):
    slow = Slow(dimension=24)
    client = open_client(slow)
    slow.encoded.clear()
    slow.gate.clear()
    threads, found = in_threads([lambda i=i: ask(client, f"number {i}") for i in range(9)])
    until(lambda: under_way(client) == 9)
    slow.gate.set()
    for thread in threads:
        thread.join()
    assert all(response.status_code == 200 for response in found)
    counts = [one for one in slow.encoded if isinstance(one, int)]
    assert sum(counts) == 9 and len(counts) <= 3 and max(counts) >= 4
    assert [ids(one) for one in found] == [ids(ask(client, f"number {i}")) for i in range(9)]


def test_a_bad_request_does_not_hurt_its_batch(open_client):
    class Picky(Slow):
        def __call__(self, texts):
            if any(text == "bad" for text in texts):
                raise RuntimeError("broken")
            return super().__call__(texts)

    client = open_client(Picky(dimension=24))
    response = ask(client, "bad")
    assert response.status_code == 500 and "RuntimeError" in response.json()["error"]["message"]
    assert "broken" not in response.text
    assert ask(client, "good").status_code == 200


def test_full_means_429_with_retry_after(open_client):
    slow = Slow(dimension=24)
    client = open_client(slow, limits=Limits(waiting=3))
    slow.gate.clear()
    threads, found = in_threads([lambda: ask(client, "a")] * 3)
    until(lambda: under_way(client) == 3)
    refused = ask(client, "a")
    assert refused.status_code == 429 and refused.headers["retry-after"] == "1"
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert client.get("/health").status_code == 200  # only what needs the model is bounded
    slow.gate.set()
    for thread in threads:
        thread.join()
    assert [one.status_code for one in found] == [200] * 3 and ask(client, "a").status_code == 200
    assert "leanmatch_refused_total 1.0" in client.get("/metrics").text


def test_time_out(open_client):
    slow = Slow(dimension=24)
    client = open_client(slow, limits=Limits(timeout_seconds=0.1))
    slow.gate.clear()
    response = ask(client, "a")
    assert response.status_code == 503 and "0.1 seconds" in response.json()["error"]["message"]
    slow.gate.set()
    assert ask(client, "a").status_code == 200


def test_not_ready_is_503(open_client):
    slow = Slow(dimension=24)
    slow.gate.clear()
    client = open_client(slow, wait=False)
    for response in (client.get("/health"), ask(client, "a"), client.get("/v1/models")):
        assert response.status_code == 503
    slow.gate.set()
    until(lambda: client.get("/health").status_code == 200)


def test_a_broken_catalogue_says_so(open_client, folder):
    (folder / "manifest.json").write_text("{}")
    client = open_client(wait=False)
    until(lambda: "failed" in client.get("/health").json()["status"])
    assert "damaged" in client.get("/health").json()["status"] and ask(client, "a").status_code == 503


def test_keys(open_client, writing):
    client = open_client(api_keys=("read-key-1",))
    assert ask(client, "a").status_code == 401
    assert client.get("/health").status_code == client.get("/").status_code == 200
    for headers in ({"authorization": "Bearer read-key-1"}, {"x-api-key": "read-key-1"}, writing):
        assert client.get("/v1/models", headers=headers).status_code == 200
    for headers in ({"authorization": "Bearer read-key-2"}, {"authorization": "Basic read-key-1"}):
        assert client.get("/v1/models", headers=headers).status_code == 401
    body = {"items": [{"id": "n", "text": "n"}]}
    assert client.post("/v1/items", json=body, headers={"x-api-key": "read-key-1"}).status_code == 401
    assert client.post("/v1/items", json=body, headers=writing).status_code == 200


def test_without_a_write_key_items_cannot_be_changed(open_client, folder):
    client = open_client(write_keys=())
    for response in (
        client.post("/v1/items", json={"items": [{"id": "n", "text": "n"}]}),
        client.delete("/v1/items/i1"),
        client.post("/v1/items/delete", json={"ids": ["i1"]}),
    ):
        assert response.status_code == 403 and "--write-key" in response.json()["error"]["message"]
    assert len(Catalogue.open(folder)) == 40


def test_items_are_there_when_the_answer_comes(client, folder, writing):
    body = {"items": [{"id": "new", "text": "purple socks", "metadata": {"price": 3, "category": "Toys"}}]}
    change = client.post("/v1/items", json=body, headers=writing).json()
    assert change["added"] == 1 and change["encoded"] == 1 and change["items"] == 41
    assert ids(ask(client, "purple"))[0][0] == "new" and Catalogue.open(folder).row("new") == 40
    body["items"][0]["metadata"]["price"] = 4
    change = client.post("/v1/items", json=body, headers=writing).json()
    assert change["updated"] == 1 and change["encoded"] == 0
    assert client.delete("/v1/items/new", headers=writing).json()["deleted"] == 1
    assert client.delete("/v1/items/new", headers=writing).status_code == 404
    odd = ["a/b", "a b?c#d", "delete", "né/", "/"]
    added = {"items": [{"id": name, "text": "odd"} for name in odd]}
    assert client.post("/v1/items", json=added, headers=writing).json()["added"] == len(odd)
    for name in odd:
        gone = client.delete(f"/v1/items/{quote(name, safe='')}", headers=writing)
        assert gone.status_code == 200 and gone.json()["deleted"] == 1, (name, gone.text)
    assert client.delete("/v1/items/", headers=writing).status_code == 422
    assert ids(ask(client, "purple"))[0][0] != "new"
    both = client.post("/v1/items/delete", json={"ids": ["i1", "nobody"]}, headers=writing).json()
    assert both["deleted"] == 1 and both["unknown"] == 1
    wrong = {"items": [{"id": "x", "text": "x", "metadata": {"price": "much"}}]}
    assert client.post("/v1/items", json=wrong, headers=writing).status_code == 400
    assert client.post("/v1/items", json={"items": []}, headers=writing).status_code == 422


def test_a_new_generation_is_swapped_in_without_dropping_a_request(open_client, folder, encoder):
    client = open_client()
    stop, statuses, generations = threading.Event(), [], set()

    def load():
        while not stop.is_set():
            response = ask(client, "purple socks", exclude_self=False)
            statuses.append(response.status_code)
            generations.add(response.json()["generation"])

    threads, _ = in_threads([load] * 2)
    for n in range(3):
        upsert_items(folder, [Item(f"new{n}", f"purple socks {n}")], encoder)
        until(lambda n=n: n + 2 in generations)
    until(lambda: len(statuses) > 20)
    stop.set()
    for thread in threads:
        thread.join()
    assert set(statuses) == {200} and generations >= {2, 3, 4}


def logged(caplog):
    """The lines of the log; those of a moment are one record."""
    return [json.loads(line) for record in caplog.records for line in record.getMessage().splitlines()]


def test_request_ids_and_logs_without_texts(open_client, caplog):
    client = open_client()
    with caplog.at_level(logging.INFO, "leanmatch.serve"):
        given = client.post(
            "/v1/recommend", json={"texts": ["secret words"]}, headers={"x-request-id": "abc-1"}
        )
        odd = client.get("/health", headers={"x-request-id": "no good\t"})
        until(lambda: len(logged(caplog)) >= 2)
    assert given.headers["x-request-id"] == "abc-1" and len(odd.headers["x-request-id"]) == 32
    lines = logged(caplog)
    line = next(one for one in lines if one.get("request") == "abc-1")
    assert line["status"] == 200 and line["texts"] == 1 and line["path"] == "/v1/recommend" and line["ms"] > 0
    assert "secret" not in caplog.text
    caplog.clear()
    chatty = open_client(log_texts=True)
    with caplog.at_level(logging.INFO, "leanmatch.serve"):
        ask(chatty, "open words")
        until(lambda: logged(caplog))
    assert "open words" in caplog.text


def test_metrics(client):
    until(lambda: client.get("/v1/status").json()["drift"] is not None)  # made after the first answers
    ask(client, "a b", "c")
    ask(client, "a", filter="price < 3")
    client.get("/v1/../odd")
    text = client.get("/metrics").text
    for line in (
        'leanmatch_requests_total{method="POST",path="/v1/recommend",status="200"} 2.0',
        'leanmatch_texts_total{use="recommend"} 3.0',
        'leanmatch_searches_total{path="exact"} 2.0',
        'leanmatch_searches_total{path="exact-subset"} 1.0',
        "leanmatch_catalogue_items 40.0",
        "leanmatch_batch_texts_count 2.0",
        'leanmatch_drift{measure="new_words"}',
    ):
        assert line in text, line
    assert 'path="other"' in text  # paths of others do not become labels


def test_insight(client):
    assert client.get("/v1/models").json()["data"][0] == {
        "id": "hash-1",
        "object": "model",
        "created": 0,
        "owned_by": "leanmatch",
        "dimension": 24,
    }
    columns = {one["name"]: one for one in client.get("/v1/catalogue").json()["columns"]}
    assert columns["category"]["values"][0] == {"value": "Books", "count": 13}
    assert (
        columns["price"]["min"] == 0.5
        and columns["price"]["max"] == 19.5
        and columns["price"]["present"] == 34
    )
    assert columns["stock"]["values"] == [{"value": True, "count": 20}, {"value": False, "count": 20}]
    assert (
        client.get("/v1/suggest", params={"q": "THING number 3"}).json()["suggestions"][0] == "thing number 3"
    )
    assert client.get("/v1/suggest", params={"q": " "}).json() == {"suggestions": []}


def test_the_page_asks_nobody_else(client):
    page = client.get("/")
    assert page.status_code == 200 and "default-src 'none'" in page.headers["content-security-policy"]
    files = [
        "/style.css",
        *(f"/{name}.js" for name in ("app", "api", "dom", "filters", "results", "status", "suggestions")),
    ]
    for path in ["/", *files]:
        response = client.get(path)
        assert response.status_code == 200, path
        outside = [
            one
            for one in ("http://", "https://", "//cdn")
            if one in response.text.replace("http://www.w3.org/2000/svg", "")
        ]
        assert not outside, (path, outside)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"port": 70000}, "port is 70000"),
        ({"workers": 0}, "workers 0"),
        ({"precision": "int3"}, "precision is 'int3'"),
        ({"api_keys": ("short",)}, "fewer than 8"),
        ({"api_keys": (" long enough",)}, "white space"),
        ({"write_keys": ("long\nenough",)}, "no header can carry"),
        ({"poll_seconds": float("nan")}, "poll_seconds is nan"),
    ],
)
def test_options_that_are_none(options, said):
    with pytest.raises(UsageError, match=said):
        ServeOptions(catalogue="c", **options)
    for name in asdict(Limits()):
        for value in (float("nan"), float("inf"), -1):
            with pytest.raises(UsageError, match=f"{name} is {value}"):
                Limits(**{name: value})
        if name != "window_ms":
            with pytest.raises(UsageError, match=f"{name} is 0"):
                Limits(**{name: 0})


def test_options_reach_workers():
    options = ServeOptions("c", api_keys=("read-key-1",), threads=2, limits=Limits(waiting=7))
    assert ServeOptions.from_text(options.to_text()) == options


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([], []),
        (["x"], ["x"]),
        (["a" * 500], ["a" * 48]),
        (["Sort an array. More about it.", "  Plot\n a tree! "], ["Sort an array", "Plot a tree"]),
        (["word " * 50], [("word " * 9).strip()]),
        ([f"thing number {n}" for n in range(3)], [f"thing number {n}" for n in range(3)]),
    ],
)
def test_queries_to_begin_with(texts, expected):
    class Texts:
        text = staticmethod(texts.__getitem__)

        def __len__(self):
            return len(texts)

    assert sample_queries(Texts()) == expected


def test_queries_to_begin_with_are_of_the_catalogue(client, folder):
    samples = client.get("/v1/catalogue").json()["samples"]
    assert len(samples) == len(set(samples)) == 6 and set(samples) <= set(Catalogue.open(folder).texts)
