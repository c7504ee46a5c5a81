"""Others' tools against a real server on loopback: OpenAI's client, schemathesis, workers, signals."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import quote

import httpx
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from servers import address_of, ready, serving

from leanmatch.serve import ServeOptions, create_app

HERE = Path(__file__).parent


@pytest.fixture
def server(folder, encoder):
    """The address of a server of the product."""
    app = create_app(ServeOptions(str(folder), write_keys=("write-key-1",)), encoder=encoder)
    with serving(app) as url:
        ready(url)
        yield url


def test_openai_gets_the_vectors_of_the_encoder(server, encoder):
    openai = pytest.importorskip("openai", reason="openai is not installed (extra test)")
    client = openai.OpenAI(base_url=f"{server}/v1", api_key="none-needed", max_retries=0)
    name = client.models.list().data[0].id
    expected = encoder(["one thing", "two"]).astype(np.float32)
    packed = client.embeddings.create(model=name, input=["one thing", "two"])  # it asks for base64
    plain = client.embeddings.create(model=name, input=["one thing", "two"], encoding_format="float")
    for found in (packed, plain):
        assert np.array_equal(np.array([one.embedding for one in found.data], np.float32), expected)
    assert np.array_equal(
        np.array(client.embeddings.create(model=name, input="two").data[0].embedding, np.float32), expected[1]
    )
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        client.embeddings.create(model="another", input="x")
    with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False"):
        client.embeddings.create(model=name, input=[1, 2])


def test_identifiers_with_slashes_and_percent_signs(server):
    headers = {"authorization": "Bearer write-key-1"}
    odd = ["a/b", "a%2Fb", "50%", "../x", "a b?c#d", "né"]
    items = {"items": [{"id": name, "text": "odd"} for name in odd]}
    assert httpx.post(f"{server}/v1/items", json=items, headers=headers).json()["added"] == len(odd)
    for name in odd:
        path = f"{server}/v1/items/{quote(name, safe='')}"
        assert httpx.delete(path, headers=headers).status_code == 200, name
        assert httpx.delete(path, headers=headers).status_code == 404


def schemathesis_run(url, headers):
    """The operations that were tried, each with some valid and some invalid requests."""
    schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed (extra test)")
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis.errors import Unsatisfiable
    from schemathesis.specs.openapi.checks import positive_data_acceptance

    # a filter, a model's name and token ids are valid JSON long before they mean something to a server
    excluded = [positive_data_acceptance]
    tried = set()
    for found in schemathesis.openapi.from_url(f"{url}/openapi.json").get_all_operations():
        operation = found.ok()
        for mode in (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE):

            @given(case=operation.as_strategy(generation_mode=mode))
            @settings(
                max_examples=6,
                deadline=None,
                derandomize=True,
                database=None,
                phases=[Phase.explicit, Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            def check(case):
                tried.add(case.operation.label)
                case.call_and_validate(headers=headers, excluded_checks=excluded)

            try:
                check()
            except Unsatisfiable as error:  # nothing can be wrong with no input
                assert mode is schemathesis.GenerationMode.NEGATIVE, error
    return tried


def test_schemathesis_finds_nothing(server):
    assert len(schemathesis_run(server, {"authorization": "Bearer write-key-1"})) >= 9


def test_schemathesis_finds_a_planted_fault():
    from fastapi import FastAPI

    app = FastAPI()

    @app.get("/broken")
    def broken(n: int):
        return 1 / 0 if n > -1000 else n

    with serving(app) as url, pytest.raises(BaseException, match=r"Server error|500"):
        schemathesis_run(url, {})


SERVE = """
import sys
sys.path.insert(0, {helpers!r})
from catalogue_models import WordEncoder
import leanmatch.serve.holding as holding
import time

class Slow(WordEncoder):
    def __call__(self, texts):
        if "slow" in texts:
            time.sleep(1.0)
        return super().__call__(texts)
    encode = __call__

