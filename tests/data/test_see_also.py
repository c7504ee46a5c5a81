"""The See Also graph: a made-up package for every rule, numpy for the real thing."""

from __future__ import annotations

import json
import sys
import warnings

import pyarrow.parquet as pq
import pytest

from leanmatch.data.see_also.build import split_of, write_see_also
from leanmatch.errors import DataError, LeanmatchError, MissingExtraError, UsageError

pytest.importorskip("numpydoc", reason="the demo extra (numpydoc) is not installed")

FILES = {
    "__init__.py": '''
"""Toy."""
import sys
import warnings
__version__ = "3.4"
warnings.warn("noise at import")
print("noise on stdout")
print("noise on stderr", file=sys.stderr)
from toyshop.inner.core import Shelf, hidden_helper, stack, unstack, _private
__all__ = ["Shelf", "stack", "unstack"]
''',
    "inner/__init__.py": '"""Inner."""\n',
    "inner/core.py": '''
class _Base:
    def shared(self):
        """Do the shared thing.

        See Also
        --------
        stack : Module function.
        """

class _Access:
    def lower(self):
        """Lower all labels.

        See Also
        --------
        Shelf.put : Elsewhere.
        """

class Shelf(_Base):
    """Hold boxes in a row.

    See Also
    --------
    toyshop.stack : Absolute.
    no_such_thing, size
    """
    label = _Access
    @property
    def size(self):
        """Number of boxes."""
    def put(self):
        """Put one box.

        See Also
        --------
        take : Same class.
        Shelf.put : Itself.
        :meth:`~toyshop.Shelf.shared` : With a role.
        """
    def take(self):
        """Take one box.

        See Also
        --------
        put : The reverse.
        """
    @classmethod
    def of(cls):
        """Build from boxes."""
    def bare(self):
        pass

def stack():
    """Stack `all` :func:`boxes`,
    on two lines.

    See Also
    --------
    unstack
    twin : Two of these.
    json.dumps
    """

def unstack():
    """Undo a stack."""

def hidden_helper():
    """Help in hiding."""

def _private():
    """Never seen."""
''',
    "other.py": '''
"""Other."""
from toyshop.inner.core import stack as pile
def twin():
    """First of two.

    See Also
    --------
    pile
    """
def echo():
    """Say it again."""
''',
    "more.py": '''
"""More."""
def twin():
    """Second of two."""
def echo():
    """Say it again."""
''',
    "broken.py": "import a_library_that_nobody_has\n",
    "exits.py": "raise SystemExit(3)\n",
    "malformed.py": '''
"""Malformed."""
def odd():
    """Break the rules.

    See Also
    --------
    >>> not a name !!
    """
''',
    "__main__.py": "raise RuntimeError('__main__ was imported')\n",
    "conftest.py": "raise RuntimeError('conftest was imported')\n",
    "setup.py": "raise RuntimeError('setup was imported')\n",
    "tests/__init__.py": "raise RuntimeError('tests were imported')\n",
    "_secret.py": "raise RuntimeError('a private module was imported')\n",
}


@pytest.fixture
def toyshop(tmp_path, monkeypatch):
    root = tmp_path / "site"
    for name, content in FILES.items():
        file = root / "toyshop" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding="utf-8")
    monkeypatch.syspath_prepend(str(root))
    yield root
    for name in [name for name in sys.modules if name.split(".")[0] == "toyshop"]:
        del sys.modules[name]


def items_of(folder):
    return {row["id"]: row for row in map(json.loads, (folder / "items.jsonl").read_text().splitlines())}


def pairs_of(folder):
    return pq.read_table(folder / "pairs.parquet").to_pylist()


def test_items(toyshop, tmp_path):
    write_see_also(tmp_path / "out", ["toyshop"])
    items = items_of(tmp_path / "out")
    assert items["toyshop.Shelf.shared"]["text"] == "Shelf.shared: Do the shared thing."
    assert items["toyshop.stack"] == {
        "id": "toyshop.stack",
        "text": "stack: Stack all boxes, on two lines.",
        "package": "toyshop",
        "kind": "function",
    }
    assert items["toyshop.Shelf.of"]["kind"] == "method" and items["toyshop.Shelf"]["kind"] == "class"
    assert items["toyshop.Shelf.label.lower"]["text"] == "Shelf.label.lower: Lower all labels."
    assert not [
        name for name in items if "_private" in name or "bare" in name or "size" in name or "pile" in name
    ]
    texts = [row["text"] for row in items.values()]
    assert len(set(texts)) == len(texts) and "echo: Say it again." in texts


