"""The runs under docs/results: folding them, and the pages that are made from them."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("pyarrow", reason="pyarrow is not installed")

SCRIPTS = (
    "collect",
    "pages",
    "private_data",
    "compression_match",
    "compression_methods",
    "compression_table",
    "first_factors_table",
    "nlu_table",
    "real_sizes_table",
    "compression_task",
    "contextual_table",
    "ood_table",
    "serve_table",
    "shift_table",
)


@pytest.fixture
def script(repository, monkeypatch):
    monkeypatch.syspath_prepend(str(repository / "research"))
    yield importlib.import_module
    for name in SCRIPTS:
        sys.modules.pop(name, None)


def ranked(**averages):
    base = {"encoder": "static", "setting": "a>b", "regime": "weak", "seed": 0, "method": "plain"}
    return {**base, "ranks": {name: {"in": ranks} for name, ranks in averages.items()}}


def test_a_page_made_again_from_the_folded_runs_is_the_page_that_is_there(repository, script, tmp_path):
    results = repository / "docs" / "results"
    tables, load, shifts = "<!-- tables -->\n", "<!-- end of load table -->\n", "<!-- end of shifts -->\n"
    contextual, scripts = "<!-- end of contextual -->\n", {shifts: "shift_table"}
    scripts[contextual] = "contextual_table"
    for name, runs, begin, end, plot in (
        ("serve", "serve/runs.jsonl", "<!-- load table -->\n", load, None),
        ("ood", "ood/runs.parquet", tables, "", None),
        ("ood", "ood/shifts.parquet", "<!-- shifts -->\n", shifts, None),
        ("ood", "ood/contextual.parquet", "<!-- contextual -->\n", contextual, None),
        ("compression", "compression/runs.jsonl", tables, "", "compression/quality.svg"),
        ("first_factors", "compression/first_factors.jsonl", tables, "", "compression/curve.svg"),
        ("nlu", "compression/nlu.jsonl", tables, "", None),
        ("real_sizes", "compression/real_sizes.jsonl", tables, "", "lean.svg"),
    ):
        text = (results / f"{name}.md").read_text(encoding="utf-8")
        before, _, rest = text.partition(begin)
        page = tmp_path / f"{name}.md"
        page.write_text(before + begin + (end + rest.partition(end)[2] if end else ""), encoding="utf-8")
        assert page.read_text(encoding="utf-8") != text, "the page has no table to make again"
        drawn = [] if plot is None else ["--plot", str(tmp_path / plot)]
        if plot is not None:
            (tmp_path / plot).parent.mkdir(exist_ok=True)
        script(scripts.get(end, f"{name}_table")).main([str(results / runs), "-o", str(page), *drawn])
        assert page.read_text(encoding="utf-8") == text
        assert plot is None or (tmp_path / plot).stat().st_size > 10_000


def test_a_page_without_a_mark_is_left_alone(script, tmp_path):
    (tmp_path / "page.md").write_text("by hand")
    with pytest.raises(SystemExit, match="has no line <!-- tables -->"):
        script("pages").publish("a table", tmp_path / "page.md")
    assert (tmp_path / "page.md").read_text() == "by hand"


def test_the_page_does_come_from_the_runs(repository, script, tmp_path):
    runs = script("collect").read_runs(repository / "docs" / "results" / "serve" / "runs.jsonl")
    runs["static-1-wrk"]["seconds_to_ready"] += 1
    script("collect").write_runs(tmp_path / "runs.jsonl", runs)
    page = tmp_path / "serve.md"
    shutil.copy(repository / "docs" / "results" / "serve.md", page)
    before = page.read_text(encoding="utf-8")
    script("serve_table").main([str(tmp_path / "runs.jsonl"), "-o", str(page)])
    assert page.read_text(encoding="utf-8") != before


@pytest.mark.parametrize("name", ["runs.jsonl", "runs.parquet"])
def test_folding_replaces_runs_of_a_name_and_keeps_the_others(script, tmp_path, capsys, name):
    collect, target, folder = script("collect"), tmp_path / "new" / name, tmp_path / "runs"
    folder.mkdir()

    def write(run, path):
        packed = {a: {s: collect.pack_ranks(r) for s, r in by.items()} for a, by in run["ranks"].items()}
        (folder / path).write_text(json.dumps(run | ({"ranks": packed})))

    first, second = ranked(**{"0": b"\1\2\0", "1": b"\1\1\0"}), ranked(**{"0": b"\1\2\0"}) | {"method": "itv"}
    if name == "runs.jsonl":
        for run in (first, second):
            del run["ranks"]
        (folder / "first.json").write_text(json.dumps(first))
        (folder / "second.json").write_text(json.dumps(second))
    else:
        write(first, "first.json")
        write(second, "second.json")
    collect.main([str(folder), str(target)])
    assert collect.read_runs(target) == {"first": first, "second": second}
    (folder / "second.json").unlink()
    if name == "runs.jsonl":
        fresh = merged = first | {"seconds": 3}
        (folder / "first.json").write_text(json.dumps(fresh))
    else:
        fresh = ranked(**{"1": b"\3\3\3"}) | {"seconds": 3}
        merged = fresh | {"ranks": {"0": {"in": b"\1\2\0"}, "1": {"in": b"\3\3\3"}}}
        write(fresh, "first.json")
    collect.main([str(folder), str(target)])
    assert collect.read_runs(target) == {"first": merged, "second": second}
    assert "2 runs, 0 new, 1 replaced" in capsys.readouterr().out


def test_matthews_correlation_is_that_of_scikit_learn(script):
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    table, draw = script("nlu_table"), np.random.default_rng(0)
    labels, right = draw.random((3, 37)) < 0.7, draw.random((3, 37)) < 0.6
    right[2], labels[1] = labels[2], True  # the one says the same class always, the other has but one
    found = table.matthews(right, labels)
    for row in range(3):
        said = np.where(right[row], labels[row], ~labels[row])
        assert found[row] == pytest.approx(metrics.matthews_corrcoef(labels[row], said))
    assert found[0] != 0 and found[1] == found[2] == 0
    packed = np.packbits(right[0]).tobytes().hex()
    assert (table.bits(packed, 37) == right[0]).all()


def test_equal_ranks_are_read_between_the_runs_of_a_curve(script):
    table, pack = script("first_factors_table"), script("compression_match").pack

    def runs(rank, macs, size):  # all queries alike, so that intervals have no width
        return [{"macs": macs, "encoder_bytes": size, "queries": {"quora": pack(np.full(100, rank / 100))}}]

    ours = [runs(80, 2.0, 4.0), runs(60, 8.0, 16.0)]
    equal, fewer_macs, fewer_bytes = table.reading(ours, runs(70, 2.0, 16.0), "quora")
    assert equal == "4.00x"  # half way in the logarithm, as is 8 in bytes
    assert fewer_macs == "50% (50 to 50)" and fewer_bytes == "-100% (-100 to -100)"
    assert table.reading(ours, runs(50, 2.0, 4.0), "quora")[0] == "over 8.00x"
    assert table.reading(ours, runs(81, 2.0, 4.0), "quora") == ["none", "", ""]
    better_when_leaner = [*ours, runs(70, 16.0, 32.0)]  # noise: the curve stays at 60
    assert table.reading(better_when_leaner, runs(70, 2.0, 4.0), "quora")[0] == "4.00x"


def test_a_folder_without_runs_is_an_error(script, tmp_path):
    with pytest.raises(SystemExit, match="has no result files"):
        script("collect").main([str(tmp_path), str(tmp_path / "runs.jsonl")])
    with pytest.raises(SystemExit, match="neither a folder"):
        script("collect").read_runs(tmp_path / "nothing.jsonl")


def test_private_data_that_is_missing_says_what_it_must_hold(script, tmp_path):
    with pytest.raises(SystemExit, match=r"may not contain\.(.|\n)*columns there: domain \(askubuntu"):
        script("private_data").private_table(tmp_path, "question_pairs")
    (tmp_path / "clinc150.tsv.gz").touch()
    assert script("private_data").private_table(tmp_path, "clinc150") == Path(tmp_path / "clinc150.tsv.gz")


@pytest.mark.parametrize(
    "name", ["calibration", "compression", "hybrid", "nlu", "ood_grid", "train_reranker"]
)
def test_scripts_that_need_private_data_say_so_first(repository, name):
    source = (repository / "research" / f"{name}.py").read_text(encoding="utf-8")
    assert "research/private_data.py" in source.split('"""')[1]


def test_scripts_import_names_that_exist(repository):
    missing = []
    for folder in ("benchmarks", "examples", "research", "scripts"):
        for script in sorted((repository / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
                if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("leanmatch"):
                    continue
                module = importlib.import_module(node.module)
                missing += [
                    f"{script.name}: {node.module}.{name.name}"
                    for name in node.names
                    if not hasattr(module, name.name) and not _is_module(f"{node.module}.{name.name}")
                ]
    assert not missing


def _is_module(name: str) -> bool:
    return importlib.util.find_spec(name) is not None
