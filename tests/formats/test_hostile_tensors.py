"""Damaged and hostile files of tensors: always FormatError, never a crash, never a large allocation."""

from __future__ import annotations

import json
import os
import shutil
import struct
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from hostile import FLOATS, INT4, INT6, QUERY, WORDS, Content, refused

from leanmatch.formats.artifact.loader import load_compressed
from leanmatch.formats.artifact.reader import read_artifact


@pytest.fixture
def folder(good_artifact, tmp_path):
    return Path(shutil.copytree(good_artifact, tmp_path / "m"))


def test_the_corpus_starts_from_a_good_one(folder):
    content = Content(folder)
    content.write()
    assert len(read_artifact(folder).layers) == 14
    assert len(load_compressed(folder, "cpu").encode(["usb dock"])[0]) == 32


def header_of(size, text):
    return struct.pack("<Q", size) + text


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "has 0 bytes and says that 0"),
        (b"\x10\0\0", "has 3 bytes"),
        (header_of(2**63, b"{}"), "of them are its header"),
        (header_of(1000, b"{}"), "of them are its header"),
        (header_of(0, b""), "of them are its header"),
        (header_of(2, b"[]"), "is no object"),
        (header_of(2, b"{{"), "is not JSON"),
        (header_of(2, b"\xff\xfe"), "is not JSON"),
        (header_of(100_000, b"[" * 100_000), "is not JSON"),
        (header_of(100_002, b'{"a":' + b"[" * 99_997), "is not JSON"),
        (header_of(9, b'{"a":NaN}'), "NaN is not JSON"),
        (header_of(11, b'{"a": null}'), "is None, not an object"),
        (header_of(2, b"{}") + b"left over", "its tensors take 0 bytes, and 9 are there"),
    ],
)
def test_headers(folder, data, message):
    content = Content(folder)
    content.file.write_bytes(data)
    content.seal()
    refused(folder, message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": "F64"}, "dtype must be one of"),
        ({"dtype": "BF16"}, "dtype must be one of"),
        ({"dtype": None}, "dtype must be one of"),
        ({"shape": [2**62, 2**62]}, "must be a whole number from 0 to"),
        ({"shape": [-1, 4]}, "must be a whole number from 0"),
        ({"shape": [1.5]}, "must be a whole number"),
        ({"shape": [True]}, "must be a whole number"),
        ({"shape": [1] * 50}, "not at most 4 sizes"),
        ({"shape": "32"}, "not at most 4 sizes"),
        ({"shape": [7]}, "takes 14 bytes"),
        ({"data_offsets": [0]}, "data_offsets must be 2 numbers"),
        ({"data_offsets": [-8, 0]}, "data_offsets"),
        ({"data_offsets": [10**30, 10**30]}, "data_offsets"),
        ({"extra": 1}, "unknown fields 'extra'"),
    ],
)
def test_entries_of_the_header(folder, change, message):
    content = Content(folder)
    content.header["tensors/embeddings.LayerNorm.bias"] |= change
    content.write()
    refused(folder, message)


def test_repeated_overlapping_and_gaping_tensors(folder):
    content = Content(folder)
    text = json.dumps(content.header)
    content.write((text[:-1] + ", " + text[1:]).encode())
    refused(folder, "stands there twice")
    content.write()
    content = Content(folder)
    names = [
        name for name, entry in content.header.items() if entry["dtype"] == "F16" and entry["shape"] == [32]
    ]
    content.header[names[0]]["data_offsets"] = content.header[names[1]]["data_offsets"]
    content.write()
    refused(folder, "overlap or leave gaps")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_truncated(folder, share):
    file = folder / "compressed.safetensors"
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    refused(folder, "bytes|data_offsets")


def test_a_flipped_bit_is_seen(folder):
    file = folder / "compressed.safetensors"
    data = bytearray(file.read_bytes())
    data[-5] ^= 4
    file.write_bytes(data)
    refused(folder, "is not the file that leanmatch.json was written for")


def test_no_file_a_folder_and_a_pipe(folder):
    file = folder / "compressed.safetensors"
    file.unlink()
    refused(folder, "there is no file")
    file.mkdir()
    refused(folder, "there is no file")
    file.rmdir()
    os.mkfifo(file)
    refused(folder, "there is no file")


# ---- values ----


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("stacks/{stack}/atoms_scale", float("nan"), "non-finite"),
        (f"layers/{QUERY}/values_scale", float("inf"), "non-finite"),
        (f"layers/{QUERY}/values_scale", 0.0, "values_scale must be above 0"),
        (f"layers/{QUERY}/values_scale", -1.0, "values_scale must be above 0"),
        (f"layers/{WORDS}/q_scale", float("nan"), "non-finite"),
        (f"layers/{FLOATS}/values", float("nan"), "non-finite"),
        (f"layers/{FLOATS}/atoms", float("-inf"), "non-finite"),
        (f"layers/{FLOATS}/bias", float("nan"), "non-finite"),
        ("tensors/embeddings.LayerNorm.weight", float("nan"), "non-finite"),
        (f"layers/{QUERY}/values", -128, "values_q of 8 bits must lie between -127 and 127"),
        (f"layers/{QUERY}/indices", 0xFF, "must be below the number of atoms, 12"),
        (f"layers/{QUERY}/indices", 0x11, "must be distinct within a row and block"),
        (f"layers/{INT6}/values", 0x20, "values_q of 6 bits must lie between -31 and 31"),
        (f"layers/{INT4}/q", 0x88, "q of 4 bits must lie between -7 and 7"),
    ],
)
def test_values_out_of_range(folder, name, value, message):
    content = Content(folder)
    stack = content.layers[QUERY]["stack"]
    content.array(name.format(stack=stack))[0] = value
    content.write()
    refused(folder, message)
