"""Our reader of numpy's files against numpy's own, on what leanmatch stores and on what it does not."""

from __future__ import annotations

import io

import numpy as np
import pytest

from leanmatch.index.storage.arrays import map_array, parse_array, read_array, read_arrays

STORED = [
    np.arange(6, dtype=np.float32).reshape(2, 3),
    np.zeros((0, 5), np.float32),
    np.arange(5, dtype=np.int64),
    np.array([True, False]),
    np.array([], np.uint8),
    np.array([1.5, -2]),
    np.array("leanmatch-vectors-1"),
    np.asfortranarray(np.ones((1, 4), np.float32)),
]


def saved(array, **options):
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


@pytest.mark.parametrize("array", STORED, ids=lambda array: f"{array.dtype}{array.shape}")
def test_the_same_as_numpy(tmp_path, array):
    content = saved(array)
    (tmp_path / "a.npy").write_bytes(content)
    for read in (parse_array(content), read_array(tmp_path / "a.npy"), map_array(tmp_path / "a.npy")):
        assert read.dtype == array.dtype and read.shape == array.shape
        np.testing.assert_array_equal(read, array)
    np.savez(tmp_path / "a.npz", one=array, two=STORED[0])
    both = read_arrays(tmp_path / "a.npz", ("one", "two"))
    np.testing.assert_array_equal(both["one"], array)
    for wrong in (content[:-1] if array.size else content[:-2], content + b"x", content[:9], b""):
        (tmp_path / "a.npy").write_bytes(wrong)
        for read_wrong in (read_array, map_array):
            with pytest.raises(ValueError, match=r"array|header"):
                read_wrong(tmp_path / "a.npy")


@pytest.mark.parametrize(
    "array",
    [
        np.ones((2, 3, 4), np.float32),
        np.ones(3, ">f4"),
        np.ones(3, np.complex64),
        np.array(["2020-01-01"], "M8[D]"),
        np.zeros(2, [("a", "i4")]),
        np.asfortranarray(np.ones((3, 4), np.float32)),
    ],
    ids=lambda array: str(array.dtype),
)
def test_what_leanmatch_does_not_store(array):
    with pytest.raises(ValueError, match=r"header|column by column"):
        parse_array(saved(array))
    with pytest.raises(ValueError, match="header"):
        parse_array(saved(np.array([{}], dtype=object), allow_pickle=True))


def test_archives_that_are_not_ours(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, one=np.zeros(10_000))
    with pytest.raises(ValueError, match=r"larger than it is|not one that leanmatch writes"):
        read_arrays(path)
    np.savez(path, one=np.ones(3))
    with pytest.raises(ValueError, match="holds the arrays one"):
        read_arrays(path, ("two",))
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match="BadZipFile"):
        read_arrays(path)
