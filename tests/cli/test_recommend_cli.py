"""``leanmatch recommend`` from end to end, on a tiny static model."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from leanmatch.cli.recommend import recommend

pytest.importorskip("sentence_transformers", reason="the train extra is not installed")
pytest.importorskip("faiss", reason="faiss-cpu is not installed")

ITEMS = [("a", "usb dock"), ("b", "usb cable"), ("c", "red camera"), ("d", "café 😀 tripod [bold]")]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    import torch
    from sentence_transformers import SentenceTransformer
    from tokenizers import Tokenizer, models, pre_tokenizers

    try:
        from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    except ImportError:  # before 5.4
        from sentence_transformers.models import StaticEmbedding

    from leanmatch.formats import save_matcher

    words = sorted({word for _, text in ITEMS for word in text.split()})
    tokenizer = Tokenizer(
        models.WordLevel({w: i for i, w in enumerate(["[UNK]", *words])}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model") / "m"
    save_matcher(
        SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=32)]), folder, {"base": "x"}
    )
    return folder


@pytest.fixture
def items(tmp_path):
    file = tmp_path / "items.jsonl"
    file.write_text("".join(json.dumps({"id": i, "text": t}) + "\n" for i, t in ITEMS), encoding="utf-8")
    return file


def run(*arguments, stdin=None):
    app = typer.Typer()
    app.command()(recommend)
    return CliRunner().invoke(app, [str(one) for one in arguments], input=stdin)


def test_json(model, items):
    result = run(model, items, "usb", "camera", "-k", 2, "--json", "--device", "cpu")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["items"] == 4 and [one["text"] for one in document["queries"]] == ["usb", "camera"]
    first = document["queries"][0]["recommendations"]
    assert {one["id"] for one in first} == {"a", "b"} and [one["rank"] for one in first] == [1, 2]
    assert document["queries"][1]["recommendations"][0]["id"] == "c"


def test_table(model, items):
    result = run(model, items, "tripod", "-k", 1, "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert "café 😀 tripod [bold]" in result.stdout and "rank" in result.stdout and "0." in result.stdout


def test_self_is_left_out_unless_asked_for(model, items):
    for flag, expected in (([], "b"), (["--include-self"], "a")):
        result = run(model, items, "usb dock", "-k", 1, "--json", "--device", "cpu", *flag)
        assert json.loads(result.stdout)["queries"][0]["recommendations"][0]["id"] == expected


def test_stdin_with_bom_crlf_and_blank_lines(model, items):
    result = run(model, items, "-", "--json", "--device", "cpu", stdin=b"\xef\xbb\xbfusb\r\n\r\ncamera\r\n")
    assert [one["text"] for one in json.loads(result.stdout)["queries"]] == ["usb", "camera"]


@pytest.mark.parametrize(
    ("texts", "stdin", "code", "message"),
    [
        (["-"], b"\n \n", 2, "stdin was empty"),
        (["  "], None, 2, "a TEXT is blank"),
        (["-"], b"\xff\xfe", 1, "not UTF-8"),
    ],
)
def test_texts_that_are_none(model, items, texts, stdin, code, message):
    result = run(model, items, *texts, stdin=stdin)
    assert result.exit_code == code and message in result.stderr and result.stdout == ""


def test_bad_items_are_left_out_when_told(model, items):
    with items.open("a", encoding="utf-8") as handle:
        handle.write(json.dumps({"id": "e", "text": " "}) + "\n")
    stopped = run(model, items, "usb", "--json", "--device", "cpu")
    assert stopped.exit_code == 1 and "--on-error skip" in stopped.stderr
    told = run(model, items, "usb", "--json", "--device", "cpu", "--on-error", "skip")
    assert told.exit_code == 0, told.output
    document = json.loads(told.stdout)
    assert (document["items"], document["skipped"]) == (4, 1)
    assert "items.jsonl:5 column 'text': the text is missing or blank" in told.stderr


def test_columns_can_be_named(model, tmp_path):
    file = tmp_path / "items.csv"
    file.write_text("sku,description,brand\n7,usb,dock\n8,red,camera\n", encoding="utf-8")
    stopped = run(model, file, "usb dock", "--json", "--device", "cpu")
    assert stopped.exit_code == 1 and "--text-column" in stopped.stderr and "sku" in stopped.stderr
    columns = ("--id-column", "sku", "--text-column", "brand", "--text-column", "description")
    named = run(model, file, "dock", "-k", 1, "--json", "--device", "cpu", *columns)
    assert named.exit_code == 0, named.output
    (first,) = json.loads(named.stdout)["queries"][0]["recommendations"]
    assert (first["id"], first["text"]) == ("7", "dock usb")
    wrong = run(model, file, "usb", "--device", "cpu", "--text-column", "brnd")
    assert wrong.exit_code == 1 and "did you mean 'brand'?" in wrong.stderr


def test_usage_errors(model, items):
    assert run(model, items).exit_code == 2
    assert run(model, items, "usb", "-k", 0).exit_code == 2
    result = run(model, items, "usb", "--device", "gpu")
    assert result.exit_code == 2 and "unknown device 'gpu'" in result.stderr


def test_missing_model_and_items(model, items, tmp_path):
    result = run(tmp_path / "nowhere", items, "usb")
    assert result.exit_code == 1 and "no such model folder" in result.stderr
    result = run(model, tmp_path / "nowhere.csv", "usb")
    assert result.exit_code == 1 and "nowhere.csv" in result.stderr


def test_vectors_are_kept_and_reused(model, items, tmp_path):
    file = tmp_path / "v.npz"
    arguments = (model, items, "usb", "--json", "--device", "cpu", "--vectors", file)
    first = run(*arguments)
    assert first.exit_code == 0 and "not there yet" in first.stderr
    stamp = file.stat().st_mtime_ns
    second = run(*arguments)
    assert second.stderr == "" and second.stdout == first.stdout and file.stat().st_mtime_ns == stamp
    with items.open("a") as stream:
        stream.write('{"id": "e", "text": "usb tripod"}\n')
    third = run(*arguments)
    assert "other items; encoding 5 items" in " ".join(third.stderr.split())
    assert '"e"' in third.stdout
    file.write_bytes(file.read_bytes()[:100])
    fourth = run(*arguments)
    assert fourth.exit_code == 0 and "damaged" in fourth.stderr and fourth.stdout == third.stdout


def test_importing_the_command_is_cheap():
    code = (
        "import sys, leanmatch.cli.recommend, leanmatch.index, leanmatch.formats\n"
        "heavy = {'torch', 'transformers', 'sentence_transformers', 'faiss', 'pyarrow'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
