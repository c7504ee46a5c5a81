"""``leanmatch evaluate`` with made-up models: what is printed where, defaults from provenance, exit codes."""

from __future__ import annotations

import importlib
import json
import zlib

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from leanmatch.cli.evaluate import plan
from leanmatch.data import PairTable, SplitOptions, split_pairs

# The package has the module and the command under one name; this is the module.
command = importlib.import_module("leanmatch.cli.evaluate.command")
app = typer.Typer()
app.command()(command.evaluate)


def encode(texts):
    vectors = np.zeros((len(texts), 32), np.float32)
    for row, text in enumerate(texts):
        for word in text.split():
            vectors[row] += np.random.default_rng(zlib.crc32(word.encode())).standard_normal(32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def encode_first_word(texts):
    return encode([text.split()[0] for text in texts])


def columns(n=120):
    rng = np.random.default_rng(0)
    words = [[f"w{w}" for w in rng.integers(0, 40, 6)] for _ in range(n)]
    return {
        "anchor": [" ".join([*w[:4], f"a{i}"]) for i, w in enumerate(words)],
        "positive": [" ".join([f"b{i}", *w[1:]]) for i, w in enumerate(words)],
        "site": ["toys" if i % 3 == 0 else "books" for i in range(n)],
    }


@pytest.fixture
def pairs(tmp_path):
    path = tmp_path / "pairs.jsonl"
    rows = columns()
    lines = [json.dumps(dict(zip(rows, values, strict=True))) for values in zip(*rows.values(), strict=True)]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.fixture
def run(monkeypatch, pairs):
    """Run the command with models ``good`` and ``poor``; ``provenance`` is what ``good`` says of itself."""

    def call(*arguments, provenance=None, data=pairs):
        models = {"good": encode, "poor": encode_first_word, "models/poor": encode_first_word}
        monkeypatch.setattr(command, "_load", lambda name, *_: models[name])
        monkeypatch.setattr(plan, "check_models", lambda *names: None)  # they are in memory only
        monkeypatch.setattr(plan, "provenance_of", lambda name: provenance)
        return CliRunner().invoke(app, ["good", str(data), *arguments], env={"COLUMNS": "100"})

    return call


def test_json_goes_to_stdout_alone(run):
    result = run("--json", "--against", "models/poor", "--hold-out", "site=toys")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["name"], found["against"]) == ("good", "poor")
    names = [part["name"] for part in found["slices"]]
    assert names == ["overall", "in distribution", "out of distribution", "site=books", "site=toys"]
    assert found["slices"][0]["metrics"]["MRR@10"]["verdict"] == "better"
    assert "slices: site" in result.stderr


