"""Catalogues: what is stored comes back, changes do what they say, models do not mix, damage is told."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("faiss", reason="faiss-cpu is not installed")
sys.path.insert(0, str(Path(__file__).parent))
from catalogue_models import HashEncoder, items_of_shop, state_of

from leanmatch.errors import DataError, FormatError, LeanmatchError, ModelError, UsageError
from leanmatch.index import (
    Catalogue,
    Item,
    WriteOptions,
    check_files,
    create_catalogue,
    delete_items,
    parse_filter,
    put_extra,
    read_manifest,
    rebuild_catalogue,
    upsert_items,
)
from leanmatch.index.storage import staging, transaction
from leanmatch.index.storage.lock import writer_lock
from leanmatch.index.storage.transaction import UnwritableError


@pytest.fixture
def encoder():
    return HashEncoder()


@pytest.fixture
def folder(tmp_path, encoder):
    create_catalogue(tmp_path / "c", items_of_shop(20), encoder)
    encoder.encoded.clear()
    return tmp_path / "c"


def test_what_went_in_comes_out(folder, encoder):
    catalogue = Catalogue.open(folder)
    assert len(catalogue) == 20 and catalogue.ids == [f"i{n}" for n in range(20)]
    assert catalogue.manifest.columns == {
        "category": "text",
        "price": "number",
        "stock": "boolean",
        "code": "text",
    }
    assert catalogue.metadata(7) == {"category": "Tools", "stock": False, "code": "07"}
    vectors = encoder([catalogue.text(row) for row in range(20)])
    assert np.array_equal(catalogue.vectors(range(20)), vectors)
    (found,) = catalogue.search(vectors[3:4], 2)
    assert found.rows[0] == 3 and found.scores[0] == pytest.approx(1) and found.plan.path == "exact"


def test_only_new_texts_are_encoded(folder, encoder):
    items = items_of_shop(22)
    items[3] = Item("i3", "a new text", items[3].metadata)
    items[4] = Item("i4", items[4].text, {**items[4].metadata, "price": 99})
    items.append(Item("twin", items[0].text))
    change = upsert_items(folder, items, encoder)
    assert encoder.encoded == ["a new text", "thing number 20", "thing number 21"]
    assert (change.added, change.updated, change.unchanged) == (3, 2, 18)
    assert (change.encoded, change.reused, change.items, change.generation) == (3, 2, 23, 2)
    catalogue = Catalogue.open(folder)
    assert catalogue.text(catalogue.row("i3")) == "a new text"
    assert catalogue.metadata(catalogue.row("i4"))["price"] == 99
    assert np.array_equal(
        catalogue.vectors([catalogue.row("twin")]), catalogue.vectors([catalogue.row("i0")])
    )


def test_the_same_again_changes_nothing(folder, encoder):
    before = sorted(path.name for path in folder.iterdir())
    change = upsert_items(folder, items_of_shop(20), encoder)
    assert change.unchanged == 20 and change.generation == 1 and not encoder.encoded
    assert sorted(path.name for path in folder.iterdir()) == before


def test_update_keeps_columns_that_are_not_named(folder, encoder):
    change = upsert_items(folder, [Item("i1", "thing number 1", {"price": 3})], encoder, patch=True)
    assert change.updated == 1 and not encoder.encoded
    catalogue = Catalogue.open(folder)
    assert catalogue.metadata(catalogue.row("i1")) == {
        "category": "Tools",
        "price": 3.0,
        "stock": False,
        "code": "01",
    }
    with pytest.raises(DataError, match="1 identifiers are not in the catalogue"):
        upsert_items(folder, [Item("new", "x")], encoder, patch=True)


def test_delete_and_put_back(folder, encoder):
    change = delete_items(folder, ["i2", "i5", "i2", "nothing"])
    assert (change.deleted, change.unknown, change.items) == (2, 1, 18)
    catalogue = Catalogue.open(folder)
    assert catalogue.row("i2") is None and "i5" not in catalogue.ids
    (found,) = catalogue.search(encoder(["thing number 2"]), 18)
    assert len(found.rows) == 18 and found.scores[0] < 0.999
    change = upsert_items(folder, [items_of_shop(20)[2]], encoder)
    assert change.added == 1 and change.encoded == 0  # its vector is still there
    assert Catalogue.open(folder).row("i2") == 18


def test_delete_everything(folder, encoder):
    delete_items(folder, [f"i{n}" for n in range(20)])
    catalogue = Catalogue.open(folder)
    (found,) = catalogue.search(encoder(["thing"]), 3)
    assert len(catalogue) == 0 and not len(found.rows)
    assert catalogue.recommend(encoder, ["thing"], filter=parse_filter("price > 1")) == [[]]
    assert upsert_items(folder, items_of_shop(2), encoder).items == 2


def test_many_changes_are_rewritten_as_one_segment(folder, encoder):
    said = []
    for n in range(transaction.MOST_SEGMENTS + 1):
        upsert_items(folder, items_of_shop(1, start=100 + n), encoder, WriteOptions(say=said.append))
        if n == 3:
            delete_items(folder, ["i1"])
    assert said == ["rewriting the catalogue as one segment"]
    manifest = read_manifest(folder)
    assert len(manifest.segments) == 2 and manifest.segments[0].dead is None
    catalogue = Catalogue.open(folder)
    names = [f"i{n}" for n in range(20) if n != 1] + [f"i{100 + n}" for n in range(13)]
    assert catalogue.ids == names
    assert np.array_equal(catalogue.vectors(range(len(names))), encoder(catalogue.texts))


def test_another_model_is_refused_and_rebuild_takes_it(folder, encoder):
    other = HashEncoder(dimension=5, name="hash-2")
    before = state_of(Catalogue.open(folder))
    with pytest.raises(ModelError, match="their vectors do not mix") as caught:
        upsert_items(folder, items_of_shop(1), other)
    assert "index rebuild" in caught.value.command and state_of(Catalogue.open(folder)) == before
    delete_items(folder, ["i0"])
    change = rebuild_catalogue(folder, other)
    assert change.encoded == 19 and change.items == 19
    catalogue = Catalogue.open(folder)
    assert catalogue.dimension == 5 and catalogue.manifest.model.name == "hash-2"
    assert catalogue.metadata(0) == {"category": "Tools", "price": 0.5, "stock": False, "code": "01"}
    other.encoded.clear()
    assert rebuild_catalogue(folder, other).reused == 19 and not other.encoded


def test_overwrite_reuses_vectors(folder, encoder):
    with pytest.raises(UsageError, match="holds a catalogue already"):
        create_catalogue(folder, items_of_shop(3), encoder)
    change = create_catalogue(folder, items_of_shop(21), encoder, overwrite=True)
    assert change.encoded == 1 and change.reused == 20 and encoder.encoded == ["thing number 20"]


def test_a_killed_build_goes_on(tmp_path, encoder, monkeypatch):
    monkeypatch.setattr(staging, "CHUNK_TEXTS", 10)
    monkeypatch.setattr(transaction, "_SMALL", 5)

    class Dies(HashEncoder):
        def __call__(self, texts):
            if len(self.encoded) >= 30:
                raise KeyboardInterrupt
            return super().__call__(texts)

    items, dies = items_of_shop(57), Dies()
    with pytest.raises(KeyboardInterrupt):
        create_catalogue(tmp_path / "c", items, dies)
    with pytest.raises(FormatError, match="was being built"):
        Catalogue.open(tmp_path / "c")
    chunks = sorted((tmp_path / "c" / ".building").rglob("chunk-*"))
    assert len(chunks) == 3
    chunks[1].write_bytes(chunks[1].read_bytes()[:50])  # a damaged chunk is encoded again
    steps = []
    change = create_catalogue(
        tmp_path / "c", items, encoder, WriteOptions(progress=lambda done, total: steps.append((done, total)))
    )
    assert encoder.encoded == [one.text for one in [*items[10:20], *items[30:]]]
    assert change.encoded == 37 and steps[-1] == (37, 37)
    assert not (tmp_path / "c" / ".building").exists()
    assert np.array_equal(
        Catalogue.open(tmp_path / "c").vectors(range(57)), HashEncoder()([i.text for i in items])
    )


def test_columns_grow_and_widen(folder, encoder):
    upsert_items(folder, [Item("x", "x", {"size": 3, "price": 4})], encoder)
    upsert_items(folder, [Item("y", "y", {"size": 2.5})], encoder)
    catalogue = Catalogue.open(folder)
    assert catalogue.manifest.columns["size"] == "number"
    assert catalogue.metadata(catalogue.row("x")) == {"size": 3.0, "price": 4.0}
    assert len(catalogue.select(parse_filter("size >= 2.5"))) == 2
    with pytest.raises(DataError, match="holds values of type number") as caught:
        upsert_items(folder, [Item("z", "z", {"price": "much"})], encoder)
    assert caught.value.column == "price"


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([Item("a", "x"), Item("a", "y")], "stands on rows 1 and 2"),
        ([Item("a", " ")], "missing or blank"),
        ([Item("", "x")], "the identifier is missing"),
    ],
)
def test_items_that_are_none(tmp_path, encoder, items, message):
    with pytest.raises(DataError, match=message):
        create_catalogue(tmp_path / "c", items, encoder)
    assert not (tmp_path / "c").exists()


def test_encoders_that_cannot_be_used(tmp_path):
    with pytest.raises(ModelError, match="has no fingerprint"):
        create_catalogue(tmp_path / "c", items_of_shop(1), lambda texts: np.ones((len(texts), 3)))
    with pytest.raises(ModelError, match=r"shape \(1, 3\)"):
        create_catalogue(tmp_path / "c", items_of_shop(1), _Shaped(3))
    nan = _Shaped(4, fill=np.nan, said=4)
    with pytest.raises(ModelError, match="NaN"):
        create_catalogue(tmp_path / "d", items_of_shop(1), nan)


class _Shaped:
    """Says one dimension and gives another."""

    def __init__(self, given, fill=1.0, said=5):
        self.given, self.fill, self.dimension = given, fill, said
        self.name = self.fingerprint = "shaped"

    def __call__(self, texts):
        return np.full((len(texts), self.given), self.fill)


def test_one_writer_at_a_time(folder, encoder):
    with (
        writer_lock(folder),
        pytest.raises(LeanmatchError, match="another process is writing"),
    ):
        delete_items(folder, ["i1"])
    with writer_lock(folder):
        late = threading.Timer(0.15, lambda: None)
        late.start()
        with pytest.raises(LeanmatchError):
            delete_items(folder, ["i1"], WriteOptions(wait_seconds=0.05))
    assert delete_items(folder, ["i1"], WriteOptions(wait_seconds=5)).deleted == 1


def test_readers_are_never_blocked_and_never_see_a_mixture(folder, encoder):
    stop, seen, problems = threading.Event(), set(), []

    def read():
        while not stop.is_set():
            try:
                catalogue = Catalogue.open(folder)
                texts = {catalogue.text(row).rpartition(" v")[2] for row in range(len(catalogue))}
                seen.update(texts)
                if len(texts) != 1 or len(catalogue) != 20:
                    problems.append(texts)
            except Exception as error:
                problems.append(error)

    upsert_items(folder, [Item(f"i{n}", f"{n} v0") for n in range(20)], encoder)
    thread = threading.Thread(target=read)
    thread.start()
    for version in range(1, 25):
        upsert_items(folder, [Item(f"i{n}", f"{n} v{version}") for n in range(20)], encoder)
    stop.set()
    thread.join()
    assert not problems and len(seen) >= 2


def test_damage_is_told(folder):
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    vectors = folder / manifest.segments[0].vectors.name
    sound = vectors.read_bytes()
    vectors.write_bytes(sound[:-4] + b"\0\0\0\1")
    with pytest.raises(FormatError, match="SHA-256"):
        check_files(folder, manifest)
    vectors.write_bytes(sound[:-4])
    with pytest.raises(FormatError, match="bytes, not"):
        Catalogue.open(folder)
    vectors.write_bytes(b"\0" * len(sound))
    with pytest.raises(FormatError, match="is damaged"):
        Catalogue.open(folder)
    vectors.unlink()
    with pytest.raises(FormatError, match="is not there"):
        Catalogue.open(folder)
    with pytest.raises(FormatError, match="is missing"):
        check_files(folder, manifest)


@pytest.mark.parametrize(
    "hurt",
    ["", "[]", '{"format": "leanmatch-catalogue-1"}', '{"format": "other"}', "segment", "path", "items"],
)
def test_damaged_manifest(folder, hurt):
    path = folder / "manifest.json"
    document = json.loads(path.read_text())
    if hurt == "segment":
        document["segments"][0].pop("rows")
    if hurt == "path":
        document["segments"][0]["vectors"]["name"] = "../../etc/passwd"
    if hurt == "items":
        document["items"] = 3
    path.write_text(json.dumps(document) if hurt.isalpha() else hurt)
    with pytest.raises(FormatError, match=r"damaged|has the format 'other'"):
        Catalogue.open(folder)


def test_folders_that_are_none(tmp_path, encoder):
    with pytest.raises(FormatError, match="is no catalogue"):
        Catalogue.open(tmp_path)
    with pytest.raises(FormatError, match="is no catalogue"):
        delete_items(tmp_path, ["a"])
    (tmp_path / "letter.txt").write_text("x")
    with pytest.raises(UsageError, match="holds other files"):
        create_catalogue(tmp_path, items_of_shop(1), encoder)
    with pytest.raises(UsageError, match="is a file"):
        create_catalogue(tmp_path / "letter.txt", items_of_shop(1), encoder)


def test_extras_stay_with_the_model(folder, encoder):
    put_extra(folder, "reference", lambda path: path.write_text("{}"), ".json")
    upsert_items(folder, items_of_shop(1, start=30), encoder)
    file = read_manifest(folder).extras["reference"]
    assert (folder / file.name).read_text() == "{}" and read_manifest(folder).generation == 3
    rebuild_catalogue(folder, HashEncoder(name="hash-2"))
    assert not read_manifest(folder).extras and not (folder / file.name).exists()


def test_a_full_disk_leaves_the_catalogue_and_says_so(tmp_path, encoder, monkeypatch):
    folder = tmp_path / "c"
    create_catalogue(folder, items_of_shop(20), encoder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(*_, **__):
        raise OSError("320 requested and 0 written")  # what numpy makes of a full disk

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(UnwritableError, match=r"0 written(.|\n)*make room"):
        upsert_items(folder, [Item("new", "purple socks")], encoder)
    monkeypatch.undo()
    assert {name: (folder / name).read_bytes() for name in before} == before
    assert upsert_items(folder, [Item("new", "purple socks")], encoder).added == 1
    assert Catalogue.open(folder).row("new") == 20


def test_a_catalogue_made_anew_has_another_identity(folder, encoder):
    first = read_manifest(folder)
    upsert_items(folder, items_of_shop(1, start=30), encoder)
    changed = read_manifest(folder)
    assert first.identity and changed.identity == first.identity and changed.version != first.version
    rebuild_catalogue(folder, HashEncoder(name="hash-2"))
    assert read_manifest(folder).identity == first.identity
    create_catalogue(folder, items_of_shop(3), encoder, overwrite=True)
    over = read_manifest(folder)
    shutil.rmtree(folder)
    create_catalogue(folder, items_of_shop(20), encoder)
    anew = read_manifest(folder)
    assert len({first.identity, over.identity, anew.identity}) == 3
    assert anew.generation == first.generation == 1 and anew.version != first.version


def test_a_catalogue_without_an_identity_opens_and_gets_one_with_its_next_change(folder, encoder):
    path = folder / "manifest.json"
    document = json.loads(path.read_text())
    document.pop("identity")  # as versions before it wrote them
    path.write_text(json.dumps(document))
    assert Catalogue.open(folder).manifest.identity == ""
    delete_items(folder, ["i1"])
    assert len(read_manifest(folder).identity) == 32


def resigned(folder, file, content):
    """Write a file and its right checksum: what no checksum tells."""
    path = folder / file
    path.unlink()
    path.write_bytes(content)
    manifest = folder / "manifest.json"
    text = manifest.read_text()
    for stored in read_manifest(folder).files:
        if stored.name == file:
            text = text.replace(stored.sha256, hashlib.sha256(content).hexdigest())
            text = text.replace(f'"bytes": {stored.bytes}', f'"bytes": {len(content)}')
    manifest.write_text(text)


@pytest.mark.parametrize("resign", [False, True])
def test_nothing_is_answered_or_written_from_damaged_vectors(folder, encoder, resign):
    name = read_manifest(folder).segments[0].vectors.name
    Catalogue.open(folder)  # it was sound a moment ago
    content = bytearray((folder / name).read_bytes())
    content[-1] = 0x7F  # one byte: a number becomes 1e38 or NaN
    if resign:
        resigned(folder, name, bytes(content))
    else:
        (folder / name).write_bytes(content)
    said = "row 20 has the length" if resign else "its SHA-256 is"
    for use in (
        lambda: Catalogue.open(folder),
        lambda: upsert_items(folder, items_of_shop(1, start=40), encoder),
        lambda: rebuild_catalogue(folder, encoder),
    ):
        with pytest.raises(FormatError, match=said) as caught:
            use()
        assert name in str(caught.value)


def test_damaged_metadata_is_told_on_open(folder):
    name = read_manifest(folder).segments[0].items.name
    content = (folder / name).read_bytes()
    assert content.count(b"Tools") == 7
    (folder / name).write_bytes(content.replace(b"Tools", b"Fools"))
    with pytest.raises(FormatError, match=name):
        Catalogue.open(folder)


def test_vectors_are_of_length_1_or_zero(tmp_path):
    zero = _Shaped(4, fill=0.0, said=4)  # a text without any known token
    create_catalogue(tmp_path / "c", items_of_shop(2), zero)
    assert not Catalogue.open(tmp_path / "c").vectors([0, 1]).any()
    with pytest.raises(ModelError, match="not of length 1"):
        create_catalogue(tmp_path / "d", items_of_shop(2), _Shaped(4, fill=1.0, said=4))


@pytest.mark.parametrize(
    ("hurt", "said"),
    [
        (lambda d: d["segments"].append(d["segments"][0]) or d.update(items=40), "twice"),
        (lambda d: d["segments"][0].update(rows=2_000_000_000) or d.update(items=2_000_000_000), "shape"),
        (lambda d: d["segments"][0].update(rows=-1), "count"),
        (lambda d: d["segments"][0].update(rows=20.0), "count"),
        (lambda d: d["segments"][0].update(dead_rows=3), "dead rows"),
        (lambda d: d["segments"][0]["vectors"].update(name="manifest.json"), "file name"),
        (lambda d: d["segments"][0]["vectors"].update(name="/etc/passwd"), "file name"),
        (lambda d: d["segments"][0]["vectors"].update(name="..\\..\\x"), "file name"),
        (lambda d: d["model"].update(dimension=0), "count"),
        (lambda d: d["model"].update(dimension=2**30), "dimensions"),
        (lambda d: d["columns"].update(code="integer"), "said to be of type integer"),
        (lambda d: d["columns"].update(price="money"), "column types"),
        (lambda d: d.update(source={"id": "id", "text": "text"}), "text columns"),
    ],
)
def test_manifests_that_ask_for_odd_things(folder, hurt, said):
    path = folder / "manifest.json"
    document = json.loads(path.read_text())
    hurt(document)
    path.write_text(json.dumps(document))
    with pytest.raises(FormatError, match=said):
        Catalogue.open(folder)


def test_a_deep_manifest(folder):
    (folder / "manifest.json").write_text('{"format": ' + "[" * 200_000)
    with pytest.raises(FormatError, match="RecursionError"):
        read_manifest(folder)


def test_an_array_that_asks_for_memory_is_refused_before_it_gets_any(folder):
    name = read_manifest(folder).segments[0].vectors.name
    content = (folder / name).read_bytes()
    assert content.count(b"(20, 8)") == 1
    large = content.replace(b"(20, 8)", b"(1000000000, 0)").replace(b" " * 8, b"", 1)
    resigned(folder, name, large[: len(content)])
    with pytest.raises(FormatError, match="1000000000"):
        Catalogue.open(folder)


def test_rows_that_are_gone_must_be_there(folder):
    delete_items(folder, ["i3", "i4"])
    file = read_manifest(folder).segments[0].dead.name
    sound = (folder / file).read_bytes()
    for rows in ([3, 3], [4, 3], [3, 20], [-1, 3]):
        resigned(folder, file, sound[:-16] + np.array(rows, np.int64).tobytes())
        with pytest.raises(FormatError, match="row numbers that do not exist"):
            Catalogue.open(folder)
