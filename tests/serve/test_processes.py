"""Whole processes: a worker that is killed under load, and two servers and the command that write at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from servers import served, workers_of

from leanmatch.index import Catalogue, check_files, create_catalogue, open_encoder, read_manifest
from leanmatch.index.changes import Item

if sys.platform != "linux":
    pytest.skip("needs /proc and SIGKILL", allow_module_level=True)
pytest.importorskip("uvicorn", reason="uvicorn is not installed (extra serve)")
KEY = "write-key-1"
WRITING = {"Authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A static encoder of a few words, in files."""
    torch = pytest.importorskip("torch", reason="torch is not installed (extra train)")
    transformers = pytest.importorskip("sentence_transformers", reason="not installed (extra train)")
    from sentence_transformers.models import StaticEmbedding
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ["[UNK]", "thing", *map(str, range(200))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    torch.manual_seed(0)
    static = StaticEmbedding(tokenizer, embedding_dim=16)
    folder = tmp_path_factory.mktemp("model") / "m"
    transformers.SentenceTransformer(modules=[static]).save(str(folder))
    return folder


@pytest.fixture
def catalogue(tmp_path, model):
    create_catalogue(
        tmp_path / "c", [Item(f"i{n}", f"thing {n}") for n in range(20)], open_encoder(str(model))
    )
    return tmp_path / "c"


def test_two_workers_share_a_port_and_their_metrics(catalogue):
    with served(catalogue, "--workers", "2") as (_, url):
        for _ in range(10):
            answer = httpx.post(f"{url}/v1/recommend", json={"texts": ["3 thing"], "k": 1})
            assert answer.json()["results"][0]["recommendations"][0]["id"] == "i3"
        wanted = 'leanmatch_requests_total{method="POST",path="/v1/recommend",status="200"} 10.0'
        deadline = time.monotonic() + 20
        while wanted not in (text := httpx.get(f"{url}/metrics").text):  # counted after it was answered
            assert time.monotonic() < deadline, text
            time.sleep(0.05)


def test_a_worker_that_is_killed_is_replaced(catalogue):
    with served(catalogue, "--workers", "2") as (process, url):
        deadline = time.monotonic() + 60
        before = workers_of(process)
        assert len(before) == 2
        statuses, broken = [], []
        stop = threading.Event()

        def load():
            while not stop.is_set():
                try:
                    answer = httpx.post(f"{url}/v1/recommend", json={"texts": ["thing 3"], "k": 3})
                    statuses.append(answer.status_code)
                except httpx.TransportError as error:
                    broken.append(error)

        threads = [threading.Thread(target=load) for _ in range(2)]
        for thread in threads:
            thread.start()
        os.kill(before[0], signal.SIGKILL)
        while len(set(workers_of(process)) - {before[0]}) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.5)
        stop.set()
        for thread in threads:
            thread.join()
        assert before[0] not in workers_of(process) and before[1] in workers_of(process)
        # the new one takes no connection before it has loaded
        assert statuses.count(200) >= 3 and set(statuses) == {200}
        assert len(broken) <= 4  # what the killed one had in hand


def test_two_servers_and_the_command_write_at_once(catalogue, tmp_path):
    more = ("--write-key", KEY)
    with served(catalogue, *more) as (_, first), served(catalogue, *more) as (_, second):

        def add(n):
            body = {"items": [{"id": f"n{n}", "text": f"thing {n}"}]}
            answer = httpx.post(f"{(first, second)[n % 2]}/v1/items", json=body, headers=WRITING, timeout=60)
            return f"n{n}" if answer.status_code == 200 else answer.text

        items = tmp_path / "more.jsonl"
        items.write_text('{"id": "command", "text": "thing 99"}\n')
        with ThreadPoolExecutor(4) as pool:
            added = pool.map(add, range(30))
            command = [sys.executable, "-m", "leanmatch", "index", "add", str(catalogue), str(items)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            added = list(added)
        assert added == [f"n{n}" for n in range(30)]  # each was acknowledged
        if done.returncode:  # it does not wait: it says who is in the way
            assert "another process is writing" in done.stderr
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found = Catalogue.open(catalogue)
        check_files(catalogue, read_manifest(catalogue))
        assert set(found.ids) == {f"i{n}" for n in range(20)} | set(added) | {"command"}
        deadline = time.monotonic() + 20
        for url in (first, second):  # both see what the other one wrote
            while httpx.get(f"{url}/health").json()["items"] != len(found):
                assert time.monotonic() < deadline
                time.sleep(0.05)