def test_pairs_and_fates(toyshop, tmp_path):
    summary = write_see_also(tmp_path / "out", ["toyshop"])
    rows = pairs_of(tmp_path / "out")
    assert {(row["anchor_id"], row["positive_id"]) for row in rows} == {
        ("toyshop.Shelf", "toyshop.stack"),
        ("toyshop.Shelf.put", "toyshop.Shelf.take"),  # both list each other: one row
        ("toyshop.Shelf.put", "toyshop.Shelf.shared"),
        ("toyshop.Shelf.shared", "toyshop.stack"),
        ("toyshop.Shelf.label.lower", "toyshop.Shelf.put"),
        ("toyshop.other.twin", "toyshop.stack"),  # under another name
        ("toyshop.stack", "toyshop.unstack"),
    }
    items = items_of(tmp_path / "out")
    for row in rows:
        assert row["anchor"] == items[row["anchor_id"]]["text"] and row["package"] == "toyshop"
        assert row["positive"] == items[row["positive_id"]]["text"] and row["split"] == split_of(
            row["anchor_id"]
        )
    one = summary.packages["toyshop"]
    assert one.references == {"linked": 8, "self": 1, "cross_package": 0, "ambiguous": 1, "unresolved": 3}
    assert one.most_common_unresolved == {"json.dumps": 1, "no_such_thing": 1, "size": 1}
    assert one.same_text == 1 and one.unreadable_docstrings == 1 and one.version == "3.4"
    texts = {split: set() for split in ("train", "valid", "test")}
    for row in rows:
        texts[row["split"]] |= {row["anchor"], row["positive"]}
    assert one.shared_texts == len(texts["train"] & texts["test"])
    assert summary.pairs == len(rows) == one.pairs == sum(one.splits.values())
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == summary.to_json()


def test_what_must_not_be_imported_is_not_and_failures_are_noted(toyshop, tmp_path):
    summary = write_see_also(tmp_path / "out", ["toyshop"])
    failed = summary.packages["toyshop"].failed_modules
    assert (
        failed["toyshop.broken"].startswith("ModuleNotFoundError")
        and failed["toyshop.exits"] == "SystemExit: 3"
    )
    assert set(failed) == {"toyshop.broken", "toyshop.exits"}


def test_no_noise(toyshop, tmp_path, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_see_also(tmp_path / "out", ["toyshop"])
    assert capfd.readouterr() == ("", "")


def test_same_bytes_every_time(toyshop, tmp_path):
    write_see_also(tmp_path / "a", ["toyshop"])
    write_see_also(tmp_path / "b", ["toyshop"])
    for name in ("pairs.parquet", "items.jsonl", "summary.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_overwrite_replaces_only_what_it_wrote(toyshop, tmp_path):
    write_see_also(tmp_path / "out", ["toyshop"])
    with pytest.raises(LeanmatchError, match="exists already"):
        write_see_also(tmp_path / "out", ["toyshop"])
    write_see_also(tmp_path / "out", ["toyshop"], overwrite=True)
    (tmp_path / "out" / "mine.txt").write_text("x")
    with pytest.raises(UsageError, match="was not written by this command"):
        write_see_also(tmp_path / "out", ["toyshop"], overwrite=True)
    assert (tmp_path / "out" / "mine.txt").exists()


def test_missing_package_leaves_nothing_behind(tmp_path):
    with pytest.raises(MissingExtraError, match=r"a_package_nobody_has.*(\n.*)?leanmatch\[demo\]"):
        write_see_also(tmp_path / "out", ["a_package_nobody_has"])
    assert list(tmp_path.iterdir()) == []


def test_missing_numpydoc(toyshop, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "numpydoc.docscrape", None)
    with pytest.raises(MissingExtraError, match="needs numpydoc"):
        write_see_also(tmp_path / "out", ["toyshop"])


@pytest.mark.parametrize("packages", [[], ["toyshop", "toyshop"]])
def test_package_lists_that_make_no_sense(tmp_path, packages):
    with pytest.raises(UsageError, match="each once"):
        write_see_also(tmp_path / "out", packages)


def test_a_package_without_links(tmp_path, monkeypatch):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "lonelypackage.py").write_text('def f():\n    """Be alone."""\n')
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    with pytest.raises(DataError, match="no docstring of lonelypackage"):
        write_see_also(tmp_path / "out", ["lonelypackage"])


def test_split_shares():
    splits = [split_of(f"package.function_{i}") for i in range(5000)]
    assert splits.count("test") / 5000 == pytest.approx(0.2, abs=0.02)
    assert splits.count("valid") / 5000 == pytest.approx(0.1, abs=0.02)


def test_numpy(tmp_path):
    summary = write_see_also(tmp_path / "out", ["numpy"])
    rows, items = pairs_of(tmp_path / "out"), items_of(tmp_path / "out")
    one = summary.packages["numpy"]
    assert one.items > 1000 and one.pairs > 1000 and not one.failed_modules
    assert one.shared_texts > 0
    assert one.references["linked"] > 0.85 * sum(one.references.values())
    linked = {frozenset((row["anchor_id"], row["positive_id"])) for row in rows}
    assert len(linked) == len(rows) and all(len(pair) == 2 for pair in linked)
    assert frozenset(("numpy.sin", "numpy.arcsin")) in linked  # ufuncs count as functions
    assert frozenset(("numpy.ndarray.sum", "numpy.sum")) in linked
    assert (
        items["numpy.concatenate"]["text"] == "concatenate: Join a sequence of arrays along an existing axis."
    )
    by_anchor = {}
    for row in rows:
        assert by_anchor.setdefault(row["anchor_id"], row["split"]) == row["split"]
    assert set(by_anchor.values()) == {"train", "valid", "test"}
