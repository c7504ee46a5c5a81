"""``leanmatch export CATALOGUE --to web``: what it writes and refuses; the committed scripts."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess

import pytest
from typer.testing import CliRunner

from leanmatch.cli.app import app
from leanmatch.errors import FormatError, LeanmatchError, UsageError
from leanmatch.index import Catalogue, Item, create_catalogue
from leanmatch.web import catalogue as web_catalogue
from leanmatch.web import export_site
from leanmatch.web.catalogue import WebModel, write_catalogue
from leanmatch.web.site import BUILT, RUNTIMES


def export(*arguments):
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


def test_the_site_is_complete_and_says_its_sizes(site, catalogue, tmp_path):
    manifest = json.loads((site / "site.json").read_text(encoding="utf-8"))
    files = {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()}
    assert files == {"site.json", *manifest["files"]}
    worker = (site / "sw.js").read_text(encoding="utf-8")
    kept = json.loads(re.search(r"^const FILES = (.*);$", worker, re.MULTILINE)[1])
    assert set(kept) - {"./"} <= files and "@" not in worker
    page = (site / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<style|style=|\bon\w+=|<script(?![^>]*src=)", page)

    result = export(catalogue.folder, "--to", "web", "-o", tmp_path / "again", "--title", "Mine")
    assert result.exit_code == 0, result.output
    shown = dict(re.findall(r"^ *(\w+) +([\d.]+) MB", result.output, re.MULTILINE))
    assert [*shown] == ["model", "runtime", "scripts", "page", "vectors", "items", "columns", "all"]
    size = sum(path.stat().st_size for path in (tmp_path / "again").rglob("*") if path.is_file())
    assert float(shown.pop("all")) == pytest.approx(size / 1e6, abs=0.01)
    assert sum(map(float, shown.values())) == pytest.approx(size / 1e6, abs=0.05)


def test_it_overwrites_its_own_alone(catalogue, site, tmp_path):
    copy = tmp_path / "site"
    shutil.copytree(site, copy)
    with pytest.raises(LeanmatchError, match="exists already"):
        export_site(catalogue.folder, copy)
    (copy / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(LeanmatchError, match=r"holds more than that: notes\.txt"):
        export_site(catalogue.folder, copy, overwrite=True)
    assert (copy / "notes.txt").read_text(encoding="utf-8") == "mine"
    other = tmp_path / "other"
    other.mkdir()
    (other / "site.json").write_text("{}", encoding="utf-8")
    with pytest.raises(LeanmatchError, match="is no site of leanmatch"):
        export_site(catalogue.folder, other, overwrite=True)


def test_what_it_refuses(catalogue, tmp_path):
    with pytest.raises(FormatError, match="is no catalogue"):
        export_site(tmp_path, tmp_path / "site")
    with pytest.raises(UsageError, match="title is blank"):
        export_site(catalogue.folder, tmp_path / "site", title=" ")
    assert not (tmp_path / "site").exists()
    refused = export(catalogue.folder, "--to", "web", "--int8", "-o", tmp_path / "site")
    assert refused.exit_code == 2 and "int8" in refused.output
    refused = export(tmp_path, "--to", "onnx", "--title", "Mine", "-o", tmp_path / "site")
    assert refused.exit_code == 2 and "--title" in refused.output


@pytest.fixture
def with_catalogue(site, encoder, tmp_path):
    """The site, with another catalogue in it."""

    def write(items):
        made = tmp_path / "site"
        shutil.copytree(site, made, ignore=shutil.ignore_patterns("catalogue"))
        create_catalogue(tmp_path / "catalogue", items, encoder)
        old = json.loads((site / "catalogue" / "catalogue.json").read_text(encoding="utf-8"))["model"]
        write_catalogue(Catalogue.open(tmp_path / "catalogue"), made / "catalogue", WebModel(**old))
        return made

    return write


def test_parts_of_a_large_catalogue(encoder, monkeypatch, node, with_catalogue):
    """Vectors and items in many parts give what one part gives."""
    monkeypatch.setattr(web_catalogue, "VECTOR_PART_BYTES", 7 * (encoder.dimension + 4))
    monkeypatch.setattr(web_catalogue, "ITEM_PART_BYTES", 300)
    made = with_catalogue([Item(f"n{n}", f"item number {n}", {"n": n}) for n in range(50)])
    manifest = json.loads((made / "catalogue" / "catalogue.json").read_text(encoding="utf-8"))
    assert len(manifest["vectors"]) == 8 and len(manifest["parts"]) == 9
    wanted = {"do": "search", "text": "item number 31", "k": 50, "filter": "n > 8"}
    result = node(made, [{"do": "load"}, {"do": "open"}, wanted])[2]
    assert result[0]["id"] == "n31" and {one["id"] for one in result} == {f"n{n}" for n in range(9, 50)}
    for one in result:
        assert one["text"] == f"item number {one['id'][1:]}" == f"item number {one['metadata']['n']}"


def test_an_empty_catalogue_and_another_model(node, with_catalogue):
    made = with_catalogue([])
    calls = [{"do": "load"}, {"do": "open"}, {"do": "search", "text": "dock", "k": 3}]
    assert node(made, calls)[2] == []
    manifest = made / "catalogue" / "catalogue.json"
    content = json.loads(manifest.read_text(encoding="utf-8"))
    content["model"]["weights"] = "0" * 64
    manifest.write_text(json.dumps(content), encoding="utf-8")
    assert "another model" in node(made, calls)[2]["error"]


def test_damage_is_an_error_and_never_an_answer(site, node, tmp_path):
    broken = tmp_path / "site"
    shutil.copytree(site, broken, copy_function=os.link)
    calls = [{"do": "load"}]
    for damage in ("cut", "missing"):
        for part, name in (
            ("model", "model.json"),
            ("model", "tokenizer.json"),
            ("catalogue", "catalogue.json"),
            ("catalogue", "vectors-0.bin"),
            ("catalogue", "items-0.json"),
        ):
            folder = broken / f"{damage} {name}"
            shutil.copytree(site / part, folder, copy_function=os.link)
            content = (folder / name).read_bytes()
            (folder / name).unlink()
            if damage == "cut":
                (folder / name).write_bytes(content[: len(content) // 3])
            calls.append({"do": "load" if part == "model" else "open", "folder": f"{damage} {name}/"})
            if name in ("vectors-0.bin", "items-0.json"):
                calls.append({"do": "search", "text": "dock", "k": 3})
    calls += [{"do": "open"}, {"do": "search", "text": "dock", "k": 3}, {"do": "stopped"}]
    first, *results = node(broken, calls)
    assert "error" not in first
    *results, opened, found, stopped = results
    for call, result in zip(calls[1:], results, strict=False):
        fine = call["do"] == "open" and "catalogue.json" not in call["folder"]  # its parts come later
        assert fine or result["ours"], call
    assert opened["items"] and len(found) == 3 and stopped["name"] == "AbortError"
    for name in RUNTIMES:
        content = (site / name).read_bytes()
        (broken / name).unlink()
        (broken / name).write_bytes(content[:1000])
    assert ".wasm is damaged" in node(broken, [{"do": "load"}])[0]["error"]


def test_the_committed_scripts_are_small_and_those_of_the_sources(repository):
    import gzip

    static = repository / "src" / "leanmatch" / "web" / "static"
    if not static.is_dir():
        pytest.skip("the sources are not here: an installed package is tested")
    assert {path.name for path in static.iterdir()} == set(BUILT)
    scripts = [(static / name).read_bytes() for name in ("leanmatch.js", "worker.js")]
    assert sum(len(gzip.compress(script)) for script in scripts) <= 60_000
    lock = (repository / "web" / "package-lock.json").read_text(encoding="utf-8")
    assert '"resolved"' not in lock
    if not (repository / "web" / "node_modules").is_dir() or shutil.which("node") is None:
        pytest.skip(
            "THE COMMITTED SCRIPTS ARE NOT COMPARED WITH THEIR SOURCES: no web/node_modules (make web)"
        )
    check = ["node", str(repository / "web" / "scripts" / "build.mjs"), "--check"]
    done = subprocess.run(check, capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 0, done.stderr
