"""A catalogue as a site: model, vectors, items, filter columns and a page, for any host of static files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from leanmatch.errors import FormatError, LeanmatchError, UsageError
from leanmatch.files import atomic_folder
from leanmatch.index import Catalogue, is_catalogue
from leanmatch.index.encoders import encoder_for
from leanmatch.runtime.web import export_web_model
from leanmatch.web.catalogue import WebModel, as_json, write_catalogue

MANIFEST = "site.json"
FORMAT, FORMAT_VERSION = "leanmatch-web-site", 1
RUNTIMES = ("leanmatch.wasm", "leanmatch-relaxed.wasm")
"""The runtime without and with relaxed SIMD: a browser loads one of them."""
BUILT = ("leanmatch.js", "worker.js", *RUNTIMES, "LICENSES.txt")
"""Files of ``static``: built from ``csrc/`` and ``web/`` by ``make web``."""
PAGE = ("index.html", "app.js", "page.css", "icon.svg", "sw.js", "example.html", "example.js")
"""Files of ``page``."""
SHARED = ("dom.js", "filters.js", "results.js", "style.css")
"""Files that the page has in common with the server's."""

_KEPT = ("./", *(name for name in (*BUILT, *PAGE, *SHARED) if name not in {"sw.js", "LICENSES.txt"}))
"""What the service worker keeps, beside the manifests; of the runtimes the one that the browser loads."""


@dataclass(frozen=True)
class SavedSite:
    """What was exported.

    Attributes:
        folder: where.
        items: number of items.
        bytes: by part: ``model``, ``runtime``, ``scripts``, ``page``, ``vectors``, ``items``, ``columns``.
        notes: what the user should know.
    """

    folder: Path
    items: int
    bytes: Mapping[str, int]
    notes: tuple[str, ...] = ()


def export_site(
    catalogue: str | Path,
    folder: str | Path,
    *,
    model: str | None = None,
    title: str = "leanmatch",
    overwrite: bool = False,
) -> SavedSite:
    """Write a site that searches a catalogue in the visitor's browser, without a server.

    Args:
        catalogue: the catalogue's folder.
        folder: where to.
        model: the model's folder, where it has moved since the catalogue was made.
        title: heading of the page.
        overwrite: replace a site that is there.

    Raises:
        FormatError: no catalogue, or a damaged one.
        ModelError: the catalogue's model is not there any more, or cannot run in a browser.
        LeanmatchError: ``folder`` is there and ``overwrite`` is false, or it holds files that no site has.
    """
    if not is_catalogue(catalogue):
        raise FormatError(
            f"{catalogue} is no catalogue",
            remedy="name a folder that create_catalogue made",
            command="name a folder that leanmatch index build made",
        )
    if not title.strip():
        raise UsageError("the title is blank", remedy="give the heading of the page, or leave it out")
    check_folder(Path(folder), overwrite=overwrite)
    opened = Catalogue.open(catalogue)
    named = opened.manifest.model
    encoder = encoder_for(opened.manifest, model)
    with atomic_folder(folder, overwrite=overwrite) as site:
        export_web_model(model or named.name, site / "model")
        manifest = json.loads((site / "model" / "model.json").read_text(encoding="utf-8"))
        weights = manifest["files"]["model.bin"]["sha256"]
        name = Path(named.name).name
        web_model = WebModel(name, weights, encoder.prompts.query, encoder.prompts.document)
        sizes = write_catalogue(opened, site / "catalogue", web_model)
        _copy_page(site)
        _seal(site, title.strip(), name)
        measured = _measured(site, sizes)
    notes = ("search in the page goes by vectors alone, not by terms",) if opened.hybrid else ()
    return SavedSite(Path(folder), len(opened), measured, notes)


def check_folder(folder: Path, *, overwrite: bool) -> None:
    """Refuse to replace anything but a site, before the work begins.

    Raises:
        LeanmatchError: the folder is there and ``overwrite`` is false, or it holds files that no site has.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not overwrite:
        raise LeanmatchError(
            f"{folder} exists already",
            remedy="name another folder or pass overwrite=True",
            command="name another folder or pass --overwrite",
        )
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        own = {MANIFEST, *manifest["files"]} if manifest["format"] == FORMAT else set()
    except (OSError, ValueError, KeyError, TypeError):
        own = set()
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
    foreign = sorted(set(found) - own) if folder.is_dir() else [folder.name]
    if foreign:
        raise LeanmatchError(
            f"{folder} is no site of leanmatch, or holds more than that: {', '.join(foreign[:3])}",
            remedy="name another folder, or move these files away",
        )


def _copy_page(site: Path) -> None:
    own = files("leanmatch.web")
    sources = {
        **{name: own / "static" / name for name in BUILT},
        **{name: own / "page" / name for name in PAGE},
        **{name: files("leanmatch.serve") / "static" / name for name in SHARED},
    }
    for name, source in sources.items():
        (site / name).write_bytes(source.read_bytes())


def _seal(site: Path, title: str, model: str) -> None:
    """Write the site's manifest, and into the service worker what it keeps and a version of that content."""
    manifests = ("model/model.json", "catalogue/catalogue.json")
    names = sorted(path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file())
    content: dict[str, Any] = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "title": title,
        "model": model,
        "files": names,
    }
    (site / MANIFEST).write_bytes(as_json(content))
    kept = [*_KEPT, MANIFEST, *manifests]
    digest = hashlib.sha256()
    for name in kept[1:]:
        digest.update((site / name).read_bytes())
    worker = (site / "sw.js").read_text(encoding="utf-8")
    for mark, value in (
        ('"@VERSION@"', json.dumps(digest.hexdigest()[:16])),
        ('["@FILES@"]', json.dumps(kept)),
    ):
        assert worker.count(mark) == 1, mark
        worker = worker.replace(mark, value)
    (site / "sw.js").write_text(worker, encoding="utf-8")


def _measured(site: Path, catalogue: Mapping[str, int]) -> dict[str, int]:
    size = {
        path.relative_to(site).as_posix(): path.stat().st_size for path in site.rglob("*") if path.is_file()
    }
    scripts = ("leanmatch.js", "worker.js")
    top = {name for name in size if "/" not in name}
    return {
        "model": sum(count for name, count in size.items() if name.startswith("model/")),
        "runtime": sum(size[name] for name in RUNTIMES),
        "scripts": sum(size[name] for name in scripts),
        "page": sum(size[name] for name in top - {*scripts, *RUNTIMES}),
        "vectors": catalogue["vectors"],
        "items": catalogue["items"],
        "columns": catalogue["columns"] + catalogue["manifest"],
    }