def test_a_stock_model_is_evaluated_without_torch(tmp_path):
    """In a process of its own: nothing that it imports is torch."""
    import subprocess
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
    import training_models as models

    models.static_model().save_pretrained(str(tmp_path / "static"), create_model_card=False)
    anchors, positives = models.pair_lists()
    rows = zip(anchors, positives, strict=True)
    lines = [json.dumps({"anchor": one, "positive": other}) for one, other in rows]
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines))
    script = (
        "import sys; from leanmatch.cli.app import app\n"
        f"app(['evaluate', {str(tmp_path / 'static')!r}, {str(tmp_path / 'pairs.jsonl')!r}, '--json'], "
        "standalone_mode=False)\nassert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout)["slices"][0]["metrics"]["MRR@10"]["value"] > 0


def test_tables_then_sentences(run):
    result = run("--against", "poor", "--hold-out", "site=toys", "--slices", "none")
    assert result.exit_code == 0, result.output
    assert result.stdout.index("out of distribution: 40 queries") < result.stdout.index("note: ")
    last = result.stdout.strip().splitlines()[-1]
    assert last.startswith("out of distribution: good is better than poor by ")
    assert "all 120 rows" in result.stdout and "not symmetric: 0 of 240" in result.stdout


def test_a_model_against_itself_has_two_names(run):
    found = json.loads(run("--json", "--against", "good").stdout)
    assert (found["name"], found["against"]) == ("good (model)", "good (against)")


def test_asymmetric_and_symmetric_can_be_asked_for(run):
    counts = [json.loads(run("--json", flag).stdout)["slices"][0] for flag in ("--symmetric", "--asymmetric")]
    assert [part["n_candidates"] for part in counts] == [240, 120]


def test_base_and_hold_out_come_from_the_provenance(run):
    result = run(
        "--against", "base", "--json", provenance={"base": "poor", "options": {"hold_out": ["site=toys"]}}
    )
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["against"] == "base"
    assert "out of distribution" in {part["name"] for part in found["slices"]}
    assert "as in the model's training: site=toys" in result.stderr


def test_a_flag_overrides_the_provenance(run):
    given = {"options": {"hold_out": ["site=toys"]}}
    result = run("--json", "--hold-out", "site=books", provenance=given)
    outside = next(p for p in json.loads(result.stdout)["slices"] if p["kind"] == "out of distribution")
    assert outside["n_rows"] == 80


def test_a_held_out_value_that_the_data_lacks_is_told(run):
    given = {"options": {"hold_out": ["shop=9"], "after": "2021-01-01"}}
    result = run("--json", provenance=given)
    assert result.exit_code == 0, result.output
    assert "trained without shop=9, which this data does not have" in result.stderr
    assert "before 2021-01-01, but this data has no timestamps" in result.stderr


def test_the_test_rows_of_the_training_split_are_used(run, pairs):
    from leanmatch.data import read_pairs

    table = read_pairs(pairs)
    split = split_pairs(table, SplitOptions(hold_out=("site=toys",), near_duplicates=False))
    assert len(split.rows["test_in"]) and len(split.rows["test_out"])
    result = run("--json", provenance={"base": "poor", "split": split.manifest()})
    assert result.exit_code == 0, result.output
    sizes = {part["kind"]: part["n_rows"] for part in json.loads(result.stdout)["slices"][:3]}
    assert sizes["in distribution"] == len(split.rows["test_in"])
    assert sizes["out of distribution"] == len(split.rows["test_out"])
    assert sizes["overall"] == sizes["in distribution"] + sizes["out of distribution"] < len(table)
    assert "PSP@1" in json.loads(result.stdout)["slices"][0]["metrics"]
    everything = run("--json", "--split", "all", provenance={"split": split.manifest()})
    assert json.loads(everything.stdout)["slices"][0]["n_rows"] == len(table)


def test_the_rows_of_the_training_split_are_named_in_the_result(run, pairs):
    from leanmatch.data import read_pairs

    split = split_pairs(read_pairs(pairs), SplitOptions(hold_out=("site=toys",), near_duplicates=False))
    given = {"split": split.manifest()}
    inside, outside = len(split.test_in), len(split.test_out)
    words = (
        f"the {inside + outside} test rows of the split that the model was trained with ({inside} in, "
        f"{outside} out of distribution), of 120 rows"
    )
    found = json.loads(run("--json", provenance=given).stdout)
    assert found["split"] == words
    assert "out of distribution, as in the model's training: site=toys" in found["notes"]
    shown = run(provenance=given)
    assert f"pairs.jsonl: {words}\n" in shown.stdout and "note: out of distribution, as in" in shown.stdout
    everything = json.loads(run("--json", "--split", "all", provenance=given).stdout)
    assert everything["split"] == "all 120 rows (there is no column 'split')"
    assert f"the model was trained on {len(split.train)} of these rows" in everything["notes"]


@pytest.mark.parametrize("part", ["train", "valid"])
def test_other_parts_of_the_training_split_can_be_asked_for(run, pairs, part):
    from leanmatch.data import read_pairs

    split = split_pairs(read_pairs(pairs), SplitOptions(hold_out=("site=toys",), near_duplicates=False))
    result = run("--json", "--split", part, provenance={"split": split.manifest()})
    assert result.exit_code == 0, result.output
    found, rows = json.loads(result.stdout), getattr(split, part)
    assert found["slices"][0]["n_rows"] == len(rows) > 0
    assert found["split"].startswith(f"the {len(rows)} {part} rows of the split that the model was trained")


def test_the_files_own_column_wins_where_a_part_is_asked_for(run, tmp_path):
    from leanmatch.data import read_pairs

    path = tmp_path / "marked.jsonl"
    rows = columns() | {"split": ["valid" if i % 2 else "train" for i in range(120)]}
    lines = [json.dumps(dict(zip(rows, values, strict=True))) for values in zip(*rows.values(), strict=True)]
    path.write_text("\n".join(lines), encoding="utf-8")
    manifest = split_pairs(read_pairs(path), SplitOptions(near_duplicates=False)).manifest()
    found = json.loads(run("--json", "--split", "valid", data=path, provenance={"split": manifest}).stdout)
    assert found["split"] == "the 60 rows with split 'valid'"


def test_a_training_split_without_test_rows_names_what_there_is(run, pairs):
    from leanmatch.data import read_pairs

    split = split_pairs(read_pairs(pairs), SplitOptions(test_fraction=0.0, near_duplicates=False))
    assert not len(split.test_in) and not len(split.test_out)
    result = run("--json", provenance={"split": split.manifest()})
    assert result.exit_code == 1 and not result.stdout
    assert f"trained with has no test rows (train {len(split.train)}, valid" in result.stderr
    assert "--split all" in result.stderr and "--split valid" in result.stderr
    assert "give at least one pair" not in result.stderr


def test_another_table_than_the_one_trained_on_is_told(run):
    other = PairTable.from_columns(columns(60))
    manifest = split_pairs(other, SplitOptions(near_duplicates=False)).manifest()
    result = run("--json", provenance={"split": manifest})
    assert result.exit_code == 0, result.output
    assert "not the table that the model was trained on" in result.stderr
    assert any("may repeat what it was trained on" in note for note in json.loads(result.stdout)["notes"])


def test_columns_can_be_named(run, tmp_path):
    path = tmp_path / "other.csv"
    path.write_bytes(
        b"\xef\xbb\xbfquery,doc\r\nred \xf0\x9f\x9a\x97 car,a red car\r\nblue hat,a blue hat\r\n"
    )
    result = run("--json", "--column", "anchor=query", "--column", "positive=doc", data=path)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["slices"][0]["n_queries"] == 2


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--hold-out", "site"], 2, "COLUMN=VALUE|COL=VALUE"),
        (["--hold-out", "site=games"], 1, "values of site: books, toys"),
        (["--slices", "color"], 1, "columns to slice by: site"),
        (["--split", "dev"], 2, "one of: auto, all, train, valid, test"),
        (["--split", "test"], 1, "split"),
        (["--against", "base"], 2, "good does not say what its base is"),
        (["--propensity", "ebay"], 2, "one of: default, amazon, wikipedia"),
        (["--after", "soon"], 2, "after is 'soon'"),
        (["--batch-size", "0"], 2, "batch-size"),
    ],
)
def test_errors(run, arguments, code, message):
    result = run(*arguments)
    assert result.exit_code == code, result.output
    assert any(part in result.stderr for part in message.split("|")), result.stderr
    assert not result.stdout


