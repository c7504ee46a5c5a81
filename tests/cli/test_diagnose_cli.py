"""``leanmatch diagnose`` with made-up models: the page, JSON, defaults from provenance, exit codes."""

from __future__ import annotations

import importlib
import json
import sys
import zlib

import numpy as np
import pytest
from typer.testing import CliRunner

from leanmatch.cli.app import app
from leanmatch.cli.evaluate import plan

command = importlib.import_module("leanmatch.cli.diagnose")
pytest.importorskip("jinja2", reason="the report extra (jinja2) is not installed")


def encode(texts, skip=()):
    vectors = np.zeros((len(texts), 24), np.float32)
    for row, text in enumerate(texts):
        for word in text.split():
            if word not in skip:
                vectors[row] += np.random.default_rng(zlib.crc32(word.encode())).standard_normal(24)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


def forgetful(texts):
    """A model to which two words say nothing."""
    return encode(texts, skip=("w1", "w2"))


def lines(n=90):
    draw = np.random.default_rng(0)
    for i in range(n):
        words = [f"w{w}" for w in draw.integers(0, 12, 5)]
        yield {
            "anchor": " ".join([*words[:4], f"a{i}"]),
            "positive": " ".join([f"b{i}", *words[1:]]),
            "site": ("toys", "books")[i % 2],
        }


@pytest.fixture
def run(monkeypatch, tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, lines())), encoding="utf-8")
    models = {"good": forgetful, "poor": encode, "models/poor": encode}

    def call(*arguments, provenance=None, data=path):
        monkeypatch.setattr(command, "_load", lambda name, *_: models[name])
        monkeypatch.setattr(plan, "check_models", lambda *names: None)  # they are in memory only
        monkeypatch.setattr(plan, "provenance_of", lambda name: provenance)
        return CliRunner().invoke(app, ["diagnose", "good", str(data), *arguments], env={"COLUMNS": "120"})

    return call


def test_page_and_summary(run, tmp_path):
    page = tmp_path / "out" / "report.html"
    result = run("--against", "poor", "-o", str(page), "--hold-out", "site=toys")
    assert result.exit_code == 0, result.output
    assert "<h1>good <span>against</span> poor</h1>" in page.read_text(encoding="utf-8")
    assert f"written: {page}" in result.stderr.replace("\n", "")
    assert "words whose importance moved" in result.stdout
    table = result.stdout.split("moved most surely")[1]
    assert table.index("w1") < table.index("share of the score")
    assert "out of distribution" in result.stdout


def test_what_to_do_now_and_how_long_it_takes(run, tmp_path):
    page = tmp_path / "report.html"
    result = run("--against", "poor", "-o", str(page), "--hold-out", "site=toys")
    assert result.exit_code == 0, result.output
    assert "encoding 180 texts with each of 2 models takes about a second" in result.stderr
    assert "looking at the words of 90 sampled pairs and" in result.stderr
    assert "What to do now:" in result.stdout
    text = page.read_text(encoding="utf-8")
    first = text[text.index('<ul class="verdicts">') : text.index("<nav")]
    assert "A match now hangs" in first and "w1" in first and "points of" not in first
    assert "<h2>What to do now</h2>" in text and text.index("What to do now</h2>") < text.index(
        "slice by slice"
    )
    assert not (tmp_path / ".report.html.diagnosing").exists()


def test_what_a_killed_run_left_is_used(run, tmp_path, monkeypatch):
    from leanmatch.report import kept

    page = tmp_path / "report.html"
    ask = ("--against", "poor", "-o", str(page), "--budget", "9000", "--json")
    whole = run(*ask)
    monkeypatch.setattr(kept.KeptVectors, "remove", lambda self: None)  # as a kill before the end
    assert run(*ask).exit_code == 0
    assert list((tmp_path / ".report.html.diagnosing").glob("*.npy"))
    monkeypatch.undo()
    again = run(*ask)
    assert "continuing the run in" in again.stderr and again.stdout == whole.stdout


