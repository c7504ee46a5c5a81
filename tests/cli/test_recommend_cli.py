"""``leanmatch recommend`` from end to end, on a tiny static model."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from rerankers import pair_tokenizer, saved_reranker
from typer.testing import CliRunner

from leanmatch.cli.recommend import recommend
from leanmatch.data import ItemTable
from leanmatch.index import Item, WriteOptions, create_catalogue, items_of, open_encoder

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


@pytest.fixture(scope="module")
def catalogue(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("catalogue") / "c"
    items = items_of(ItemTable.from_columns([key for key, _ in ITEMS], [text for _, text in ITEMS]))
    create_catalogue(folder, items, open_encoder(model))
    return folder


def run(*arguments, stdin=None):
    app = typer.Typer()
    app.command()(recommend)
    return CliRunner().invoke(app, [str(one) for one in arguments], input=stdin)


def test_json(catalogue):
    result = run(catalogue, "usb", "camera", "-k", 2, "--json", "--device", "cpu")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["items"] == 4 and [one["text"] for one in document["queries"]] == ["usb", "camera"]
    first = document["queries"][0]["recommendations"]
    assert {one["id"] for one in first} == {"a", "b"} and [one["rank"] for one in first] == [1, 2]
    assert document["queries"][1]["recommendations"][0]["id"] == "c"


def test_table(catalogue):
    result = run(catalogue, "tripod", "-k", 1, "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert "café 😀 tripod [bold]" in result.stdout and "rank" in result.stdout and "0." in result.stdout


def test_self_is_left_out_unless_asked_for(catalogue):
    for flag, expected in (([], "b"), (["--include-self"], "a")):
        result = run(catalogue, "usb dock", "-k", 1, "--json", "--device", "cpu", *flag)
        assert json.loads(result.stdout)["queries"][0]["recommendations"][0]["id"] == expected


def test_stdin_with_bom_crlf_and_blank_lines(catalogue):
    result = run(catalogue, "-", "--json", "--device", "cpu", stdin=b"\xef\xbb\xbfusb\r\n\r\ncamera\r\n")
    assert [one["text"] for one in json.loads(result.stdout)["queries"]] == ["usb", "camera"]


@pytest.mark.parametrize(
    ("texts", "stdin", "code", "message"),
    [
        (["-"], b"\n \n", 2, "stdin was empty"),
        (["  "], None, 2, "a TEXT is blank"),
        (["-"], b"\xff\xfe", 1, "not UTF-8"),
    ],
)
def test_texts_that_are_none(catalogue, texts, stdin, code, message):
    result = run(catalogue, *texts, stdin=stdin)
    assert result.exit_code == code and message in result.stderr and result.stdout == ""


def test_a_model_that_has_moved(catalogue, model, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(model, moved)
    copy = tmp_path / "c"
    shutil.copytree(catalogue, copy)
    manifest = copy / "manifest.json"
    manifest.write_text(manifest.read_text().replace(str(Path(model).resolve()), str(tmp_path / "gone")))
    result = run(copy, "usb", "--json")
    assert result.exit_code == 1 and "name its folder with --model" in result.stderr
    result = run(copy, "usb", "-k", 1, "--json", "--model", moved)
    assert result.exit_code == 0, result.stderr


def test_usage_errors(catalogue):
    assert run(catalogue).exit_code == 2
    assert run(catalogue, "usb", "-k", 0).exit_code == 2
    result = run(catalogue, "usb", "--device", "gpu")
    assert result.exit_code == 2 and "unknown device 'gpu'" in result.stderr


def test_a_model_folder_is_refused_with_the_commands_to_type(model, tmp_path):
    result = run(model, "usb")
    assert result.exit_code == 2 and "no catalogue" in result.stderr
    assert "leanmatch index build MODEL ITEMS -o CATALOGUE" in " ".join(result.stderr.split())
    assert run(tmp_path / "nowhere", "usb").exit_code == 2


def test_hybrid(catalogue, model, tmp_path):
    items = [Item("a", "usb dock XJ-200"), Item("b", "usb dock XJ-300"), Item("c", "red camera")]
    create_catalogue(tmp_path / "c", items, open_encoder(model), WriteOptions(hybrid=True))
    for spelling in ("xj200", "XJ 200", "dock xj-200"):
        result = run(tmp_path / "c", spelling, "-k", 1, "--json")
        assert result.exit_code == 0, result.stderr
        document = json.loads(result.stdout)
        first = document["queries"][0]["recommendations"][0]
        assert document["hybrid"] and first["id"] == "a" and "200" in first["matched"]
    table = run(tmp_path / "c", "xj200", "-k", 1, "--lexical-weight", 1)
    assert "matched terms" in table.stdout and "xj200" in table.stdout
    dense = json.loads(run(tmp_path / "c", "usb", "--no-hybrid", "--json").stdout)
    assert not dense["hybrid"] and "matched" not in dense["queries"][0]["recommendations"][0]
    result = run(catalogue, "usb", "--hybrid")
    assert result.exit_code == 2 and "leanmatch index rebuild CATALOGUE --hybrid" in result.stderr
    assert run(tmp_path / "c", "usb", "--no-hybrid", "--lexical-weight", 0.3).exit_code == 2


def test_rerank(catalogue, tmp_path):
    words = sorted({word for _, text in ITEMS for word in text.split()})
    folder, encoder = saved_reranker(tmp_path, pair_tokenizer(words))
    texts = dict(ITEMS)
    expected = {key: float(encoder.predict([("usb", text)])[0]) for key, text in ITEMS}
    alone = ("--rerank", folder, "--rerank-top", 4, "--rerank-weight", 1, "--json")
    result = run(catalogue, "usb", "-k", 2, *alone)
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    best = document["queries"][0]["recommendations"]
    assert document["reranker"] == str(folder)
    assert [item["id"] for item in best] == sorted(texts, key=lambda key: -expected[key])[:2]
    assert best[0]["score"] == pytest.approx(expected[best[0]["id"]], abs=0.05)  # int8
    assert -1 <= best[0]["cosine"] <= 1
    weightless = run(catalogue, "usb", "--rerank", folder, "--rerank-weight", 0, "--json")
    unchanged = run(catalogue, "usb", "--json")
    orders = [
        [row["id"] for row in json.loads(one.stdout)["queries"][0]["recommendations"]]
        for one in (weightless, unchanged)
    ]
    assert orders[0] == orders[1]
    assert run(catalogue, "usb", "--rerank", folder, "--rerank-weight", 1.5).exit_code == 2
    first = run(catalogue, "usb", "-k", 1, "--rerank", folder, "--rerank-top", 1, "--json")
    plain = run(catalogue, "usb", "-k", 1, "--json")
    ids = [json.loads(one.stdout)["queries"][0]["recommendations"][0]["id"] for one in (first, plain)]
    assert ids[0] == ids[1]  # one item has one order
    result = run(catalogue, "usb", "--rerank", tmp_path / "nowhere")
    assert result.exit_code == 1 and "nowhere" in result.stderr


def test_importing_the_command_is_cheap():
    code = (
        "import sys, leanmatch.cli.recommend, leanmatch.index, leanmatch.formats\n"
        "heavy = {'torch', 'transformers', 'sentence_transformers', 'faiss', 'pyarrow'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_filter_that_no_item_passes_is_told(model, tmp_path):
    table = ItemTable.from_columns(["a", "b"], ["usb dock", "red camera"], {"shop": ["A", "B"]})
    create_catalogue(tmp_path / "c", items_of(table), open_encoder(model))
    fixed = ("--device", "cpu", "--where")
    none = run(tmp_path / "c", "usb", *fixed, 'shop = "C"')
    assert none.exit_code == 0, none.output
    assert none.stderr == 'none of the 2 items passes the filter: shop = "C"\n'
    assert run(tmp_path / "c", "usb", *fixed, 'shop = "A"').stderr == ""