holding.encoder_for = lambda manifest, model, **_: Slow(dimension=24)
from leanmatch.cli.app import app
app({arguments!r}, prog_name="leanmatch")
"""


@pytest.fixture
def process(folder):
    """A function that starts ``leanmatch serve`` in a process of its own and gives it and its address."""
    started = []

    def start(*more):
        arguments = ["serve", str(folder), "--port", "0", *more]
        code = SERVE.format(helpers=str(HERE.parent / "index"), arguments=arguments)
        one = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
        started.append(one)
        url = address_of(one)
        ready(url)
        return one, url

    yield start
    for one in started:
        if one.poll() is None:
            one.kill()
        one.wait(20)
        one.stderr.close()


def test_sigterm_finishes_what_was_accepted(process):
    one, url = process()
    found = []
    thread = threading.Thread(
        target=lambda: found.append(httpx.post(f"{url}/v1/recommend", json={"texts": ["slow"]}, timeout=20))
    )
    thread.start()
    time.sleep(0.4)
    one.send_signal(signal.SIGTERM)
    thread.join()
    assert found[0].status_code == 200 and found[0].json()["results"][0]["recommendations"]
    assert one.wait(20) in (0, -signal.SIGTERM)
    said = one.stderr.read()
    assert "only this machine can reach it" in said and "items cannot be changed over HTTP" in said
    lines = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    assert any(line.get("path") == "/v1/recommend" and line["status"] == 200 for line in lines)
    assert "slow" not in said


@pytest.mark.parametrize("more", [(), ("--workers", "2")], ids=["one", "workers"])
def test_a_server_that_cannot_load_ends_with_1(folder, more):  # its model is a class of these tests
    done = subprocess.run(
        [sys.executable, "-m", "leanmatch", "serve", str(folder), "--port", "0", *more],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "hash-1" in done.stderr and "error: " in done.stderr, done.stderr


def test_keys_come_from_the_environment_whole(folder, monkeypatch):
    from typer.testing import CliRunner

    from leanmatch.cli.app import app
    from leanmatch.serve import running

    given = []
    monkeypatch.setattr(running, "run_server", lambda options, say: given.append(options))
    monkeypatch.setenv("LEANMATCH_API_KEY", "a key with spaces")
    monkeypatch.setenv("LEANMATCH_WRITE_KEY", "write key one\nwrite key two\n")
    assert CliRunner().invoke(app, ["serve", str(folder)]).exit_code == 0
    assert given[0].api_keys == ("a key with spaces",)
    assert given[0].write_keys == ("write key one", "write key two")
    assert CliRunner().invoke(app, ["serve", str(folder), "--api-key", "one two three"]).exit_code == 0
    assert given[1].api_keys == ("one two three",)
    monkeypatch.setenv("LEANMATCH_API_KEY", "")
    monkeypatch.setenv("LEANMATCH_WRITE_KEY", "")
    assert CliRunner().invoke(app, ["serve", str(folder), "--allow-token-ids"]).exit_code == 0
    assert given[2].api_keys == given[2].write_keys == () and given[2].allow_token_ids


def test_a_key_with_spaces_opens(folder, encoder):
    options = ServeOptions(str(folder), api_keys=("a key with spaces",))
    with serving(create_app(options, encoder=encoder)) as url:
        ready(url)
        for headers in ({"authorization": "Bearer a key with spaces"}, {"x-api-key": "a key with spaces"}):
            assert httpx.get(f"{url}/v1/models", headers=headers).status_code == 200
        for wrong in ("a", "a key", "spaces"):
            refused = httpx.get(f"{url}/v1/models", headers={"authorization": f"Bearer {wrong}"})
            assert refused.status_code == 401


def test_an_address_in_use_is_told(folder):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-m", "leanmatch", "serve", str(folder), "--port", port],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ},
        )
    assert done.returncode == 2 and f"cannot listen on 127.0.0.1:{port}" in done.stderr