def test_bad_rows_are_left_out_when_told(run, pairs):
    with pairs.open("a", encoding="utf-8") as handle:
        handle.write("".join('\n{"anchor": null, "positive": "[/x] y"}' for _ in range(12)))
    stopped = run("--json")
    assert stopped.exit_code == 1 and "pairs.jsonl:121" in stopped.stderr
    assert "--on-error skip" in stopped.stderr, "the remedy names the flag"
    told = run("--json", "--on-error", "skip")
    assert told.exit_code == 0, told.output
    found = json.loads(told.stdout)
    assert found["skipped"] == 12 and found["slices"][0]["n_rows"] == 120
    assert "12 bad rows skipped" in told.stderr and "pairs.jsonl:121 column 'anchor': " in told.stderr
    assert "pairs.jsonl:130" in told.stderr and "pairs.jsonl:131" not in told.stderr
    assert "and 2 more" in told.stderr


def test_an_empty_file_is_refused(run, tmp_path):
    (tmp_path / "empty.csv").write_text("")
    result = run(data=tmp_path / "empty.csv")
    assert result.exit_code == 1
    assert "empty.csv" in result.stderr


def test_hybrid(run):
    result = run("--hybrid", "--against", "good", "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["name"] == "good (hybrid)" and any("terms" in note for note in document["notes"])
    assert run("--lexical-weight", "0.5").exit_code == 2
    result = run("--rerank", "/nowhere/at/all")
    assert result.exit_code == 1 and "nowhere" in result.output
