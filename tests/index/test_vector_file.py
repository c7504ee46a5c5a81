"""Stored item vectors: used when they fit, refused or re-made when not, never another file replaced."""

from __future__ import annotations

import re

import numpy as np
import pytest

from leanmatch.errors import FormatError, UsageError
from leanmatch.index import read_vectors, write_vectors

VECTORS = np.arange(12, dtype=np.float32).reshape(4, 3)


@pytest.fixture
def file(tmp_path):
    write_vectors(tmp_path / "v.npz", VECTORS, model="m", items="i")
    return tmp_path / "v.npz"


def test_round_trip(file):
    found = read_vectors(file, model="m", items="i", rows=4)
    np.testing.assert_array_equal(found.vectors, VECTORS)
    assert found.vectors.dtype == np.float32 and found.reason == ""


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"model": "other"}, "another model"),
        ({"items": "other"}, "other items"),
        ({"rows": 5}, r"shape \(4, 3\)"),
    ],
)
def test_what_does_not_fit(file, options, reason):
    found = read_vectors(file, **{"model": "m", "items": "i", "rows": 4, **options})
    assert found.vectors is None
    assert re.search(reason, found.reason)


@pytest.mark.parametrize("keep", [0, 1, 30, 200, 400])
def test_truncated(file, keep):
    content = file.read_bytes()
    assert len(content) > keep
    file.write_bytes(content[:keep])
    found = read_vectors(file, model="m", items="i", rows=4)
    assert found.vectors is None and "damaged" in found.reason


def test_every_flipped_byte_is_noticed_or_harmless(file):
    content = bytearray(file.read_bytes())
    for position in range(0, len(content), 7):
        changed = content.copy()
        changed[position] ^= 0xFF
        file.write_bytes(changed)
        try:
            found = read_vectors(file, model="m", items="i", rows=4)
        except FormatError:
            continue
        if found.vectors is not None:
            np.testing.assert_array_equal(found.vectors, VECTORS)


def test_pickles_are_not_opened(file):
    np.savez(
        file, format="leanmatch-vectors-1", model="m", items="i", vectors=np.array([{"a": 1}], dtype=object)
    )
    assert "damaged" in read_vectors(file, model="m", items="i", rows=1).reason


def test_nan_is_damage(file):
    write_vectors(file, VECTORS * np.nan, model="m", items="i")
    assert "damaged" in read_vectors(file, model="m", items="i", rows=4).reason


def test_a_file_of_something_else_is_not_ours_to_replace(tmp_path):
    np.savez(tmp_path / "thesis.npz", measurements=np.ones(3))
    with pytest.raises(FormatError, match="holds measurements: it is not a file of item vectors"):
        read_vectors(tmp_path / "thesis.npz", model="m", items="i", rows=4)
    with pytest.raises(UsageError, match=r"end its name in \.npz"):
        read_vectors(tmp_path / "items.jsonl", model="m", items="i", rows=4)


def test_absent(tmp_path):
    assert read_vectors(tmp_path / "v.npz", model="m", items="i", rows=4).reason == "it is not there yet"