def test_json_goes_to_stdout_alone_and_carries_the_same_numbers(run, tmp_path):
    page = tmp_path / "report.html"
    result = run("--against", "poor", "--json", "-o", str(page), "--max-pairs", "60", "--shown", "9")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["name"], found["against"]) == ("good", "poor")
    assert found["sampling"][1].startswith(
        "words: a sample of 60 of 90 matching pairs, 30 to 30 from each of 2"
    )
    assert len(found["pairs"]) == 9
    assert {word["word"] for word in found["words"][:2]} == {"w1", "w2"}
    text = page.read_text(encoding="utf-8")
    embedded = text.split('id="data">')[1].split("</script>")[0]
    assert json.loads(embedded)["pairs"] == found["pairs"]


def test_base_comes_from_the_provenance(run):
    result = run("--json", provenance={"base": "models/poor", "options": {"hold_out": ["site=toys"]}})
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["against"] == "base"
    assert "out of distribution" in found["parts"]
    assert "as in the model's training: site=toys" in result.stderr


def test_the_rows_of_the_training_split_are_named(run, tmp_path):
    from leanmatch.data import SplitOptions, read_pairs, split_pairs

    table = read_pairs(tmp_path / "pairs.jsonl")
    split = split_pairs(table, SplitOptions(hold_out=("site=toys",), near_duplicates=False))
    result = run("--json", "--against", "poor", provenance={"split": split.manifest()})
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["sampling"][0].endswith(
        "of the split that the model was trained with "
        + (f"({len(split.test_in)} in, {len(split.test_out)} out of distribution), of 90 rows")
    )
    assert found["evaluation"]["split"] in found["sampling"][0]
    assert "out of distribution, as in the model's training: site=toys" in found["evaluation"]["notes"]


def test_the_same_call_gives_the_same_answer(run):
    arguments = ("--against", "poor", "--json", "--max-rows", "40", "--max-pairs", "20")
    first, second = run(*arguments), run(*arguments)
    assert first.stdout == second.stdout
    assert "a random sample of 40 of all 90 rows" in json.loads(first.stdout)["sampling"][0]
    assert run(*arguments, "--seed", "1").stdout != first.stdout


def test_bad_rows(run, tmp_path):
    path = tmp_path / "bad.jsonl"
    rows = [
        *lines(),
        {"anchor": None, "positive": "x", "site": "toys"},
        {"anchor": float("nan"), "positive": "y"},
    ]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    stopped = run("--against", "poor", data=path)
    assert stopped.exit_code == 1
    assert "bad.jsonl:91" in stopped.stderr
    skipped = run("--against", "poor", "--json", "--on-error", "skip", data=path)
    assert skipped.exit_code == 0, skipped.output
    assert "2 bad rows skipped" in skipped.stderr and "bad.jsonl:92 column 'anchor': " in skipped.stderr
    assert json.loads(skipped.stdout)["skipped"] == 2


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "good does not say what its base is"),
        (["--against", "poor", "--intervention", "swap"], 2, "one of mask, delete, replace"),
        (["--against", "poor", "--intervention", "mask"], 2, "needs a mask token"),
        (["--against", "poor", "-o", "."], 2, "is a folder"),
        (["--against", "poor", "--max-pairs", "0"], 2, "max-pairs"),
        (["--against", "poor", "--hold-out", "shop=1"], 1, "there is no column 'shop'"),
        (["--against", "poor", "--column", "anchor=query"], 1, "query"),
        (["--against", "poor", "-o", "/dev/null/report.html"], 1, "/dev/null"),
    ],
)
def test_errors(run, arguments, code, message):
    result = run(*arguments)
    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert not result.stdout


def test_without_jinja_nothing_is_done(run, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    result = run("--against", "poor", "-o", str(tmp_path / "report.html"))
    assert result.exit_code == 1
    assert 'pip install "leanmatch[report]"' in result.stderr
    assert "importance" not in result.stderr


def test_no_shared_columns(run, tmp_path):
    path = tmp_path / "other.csv"
    path.write_text("left,right\na,b\n", encoding="utf-8")
    result = run("--against", "poor", data=path)
    assert result.exit_code == 1
    assert "anchor" in result.stderr
