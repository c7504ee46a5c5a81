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

import httpx
import numpy as np
import pytest

from leanmatch.serve import ServeOptions, create_app

HERE = Path(__file__).parent


@pytest.fixture
def server(folder, encoder):
    """The address of a server in a thread."""
    uvicorn = pytest.importorskip("uvicorn", reason="uvicorn is not installed (extra serve)")
    listener = socket.create_server(("127.0.0.1", 0))
    app = create_app(ServeOptions(str(folder), write_keys=("write-key-1",)), encoder=encoder)
    running = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    ready(url)
    yield url
    running.should_exit = True
    thread.join(20)
    listener.close()


def ready(url):
    deadline = time.monotonic() + 60
    while True:
        try:
            if httpx.get(f"{url}/health").status_code == 200:
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.02)


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
    with pytest.raises(openai.BadRequestError, match="no tokenizer"):
        client.embeddings.create(model=name, input=[1, 2])


def test_schemathesis_finds_nothing(server):
    schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed (extra test)")
    from hypothesis import HealthCheck, Phase, settings

    schema = schemathesis.openapi.from_url(f"{server}/openapi.json")
    tried = []

    @schema.parametrize()
    @settings(
        max_examples=12,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def check(case):
        tried.append(case.operation.label)
        headers = {"authorization": "Bearer write-key-1"}
        # a filter, a model's name and token ids are valid JSON long before they mean something here
        case.call_and_validate(
            headers=headers, excluded_checks=[schemathesis.checks.CHECKS.get_one("positive_data_acceptance")]
        )

    for result in schema.get_all_operations():
        operation = result.ok()
        run_operation(check, operation)
    assert len(set(tried)) >= 9


def run_operation(check, operation):
    """Run schemathesis' own strategy for one operation."""
    from hypothesis import HealthCheck, Phase, given, settings

    inner = check.hypothesis.inner_test if hasattr(check, "hypothesis") else check

    @given(case=operation.as_strategy())
    @settings(
        max_examples=12,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def run(case):
        inner(case=case)

    run()


SERVE = """
import sys
sys.path.insert(0, {helpers!r})
from catalogue_models import WordEncoder
import leanmatch.serve.service as service
import time

class Slow(WordEncoder):
    def __call__(self, texts):
        if "slow" in texts:
            time.sleep(1.0)
        return super().__call__(texts)
    encode = __call__

service.encoder_for = lambda manifest, model: Slow(dimension=24)
from leanmatch.cli.app import app
app({arguments!r}, prog_name="leanmatch")
"""


@pytest.fixture
def process(folder):
    """A function that starts ``leanmatch serve`` in a process of its own and gives it and its address."""
    started = []

    def start(*more):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        arguments = ["serve", str(folder), "--port", str(port), *more]
        code = SERVE.format(helpers=str(HERE.parent / "index"), arguments=arguments)
        one = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
        started.append(one)
        ready(f"http://127.0.0.1:{port}")
        return one, f"http://127.0.0.1:{port}"

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
