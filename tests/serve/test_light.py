"""Indexing, encoding and serving without what belongs to the extras `data` and `train`."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

BLOCKED = ("pyarrow", "scipy", "ir_measures", "pandas", "torch", "transformers", "sentence_transformers")

BLOCK = f"""
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}} (blocked)", name=name)

sys.meta_path.insert(0, Blocker())
sys.path.insert(0, {str(Path(__file__).parents[1] / "index")!r})
"""

WORK = """
import json
from pathlib import Path
from typer.testing import CliRunner
from catalogue_models import WordEncoder
import leanmatch.index.encoders as encoders
import leanmatch.runtime
from leanmatch.cli.app import app

place = Path(sys.argv[1])
encoders.open_encoder = lambda model, **_: WordEncoder(dimension=24)
import leanmatch.index
leanmatch.index.open_encoder = encoders.open_encoder
import leanmatch.serve.holding as holding
holding.encoder_for = lambda *_, **__: WordEncoder(dimension=24)
encoders.encoder_for = holding.encoder_for

def run(*arguments):
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    assert result.exit_code == 0, (arguments, result.output, result.exception)
    return result.output

rows = [{"id": f"i{n}", "text": f"thing number {n}", "price": n / 2, "shop": "AB"[n % 2]} for n in range(20)]
(place / "items.jsonl").write_text("".join(json.dumps(row) + "\\n" for row in rows))
(place / "more.csv").write_text("id,text,price,shop\\nnew,purple socks,3.5,C\\n")
(place / "gone.txt").write_text("i0\\n")
(place / "model").mkdir()
(place / "model" / "modules.json").write_text("[]")
run("index", "build", place / "model", place / "items.jsonl", "-o", place / "c", "--json")
run("index", "add", place / "c", place / "more.csv", "--json")
run("index", "delete", place / "c", place / "gone.txt", "--json")
run("index", "check", place / "c", "--json")
(place / "lines.txt").write_text("thing number 3\\npurple socks\\n")
run("index", "reference", place / "c", place / "lines.txt", "--json")

from fastapi.testclient import TestClient
from leanmatch.serve import ServeOptions, create_app
import time
with TestClient(create_app(ServeOptions(str(place / "c")))) as client:
    while client.get("/health").status_code != 200:
        time.sleep(0.01)
    asked = {"texts": ["purple"], "k": 2, "filter": 'shop = "C"', "explain": True}
    found = client.post("/v1/recommend", json=asked)
    assert found.json()["results"][0]["recommendations"][0]["id"] == "new", found.text
    assert client.post("/v1/embeddings", json={"input": "x", "model": "hash-1"}).status_code == 200
    assert client.get("/v1/suggest", params={"q": "purple"}).json()["suggestions"] == ["purple socks"]
    assert client.get("/v1/status").status_code == client.get("/metrics").status_code == 200

loaded = {name.partition(".")[0] for name in sys.modules} & set(BLOCKED)
assert not loaded, loaded
print("done")
"""


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], check=False, capture_output=True, text=True, timeout=120
    )


def test_the_block_bites():
    for name in BLOCKED:
        result = run(BLOCK + f"import {name}")
        assert result.returncode == 1 and "(blocked)" in result.stderr


def test_index_and_serve_need_none_of_them(tmp_path):
    for name in ("fastapi", "httpx"):
        pytest.importorskip(name, reason=f"{name} is not installed (extra serve)")
    result = run(BLOCK + f"BLOCKED = {BLOCKED!r}\n" + WORK, str(tmp_path))
    assert result.returncode == 0 and result.stdout.endswith("done\n"), result.stderr[-3000:]


@pytest.mark.parametrize(
    ("arguments", "needs"),
    [
        (["data", "check", "pairs.csv"], "scipy"),
        (["index", "build", "model", "items.parquet", "-o", "catalogue"], "pyarrow"),
        (["index", "reference", "c", "pairs.csv"], "pyarrow"),
    ],
)
def test_what_needs_them_says_so(tmp_path, arguments, needs):
    (tmp_path / "pairs.csv").write_text("anchor,positive\na,b\n")
    (tmp_path / "items.parquet").write_bytes(b"PAR1")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "modules.json").write_text("[]")
    code = BLOCK + textwrap.dedent(f"""
        import os
        os.chdir({str(tmp_path)!r})
        from catalogue_models import WordEncoder, items_of_shop
        import leanmatch.index.encoders as encoders
        from leanmatch.index import create_catalogue
        encoder = WordEncoder(dimension=24)
        create_catalogue("c", items_of_shop(5), encoder)
        encoders.encoder_for = lambda *_, **__: encoder
        from leanmatch.cli.app import app
        sys.argv = ["leanmatch", *{arguments!r}]
        app()
    """)
    result = run(code)
    assert result.returncode == 1, (result.stdout, result.stderr)
    assert needs in result.stderr and 'pip install "leanmatch[data]"' in result.stderr, result.stderr
    assert "Traceback" not in result.stderr
