"""A catalogue of items that come block by block: the same files as of all at once, in little memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from leanmatch.errors import DataError, ModelError
from leanmatch.index import Catalogue, Item, ModelIdentity, create_from_blocks, create_from_vectors
from leanmatch.index.storage.manifest import read_manifest

MODEL = ModelIdentity("made", "0" * 64, "", 6)
COLUMNS = {"price": "number", "name": "text", "stock": "boolean", "count": "integer"}


def made(rows, dimension=6):
    vectors = np.random.default_rng(0).normal(size=(rows, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def items_of(rows):
    """Each block lacks some column, and only late rows make ``price`` a number."""
    return [
        Item(
            f"ü{row}",
            f"thing {row}",
            {"price": row if row < 20 else row / 2, "name": "ab"[row % 2] if row > 9 else None}
            | ({"stock": row % 3 == 0} if row < 15 else {"count": 2**53 + row}),
        )
        for row in range(rows)
    ]


def cut(items, vectors, *sizes):
    start = 0
    for size in sizes:
        yield items[start : start + size], vectors[start : start + size]
        start += size


@pytest.mark.parametrize("sizes", [(31,), (1, 0, 7, 23), (16, 15)])
def test_blocks_give_the_files_of_all_at_once(tmp_path, sizes):
    items, vectors = items_of(31), made(31)
    create_from_vectors(tmp_path / "whole", items, vectors, MODEL)
    change = create_from_blocks(tmp_path / "blocks", cut(items, vectors, *sizes), 31, COLUMNS, MODEL)
    assert (change.items, change.added, change.encoded) == (31, 31, 0)
    ours, theirs = (read_manifest(tmp_path / name) for name in ("blocks", "whole"))
    assert list(ours.columns.items()) == list(theirs.columns.items()) == list(COLUMNS.items())
    assert [file.sha256 for file in ours.files] == [file.sha256 for file in theirs.files]
    catalogue = Catalogue.open(tmp_path / "blocks")
    assert np.array_equal(catalogue.vectors(range(31)), vectors)
    assert catalogue.metadata(25) == {"price": 12.5, "name": "b", "count": 2**53 + 25}


def test_no_rows(tmp_path):
    create_from_blocks(tmp_path, [], 0, {}, MODEL)
    assert len(Catalogue.open(tmp_path)) == 0


def test_blocks_that_are_not_sound(tmp_path):
    items, vectors = items_of(31), made(31)
    with pytest.raises(DataError, match="stands on rows 3 and 13"):
        again = [*items[:12], Item("ü2", "again"), *items[13:]]
        create_from_blocks(tmp_path, cut(again, vectors, 10, 21), 31, COLUMNS, MODEL)
    with pytest.raises(DataError, match="stands on rows 12 and 13"):
        again = [*items[:12], Item("ü11", "again"), *items[13:]]
        create_from_blocks(tmp_path, cut(again, vectors, 10, 21), 31, COLUMNS, MODEL)
    with pytest.raises(DataError, match="have 10 items, not 31"):
        create_from_blocks(tmp_path, cut(items, vectors, 10), 31, COLUMNS, MODEL)
    with pytest.raises(DataError) as caught:
        create_from_blocks(tmp_path, cut(items, vectors, 10, 21), 31, {**COLUMNS, "price": "boolean"}, MODEL)
    assert caught.value.line == 1
    with pytest.raises(DataError) as caught:
        create_from_blocks(tmp_path, cut(items, vectors, 10, 21), 31, {**COLUMNS, "name": "number"}, MODEL)
    assert caught.value.line == 11
    with pytest.raises(ModelError, match="shape"):
        create_from_blocks(tmp_path, [(items, vectors[:5])], 31, COLUMNS, MODEL)
    assert [path.name for path in tmp_path.iterdir() if path.suffix in {".npy", ".npz", ".json"}] == []
    assert create_from_blocks(tmp_path, cut(items, vectors, 31), 31, COLUMNS, MODEL).items == 31


def test_neither_vectors_nor_items_are_in_memory_at_once(tmp_path):
    """64 MB of vectors in blocks of 1 MB."""
    blocks, size, dimension = 64, 512, 512
    block = made(size, dimension)

    def made_blocks():
        for number in range(blocks):
            first = number * size
            yield [Item(f"i{row}", "thing") for row in range(first, first + size)], block

    tracemalloc.start()
    try:
        model = ModelIdentity("made", "0" * 64, "", dimension)
        create_from_blocks(tmp_path, made_blocks(), blocks * size, {}, model)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (tmp_path / "g00000001-vectors.npy").stat().st_size > 64 << 20
    assert peak < 20 << 20
