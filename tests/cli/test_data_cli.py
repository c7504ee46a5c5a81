from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from leanmatch.cli.data.command import app
from leanmatch.data import load_split, read_pairs
from leanmatch.data.see_also import build as module

runner = CliRunner()


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.tsv"
    names = ["alpha", "beta", "gamma", "delta", "omega", "sigma", "kappa", "theta", "lambda", "zeta"]
    rows = [
        f"{a} {b} query\t{b} and {a} item\t{'Toys' if i % 2 else 'Games'}"
        for i, a in enumerate(names)
        for b in names[i + 1 :]
    ]
    path.write_text("query\tpositive\tcategory\n" + "\n".join(rows) + "\n")
    return path


def test_see_also(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numpydoc", reason="the demo extra (numpydoc) is not installed")
    section = "See Also\n    --------\n    "
    functions = {
        "heap": ("Make a heap.", "pile"),
        "pile": ("Make a pile.", "heap"),
        "lone": ("Do nothing.", ""),
    }
    (tmp_path / "heapshop.py").write_text(
        '"""Shop."""\n__version__ = "1.5"\n'
        + "".join(
            f'def {name}():\n    """{summary}\n\n    {section + other if other else ""}\n    """\n'
            for name, (summary, other) in functions.items()
        )
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    write = functools.partial(module.write_see_also, packages=["heapshop"])
    monkeypatch.setattr(module, "write_see_also", write)
    folder = tmp_path / "graph"
    first = runner.invoke(app, ["see-also", "-o", str(folder), "--json"])
    assert first.exit_code == 0, first.output
    summary = json.loads(first.stdout)
    assert (summary["items"], summary["pairs"]) == (3, 1)
    again = runner.invoke(app, ["see-also", "-o", str(folder)])
    assert again.exit_code == 1 and "--overwrite" in again.stderr and again.stdout == ""
    replaced = runner.invoke(app, ["see-also", "-o", str(folder), "--overwrite"], env={"COLUMNS": "200"})
    assert replaced.exit_code == 0, replaced.output
    row = next(line for line in replaced.stdout.splitlines() if "heapshop" in line and "1.5" in line)
    assert [cell.strip() for cell in row.split("\u2502")[1:5]] == ["heapshop", "1.5", "3", "1"]


def test_check(pairs: Path) -> None:
    result = runner.invoke(app, ["check", str(pairs), "--column", "anchor=query"])
    assert result.exit_code == 0 and "45 rows" in result.stdout and "Toys" in result.stdout
    result = runner.invoke(app, ["check", str(pairs), "--column", "anchor=query", "--json"])
    assert json.loads(result.stdout)["rows"] == 45


def test_check_lists_bad_rows(pairs: Path) -> None:
    with pairs.open("a") as handle:
        handle.write("[/b] only\n\tno anchor\tToys\n")
    result = runner.invoke(app, ["check", str(pairs), "--column", "anchor=query"])
    assert result.exit_code == 0 and "missing" in result.stdout and "[/b]" in result.stdout
    found = json.loads(runner.invoke(app, ["check", str(pairs), "--column", "anchor=query", "--json"]).stdout)
    assert [row["line"] for row in found["skipped"]] == [47, 48]
    result = runner.invoke(app, ["check", str(pairs), "--column", "anchor=query", "--on-error", "raise"])
    assert result.exit_code == 1 and "pairs.tsv:47" in result.stderr and result.stdout == ""


def test_split(pairs: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "split.json"
    arguments = [
        "split",
        str(pairs),
        "-o",
        str(manifest),
        "--column",
        "anchor=query",
        "--hold-out",
        "category=Toys",
    ]
    result = runner.invoke(app, [*arguments, "--write-parts", str(tmp_path / "parts"), "--json"])
    assert result.exit_code == 0, result.output
    shown = json.loads(result.stdout)
    split = load_split(read_pairs(pairs, columns={"anchor": "query"}), manifest)
    assert shown["parts"]["test_out"] == len(split.test_out) > 0
    for name in ("train", "valid", "test_in", "test_out"):
        part = getattr(split, name)
        if len(part):
            assert read_pairs(tmp_path / "parts" / f"{name}.parquet").fingerprint() == part.fingerprint()
    result = runner.invoke(app, [*arguments, "--overwrite"])
    assert result.exit_code == 0 and "test_out" in result.stdout and "leakage (remove)" in result.stdout


def test_split_replaces_only_when_told_and_only_its_own(pairs: Path, tmp_path: Path) -> None:
    manifest, parts = tmp_path / "split.json", tmp_path / "parts"
    arguments = ["split", str(pairs), "--column", "anchor=query"]
    first = runner.invoke(app, [*arguments, "-o", str(manifest), "--write-parts", str(parts)])
    assert first.exit_code == 0, first.output
    before = manifest.read_bytes(), (parts / "train.parquet").read_bytes()
    for targets in (["-o", str(manifest)], ["-o", str(tmp_path / "n.json"), "--write-parts", str(parts)]):
        again = runner.invoke(app, [*arguments, *targets, "--seed", "1"])
        assert again.exit_code == 1 and "pass --overwrite" in again.stderr and again.stdout == ""
    assert (manifest.read_bytes(), (parts / "train.parquet").read_bytes()) == before
    both = [*arguments, "-o", str(manifest), "--write-parts", str(parts), "--seed", "1", "--overwrite"]
    assert runner.invoke(app, both).exit_code == 0
    assert manifest.read_bytes() != before[0] and (parts / "train.parquet").read_bytes() != before[1]
    (parts / "thesis.txt").write_text("years of work")
    refused = runner.invoke(app, both)
    assert refused.exit_code == 1 and "no part of a split: thesis.txt" in refused.stderr
    assert (parts / "thesis.txt").exists()
    content = pairs.read_bytes()
    refused = runner.invoke(app, ["split", str(pairs), "-o", str(pairs), "--overwrite"])
    assert refused.exit_code == 1 and "is no manifest of a split" in refused.stderr
    assert pairs.read_bytes() == content


def test_a_date_before_all_rows(tmp_path: Path) -> None:
    path = tmp_path / "time.csv"
    path.write_text(
        "anchor,positive,timestamp\n" + "".join(f"q{i} a,p{i} b,2021-01-0{i + 1}\n" for i in range(9))
    )
    result = runner.invoke(app, ["split", str(path), "-o", str(tmp_path / "m.json"), "--after", "2001-06-01"])
    assert result.exit_code == 1 and "set a later date" in result.stderr and "earlier" not in result.stderr


def test_brackets_in_paths_are_no_markup(pairs: Path, tmp_path: Path) -> None:
    manifest = tmp_path / ("long" * 30) / "m[v1][/x].json"
    result = runner.invoke(app, ["split", str(pairs), "-o", str(manifest), "--column", "anchor=query"])
    assert result.exit_code == 0, result.output
    assert f"written: {manifest}\n" in result.stdout


def test_split_lists_bad_rows(pairs: Path, tmp_path: Path) -> None:
    with pairs.open("a") as handle:
        handle.write("\tno anchor\tToys\n")
    arguments = ["split", str(pairs), "-o", str(tmp_path / "m.json"), "--column", "anchor=query"]
    result = runner.invoke(app, [*arguments, "--on-error", "skip"])
    assert result.exit_code == 0, result.output
    assert "1 bad row skipped" in result.stderr and "pairs.tsv:47 column 'query': " in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--column", "anchor"], 2, "OURS=THEIRS"),
        (["--column", "anchor=query", "--column", "positive=query"], 2, "twice"),
        (["--column", "anchor=query", "--hold-out", "Toys"], 2, "COLUMN=VALUE"),
        (["--column", "anchor=query", "--leakage", "x"], 2, "remove, report, ignore"),
        (["--column", "anchor=qury"], 1, "--column anchor=query"),
        (["--column", "anchor=query", "--hold-out", "category=Cars"], 1, "Games, Toys"),
    ],
)
def test_exit_codes(pairs: Path, tmp_path: Path, arguments: list[str], code: int, says: str) -> None:
    result = runner.invoke(app, ["split", str(pairs), "-o", str(tmp_path / "m.json"), *arguments])
    assert result.exit_code == code and says in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "m.json").exists()


def test_many_slice_columns_are_counted_not_printed(tmp_path: Path) -> None:
    names = [f"c{i}" for i in range(40)]
    path = tmp_path / "wide.csv"
    rows = [",".join([f"a {row}", f"b {row}", *(str(row % 2) for _ in names)]) for row in range(6)]
    path.write_text("\n".join([",".join(["anchor", "positive", *names]), *rows]))
    result = runner.invoke(app, ["check", str(path)])
    assert result.exit_code == 0 and result.stdout.count("slice column c") == 12
    assert "28 more slice columns" in result.stdout
    assert result.stderr.count("WARNING") == 1 and "'c5' and 34 more" in result.stderr
