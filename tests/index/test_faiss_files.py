"""FAISS files are looked at before FAISS reads them: what it writes passes, what is odd is refused."""

from __future__ import annotations

import struct

import numpy as np
import pytest

pytest.importorskip("faiss", reason="faiss-cpu is not installed")

from leanmatch.errors import FormatError
from leanmatch.index.search.approximate import build_approximate, write_index
from leanmatch.index.search.faiss_files import read_index


def unit(rows, dimension=8):
    vectors = np.random.default_rng(0).normal(size=(rows, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(params=["ivf", "hnsw"])
def kind(request):
    return request.param


@pytest.mark.parametrize("rows", [1, 40, 3000])
@pytest.mark.parametrize("dimension", [3, 8])
def test_what_faiss_writes_is_read(tmp_path, kind, rows, dimension):
    vectors = unit(rows, dimension)
    built = build_approximate(vectors, kind).index
    write_index(built, tmp_path / "i")
    index = read_index(tmp_path / "i", kind, rows, dimension)
    np.testing.assert_array_equal(index.search(vectors[:5], 1)[1], built.search(vectors[:5], 1)[1])
    for wrong in (
        ("ivf" if kind == "hnsw" else "hnsw", rows, dimension),
        (kind, rows + 1, dimension),
        (kind, rows, 9),
    ):
        with pytest.raises(FormatError, match="is damaged") as caught:
            read_index(tmp_path / "i", *wrong)
        assert "rebuild" in caught.value.remedy


def test_many_empty_lists(tmp_path):
    """FAISS writes the sizes of lists in another form where most are empty."""
    import faiss

    vectors = np.repeat(unit(4), 30, axis=0)
    index = faiss.index_factory(8, "IVF40,SQ8", faiss.METRIC_INNER_PRODUCT)
    index.train(unit(2000))
    index.add(vectors)
    write_index(index, tmp_path / "i")
    assert b"sprs" in (tmp_path / "i").read_bytes()
    assert read_index(tmp_path / "i", "ivf", 120, 8).ntotal == 120


def test_lengths_and_rows_that_do_not_exist(tmp_path, kind):
    write_index(build_approximate(unit(300), kind).index, tmp_path / "i")
    sound, refused = (tmp_path / "i").read_bytes(), 0
    for at in range(0, 120, 4):
        for number in (-1, 2**31 - 1, 2**62):
            form = "<q" if number == 2**62 else "<i"
            broken = sound[:at] + struct.pack(form, number) + sound[at + struct.calcsize(form) :]
            (tmp_path / "i").write_bytes(broken)
            try:
                index = read_index(tmp_path / "i", kind, 300, 8)
            except FormatError:
                refused += 1
                continue
            assert index.ntotal == 300 and (index.search(unit(300), 1)[1] < 300).all()
    assert refused > 40, "lengths are checked"
    if kind == "ivf":
        rows = np.frombuffer(sound[-8:], "<i8")
        for number in (300, -1, (rows[0] + 1) % 300):
            (tmp_path / "i").write_bytes(sound[:-8] + np.int64(number).tobytes())
            with pytest.raises(FormatError, match="row"):
                read_index(tmp_path / "i", kind, 300, 8)
    else:
        neighbour = sound.index(b"\xff" * 8) - 4
        (tmp_path / "i").write_bytes(sound[:neighbour] + struct.pack("<i", 300) + sound[neighbour + 4 :])
        with pytest.raises(FormatError, match="neighbour"):
            read_index(tmp_path / "i", kind, 300, 8)
    (tmp_path / "i").write_bytes(sound + b"x")
    with pytest.raises(FormatError, match="after the end"):
        read_index(tmp_path / "i", kind, 300, 8)
    (tmp_path / "i").write_bytes(b"")
    with pytest.raises(FormatError, match="is damaged"):
        read_index(tmp_path / "i", kind, 300, 8)
