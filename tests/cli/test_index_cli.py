"""``leanmatch index`` and ``recommend CATALOGUE`` from end to end, on a tiny static model."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from leanmatch.cli.app import app

pytest.importorskip("sentence_transformers", reason="the train extra is not installed")
pytest.importorskip("faiss", reason="faiss-cpu is not installed")

ITEMS = [
    {"id": "a", "text": "usb dock", "price": 90, "shop": "A"},
    {"id": "b", "text": "usb cable", "price": 9.5, "shop": "B"},
    {"id": "c", "text": "red camera", "price": 300, "shop": "A"},
    {"id": "d", "text": "camera tripod", "shop": "B"},
]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    import torch
    from sentence_transformers import SentenceTransformer
    from tokenizers import Tokenizer, models, pre_tokenizers

    try:
        from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    except ImportError:  # before 5.4
        from sentence_transformers.models import StaticEmbedding

    from leanmatch.formats import save_matcher

    words = sorted({word for item in ITEMS for word in item["text"].split()})
    tokenizer = Tokenizer(
        models.WordLevel({w: i for i, w in enumerate(["[UNK]", *words])}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        made.append(tmp_path_factory.mktemp("model") / f"m{seed}")
        save_matcher(
            SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=32)]),
            made[-1],
            {"base": "x"},
        )
    return made


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def run(*arguments):
    return CliRunner().invoke(app, [str(one) for one in arguments])


def index(*arguments):
    result = run("index", *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture
def catalogue(models, tmp_path):
    made = index("build", models[0], lines(tmp_path / "items.jsonl", ITEMS), "-o", tmp_path / "c")
    assert made["added"] == made["encoded"] == made["items"] == 4 and made["search"] == "exact"
    return tmp_path / "c"


def recommended(*arguments):
    result = run("recommend", *arguments, "--json")
    assert result.exit_code == 0, result.output
    return [[one["id"] for one in query["recommendations"]] for query in json.loads(result.stdout)["queries"]]


def test_recommend_from_a_catalogue(catalogue):
    assert set(recommended(catalogue, "usb", "-k", 2)[0]) == {"a", "b"}
    assert [rows[0] for rows in recommended(catalogue, "red", "tripod")] == ["c", "d"]
    assert recommended(catalogue, "usb", "--where", 'shop = "A" and price < 100') == [["a"]]
    assert "usb dock" not in recommended(catalogue, "usb dock")[0]
    table = run("recommend", catalogue, "usb", "-k", "1")
    assert table.exit_code == 0 and "usb" in table.stdout and "rank" in table.stdout


def test_changes(catalogue, models, tmp_path):
    new = lines(tmp_path / "new.jsonl", [{"id": "e", "text": "red cable"}, ITEMS[0]])
    made = index("add", catalogue, new)
    assert (made["added"], made["unchanged"], made["encoded"]) == (1, 1, 1)
    changed = lines(tmp_path / "changed.jsonl", [{"id": "b", "text": "usb cable", "price": 7}])
    assert index("update", catalogue, changed)["updated"] == 1
    assert recommended(catalogue, "cable", "--where", "price = 7") == [["b"]]
    (tmp_path / "gone.txt").write_text("a\nnothing\n")
    made = index("delete", catalogue, tmp_path / "gone.txt")
    assert (made["deleted"], made["unknown"], made["items"]) == (1, 1, 4)
    gone = lines(tmp_path / "gone.jsonl", [{"id": "c"}])
    assert index("delete", catalogue, gone)["deleted"] == 1
    assert index("check", catalogue)["items"] == 3
    made = index("rebuild", catalogue, models[1])
    assert made["encoded"] == made["items"] == 3
    assert recommended(catalogue, "tripod")[0][0] == "d"


def test_hybrid(models, tmp_path):
    items = lines(tmp_path / "items.jsonl", [{"id": "x", "text": "usb dock XJ-200"}, *ITEMS])
    made = index("build", models[0], items, "-o", tmp_path / "c", "--hybrid")
    assert made["hybrid"] is True
    new = lines(tmp_path / "new.jsonl", [{"id": "y", "text": "usb dock ZK-77"}])
    assert index("add", tmp_path / "c", new)["hybrid"] is True
    assert (
        recommended(tmp_path / "c", "zk77")[0][0] == "y" and recommended(tmp_path / "c", "xj200")[0][0] == "x"
    )
    assert index("rebuild", tmp_path / "c", "--no-hybrid")["hybrid"] is False
    assert index("rebuild", tmp_path / "c", "--hybrid")["reused"] == len(ITEMS) + 2


def test_reference(catalogue, tmp_path):
    pairs = lines(
        tmp_path / "pairs.jsonl", [{"anchor": f"usb {n}", "positive": "usb dock"} for n in range(20)]
    )
    assert index("reference", catalogue, pairs)["queries"] == 20
    assert "reference" in json.loads((catalogue / "manifest.json").read_text())["extras"]


def test_bad_rows_are_left_out_when_told(catalogue, models, tmp_path):
    bad = lines(tmp_path / "bad.jsonl", [{"id": "e", "text": "red cable"}, {"id": None, "text": ""}])
    anchors = [f"usb {n}" for n in range(20)]
    pairs = lines(tmp_path / "pairs.jsonl", [{"anchor": a, "positive": "dock"} for a in [*anchors, ""]])
    for arguments in (
        ("build", models[0], bad, "-o", tmp_path / "new"),
        ("add", catalogue, bad),
        ("reference", catalogue, pairs),
        ("delete", catalogue, bad),
    ):
        stopped = run("index", *arguments)
        assert stopped.exit_code == 1 and "--on-error skip" in stopped.stderr, stopped.output
        told = run("index", *arguments, "--on-error", "skip", "--json")
        assert told.exit_code == 0, told.output
        assert json.loads(told.stdout)["skipped"] == 1
        assert "1 bad row skipped" in told.stderr and "bad row skipped\n  " in told.stderr
    assert index("check", catalogue)["items"] == 4, "e was added and deleted"


def test_brackets_in_paths_are_no_markup(models, tmp_path):
    result = run("index", "build", models[0], lines(tmp_path / "i.jsonl", ITEMS), "-o", tmp_path / "c[v1]")
    assert result.exit_code == 0, result.output
    assert "c[v1]" in result.stdout.replace("\n", "").replace(" ", "")


def test_beir_folder(models, tmp_path):
    folder = tmp_path / "beir"
    folder.mkdir()
    lines(
        folder / "corpus.jsonl",
        [{"_id": "1", "title": "usb", "text": "dock"}, {"_id": "2", "title": "", "text": "red"}],
    )
    assert index("build", models[0], folder, "-o", tmp_path / "c")["items"] == 2
    assert recommended(tmp_path / "c", "usb")[0][0] == "1"


def test_another_model_is_refused(catalogue, models, tmp_path):
    new = lines(tmp_path / "new.jsonl", [{"id": "e", "text": "red cable"}])
    result = run("index", "add", catalogue, new, "--model", models[1])
    assert result.exit_code == 1 and "do not mix" in result.stderr and "index rebuild" in result.stderr
    (models[0] / "modules.json").rename(models[0] / "moved")
    try:
        result = run("recommend", catalogue, "usb")
    finally:
        (models[0] / "moved").rename(models[0] / "modules.json")
    assert result.exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-o", "c"), "there is nothing to do"),
        (("-o", "c", "--add", "x", "--rebuild"), "--add and --rebuild together"),
        (("m", "items", "-o", "c", "--check"), "ITEMS does not go with --check"),
        (("build", "m", "items", "-o", "c", "--kind", "odd"), "unknown kind of index 'odd'"),
        (("bild", "m", "items", "-o", "c"), "Did you mean 'build'"),
        (("add", "c"), "Missing argument"),
    ],
)
def test_usage(arguments, said):
    result = run("index", *arguments)
    assert result.exit_code == 2 and said in result.stderr


def test_usage_of_recommend_and_serve(catalogue, tmp_path):
    result = run("recommend", catalogue, "usb", "--where", "colour = 1")
    assert result.exit_code == 2 and "the columns are: price, shop" in result.stderr
    result = run("serve")
    assert result.exit_code == 2 and "there is no catalogue to serve" in result.stderr
    result = run("serve", catalogue, "--demo")
    assert result.exit_code == 2 and "both a catalogue and --demo are given" in result.stderr
    result = run("serve", tmp_path / "nowhere")
    assert result.exit_code == 1 and "no such catalogue" in result.stderr


def test_semicolons_are_found_and_told(models, tmp_path):
    items = tmp_path / "items.csv"
    items.write_text("id;text;shop\na;usb dock;A\nb;red camera;B\n")
    result = run("index", "build", models[0], items, "-o", tmp_path / "c", "--json")
    assert result.stderr.rstrip().endswith(f"next: leanmatch serve {tmp_path / 'c'}")
    assert result.exit_code == 0 and "separated by a semicolon (--delimiter" in result.stderr
    assert recommended(tmp_path / "c", "usb", "--where", 'shop = "A"') == [["a"]]
    told = run("index", "build", models[0], items, "-o", tmp_path / "d", "--delimiter", ";", "--json")
    assert told.exit_code == 0 and "separated" not in told.stderr
    (tmp_path / "gone.csv").write_text("id;why\na;sold\n")
    assert index("delete", tmp_path / "c", tmp_path / "gone.csv")["deleted"] == 1


def test_delete_takes_ids_as_they_are(models, tmp_path):
    odd = [
        {"id": " a ", "text": "usb dock"},
        {"id": "a", "text": "red camera"},
        {"id": "b\u2028\x85c", "text": "usb cable"},
    ]
    index("build", models[0], lines(tmp_path / "items.jsonl", odd), "-o", tmp_path / "c")
    (tmp_path / "gone.txt").write_bytes(" a \r\n\r\nb\u2028\x85c".encode())
    made = index("delete", tmp_path / "c", tmp_path / "gone.txt")
    assert (made["deleted"], made["unknown"], made["items"]) == (2, 0, 1)
    assert recommended(tmp_path / "c", "usb") == [["a"]]


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_update_keeps_what_the_file_lacks_the_text_included(models, tmp_path, form):
    def file(name, rows):
        if form == "jsonl":
            return lines(tmp_path / f"{name}.jsonl", rows)
        path = tmp_path / f"{name}.csv"
        names = list(dict.fromkeys(column for row in rows for column in row))
        cells = [",".join(str(row.get(column, "")) for column in names) for row in rows]
        path.write_text("\n".join([",".join(names), *cells]) + "\n")
        return path

    index("build", models[0], file("items", ITEMS), "-o", tmp_path / "c")
    made = index("update", tmp_path / "c", file("prices", [{"id": "a", "price": 5}]))
    assert (made["updated"], made["encoded"]) == (1, 0)
    made = index("update", tmp_path / "c", file("more", [{"id": "b", "price": 7, "cat": "x"}]))
    assert (made["updated"], made["encoded"]) == (1, 0)
    shown = run("recommend", tmp_path / "c", "usb", "-k", 2, "--json")
    (query,) = json.loads(shown.stdout)["queries"]
    found = {one["id"]: one for one in query["recommendations"]}
    assert found["a"]["text"] == "usb dock" and found["b"]["text"] == "usb cable"
    assert found["a"]["metadata"] == {"price": 5, "shop": "A"}
    assert found["b"]["metadata"] == {"price": 7, "shop": "B", "cat": "x"}
    made = index("update", tmp_path / "c", file("text", [{"id": "a", "text": "red dock"}]))
    assert (made["updated"], made["encoded"]) == (1, 1)


def test_a_text_of_several_columns_is_made_anew_from_old_and_new(models, tmp_path):
    items = lines(
        tmp_path / "i.jsonl", [{"id": "a", "title": "usb", "text": "dock"}, {"id": "b", "title": "red"}]
    )
    index("build", models[0], items, "-o", tmp_path / "c")
    changed = lines(tmp_path / "n.jsonl", [{"id": "a", "title": "red"}])
    assert index("update", tmp_path / "c", changed)["encoded"] == 1
    shown = json.loads(run("recommend", tmp_path / "c", "red", "--json").stdout)["queries"][0][
        "recommendations"
    ]
    assert {one["id"]: one["text"] for one in shown} == {"a": "red dock"}  # b is the query itself
    blank = lines(tmp_path / "n.jsonl", [{"id": "b", "title": None}])
    result = run("index", "update", tmp_path / "c", blank)
    assert result.exit_code == 1 and "left without a text" in result.stderr


def test_changes_are_read_by_the_columns_of_the_first_file(models, tmp_path):
    items = tmp_path / "items.csv"
    items.write_text("sku,id,name,note\n7,x1,usb dock,a\n8,x2,red camera,b\n")
    index("build", models[0], items, "-o", tmp_path / "c", "--id-column", "sku", "--text-column", "name")
    again = tmp_path / "again.csv"
    again.write_text("sku,id,name,note\n7,x1,usb dock,c\n9,x3,usb cable,b\n")
    made = index("add", tmp_path / "c", again)
    assert (made["added"], made["updated"], made["items"]) == (1, 1, 3)
    again.write_text("id,name\nx1,usb dock\n")
    result = run("index", "add", tmp_path / "c", again)
    assert result.exit_code == 1 and "no column 'sku'" in result.stderr and "--id-column" in result.stderr
    again.write_text("id,sku\nx1,8\n")
    assert index("delete", tmp_path / "c", again)["deleted"] == 1
    again.write_text("name,note\nusb dock,a\n")
    bare = tmp_path / "bare.csv"
    bare.write_text("text\nusb dock\n")
    index("build", models[0], bare, "-o", tmp_path / "d")
    result = run("index", "add", tmp_path / "d", bare)
    assert result.exit_code == 1 and "numbers of rows would replace" in result.stderr


def test_terminal_escapes_of_items_do_not_reach_the_terminal(models, tmp_path):
    hostile = [{"id": "a\x1b[2J", "text": "usb dock \x1b]0;gone\x07"}, {"id": "b", "text": "usb cable"}]
    items = lines(tmp_path / "i.jsonl", hostile)
    index("build", models[0], items, "-o", tmp_path / "c")
    table = run("recommend", tmp_path / "c", "usb\x1b[31m")
    assert table.exit_code == 0 and "\x1b" not in table.stdout and "\x07" not in table.stdout
    assert r"a\x1b[2J" in table.stdout and r"usb\x1b[31m" in table.stdout
    twice = lines(tmp_path / "t.jsonl", [hostile[0], hostile[0]])
    failed = run("index", "build", models[0], twice, "-o", tmp_path / "d")
    assert failed.exit_code == 1 and "\x1b" not in failed.stderr and "rows 1 and 2" in failed.stderr


def test_a_catalogue_remembers_the_columns_of_its_file(models, tmp_path):
    skus = [{"SKU": item["id"], "product_title": item["text"], "price": item["price"]} for item in ITEMS[:3]]
    result = run("index", "build", models[0], lines(tmp_path / "items.jsonl", skus), "-o", tmp_path / "c")
    assert result.exit_code == 0, result.output
    assert "Reading SKU as the id, product_title as the text; --id-column, --text-column" in result.stderr
    more = lines(tmp_path / "more.jsonl", [*skus, {"SKU": "d", "product_title": "tripod", "id": 7}])
    assert index("add", tmp_path / "c", more)["items"] == 4, "nothing is there twice"
    other = lines(tmp_path / "other.jsonl", [{"id": "a", "product_title": "usb dock"}])
    for command in ("add", "update", "delete"):
        refused = run("index", command, tmp_path / "c", other)
        assert refused.exit_code == 1, (command, refused.output)
        assert "'SKU'" in refused.stderr and "--id-column" in refused.stderr
    assert index("delete", tmp_path / "c", other, "--id-column", "id")["items"] == 3


def test_items_that_were_numbered_are_not_added_again_by_another_id(models, tmp_path):
    texts = [{"text": item["text"]} for item in ITEMS]
    result = run("index", "build", models[0], lines(tmp_path / "items.jsonl", texts), "-o", tmp_path / "c")
    assert result.exit_code == 0 and "Reading row numbers as the id, text as the text" in result.stderr
    with_ids = lines(tmp_path / "more.jsonl", [{"sku": f"s{i}", **row} for i, row in enumerate(texts)])
    refused = run("index", "add", tmp_path / "c", with_ids)
    assert refused.exit_code == 1 and "would be there twice" in refused.stderr
    assert index("add", tmp_path / "c", with_ids, "--id-column", "sku")["items"] == 8


def test_the_old_spelling_works_and_says_the_new_one(models, tmp_path):
    folder, new = tmp_path / "c", lines(tmp_path / "new.jsonl", [{"id": "e", "text": "red cable"}])
    items = lines(tmp_path / "items.jsonl", ITEMS)
    gone = lines(tmp_path / "gone.jsonl", [{"id": "a"}])
    for arguments, command, count in (
        ((models[0], items, "-o", folder), f"build {models[0]} {items} -o {folder}", 4),
        (("-o", folder, "--add", new), f"add {folder} {new}", 5),
        (("-o", folder, "--update", new), f"update {folder} {new}", 5),
        (("-o", folder, "--delete", gone), f"delete {folder} {gone}", 4),
        ((models[1], "-o", folder, "--rebuild"), f"rebuild {folder} {models[1]}", 4),
        (("-o", folder, "--check"), f"check {folder}", 4),
    ):
        result = run("index", *arguments, "--json")
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout)["items"] == count
        assert f"leanmatch index {command}" in " ".join(result.stderr.split())
    assert index("rebuild", folder)["reused"] == 4, "the catalogue's own model by default"


def test_a_damaged_search_index_is_made_anew(models, tmp_path):
    folder = tmp_path / "c"
    index("build", models[0], lines(tmp_path / "items.jsonl", ITEMS), "-o", folder, "--kind", "ivf")
    (file,) = folder.glob("*.faiss")
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    result = run("recommend", folder, "usb")
    assert result.exit_code == 1 and file.name in result.stderr
    result = run("index", "check", folder)
    assert result.exit_code == 1 and file.name in result.stderr
    assert index("rebuild", folder)["items"] == 4
    assert len(recommended(folder, "usb")[0]) == 4
