"""A sound artifact as parts that can be damaged, and what must come of every damage."""

from __future__ import annotations

import json
import struct
import tracemalloc

import numpy as np
import pytest

from leanmatch.errors import FormatError
from leanmatch.formats import weights_sha256
from leanmatch.formats.artifact.reader import read_artifact

MOST_MEMORY = 48 * 2**20
"""For an artifact of some 60 kB; a hostile size that is believed takes gigabytes."""

STACK = "encoder.layer.0.attention.self"
QUERY = f"{STACK}.query"
FLOATS = "encoder.layer.0.output.dense"
INT6 = "encoder.layer.0.attention.output.dense"
INT4 = "encoder.layer.1.attention.self.value"
PRUNED = "encoder.layer.1.intermediate.dense"
LOW = "encoder.layer.1.attention.self.query"
WORDS = "embeddings.word_embeddings"


class Content:
    """The parts of an artifact, to be changed; :meth:`write` makes sizes and fingerprints fit again."""

    def __init__(self, folder):
        self.folder = folder
        self.file = folder / "compressed.safetensors"
        data = self.file.read_bytes()
        size = struct.unpack("<Q", data[:8])[0]
        self.header = json.loads(data[8 : 8 + size])
        self.body = bytearray(data[8 + size :])
        self.manifest = json.loads((folder / "leanmatch.json").read_text())
        self.section = self.manifest["artifact"]
        self.layers = self.section["layers"]

    def array(self, name):
        """A writable view of a tensor."""
        entry = self.header[name]
        dtype = {"U8": "u1", "I8": "i1", "F16": "<f2", "F32": "<f4", "I64": "<i8"}[entry["dtype"]]
        start, stop = entry["data_offsets"]
        return np.frombuffer(
            self.body, dtype=dtype, count=(stop - start) // np.dtype(dtype).itemsize, offset=start
        )

    def drop(self, name):
        """Remove a tensor and its bytes."""
        start, stop = self.header.pop(name)["data_offsets"]
        del self.body[start:stop]
        for entry in self.header.values():
            if entry["data_offsets"][0] >= stop:
                entry["data_offsets"] = [place - (stop - start) for place in entry["data_offsets"]]

    def add(self, name, dtype, shape, data):
        self.header[name] = {
            "dtype": dtype,
            "shape": shape,
            "data_offsets": [len(self.body), len(self.body) + len(data)],
        }
        self.body += data

    def write(self, header=None):
        text = json.dumps(self.header).encode() if header is None else header
        self.file.write_bytes(struct.pack("<Q", len(text)) + text + bytes(self.body))
        self.seal()

    def seal(self):
        self.section["bytes"]["weights"] = self.file.stat().st_size
        self.manifest["weights_sha256"] = weights_sha256(self.folder)
        (self.folder / "leanmatch.json").write_text(json.dumps(self.manifest))


def refused(folder, message, load=read_artifact):
    tracemalloc.start()
    try:
        with pytest.raises(FormatError, match=message) as caught:
            load(folder)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MOST_MEMORY, f"{peak:,} bytes were allocated"
    assert len(str(caught.value)) < 2000
