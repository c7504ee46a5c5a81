"""leanmatch.json: hostile and damaged files; reading needs no torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_bert import PROVENANCE as GOOD

from leanmatch.errors import FormatError, ModelError
from leanmatch.formats import model_fingerprint, read_provenance, weights_sha256
from leanmatch.formats.provenance import MAX_BYTES, checked_provenance


def test_absent_and_good(tmp_path):
    assert read_provenance(tmp_path) is None
    (tmp_path / "leanmatch.json").write_text(json.dumps(GOOD))
    assert read_provenance(tmp_path) == GOOD


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not JSON"),
        (json.dumps(GOOD).encode()[:-40], "is not JSON"),
        (b"\xff\xfe\x00", "is not JSON"),
        (b"[" * 200_000, "is not JSON"),
        (json.dumps(GOOD).replace("1.0", "NaN").encode(), "NaN is not JSON"),
        (b"[1, 2]", "holds a list"),
        (json.dumps({**GOOD, "format": "zip"}).encode(), "has format 'zip'"),
        (json.dumps({**GOOD, "format_version": "1"}).encode(), "format_version '1'"),
        (json.dumps({**GOOD, "format_version": 2}).encode(), "reads up to 1"),
        (json.dumps({**GOOD, "metrics": 3}).encode(), "field 'metrics' is 3, not an object"),
        (json.dumps({k: v for k, v in GOOD.items() if k != "weights_sha256"}).encode(), "'weights_sha256'"),
        (b" " * (MAX_BYTES + 1), "more than"),
    ],
)
def test_damaged(tmp_path, content, message):
    (tmp_path / "leanmatch.json").write_bytes(content)
    with pytest.raises(FormatError, match=message):
        read_provenance(tmp_path)


def test_values_become_plain():
    stored, notes = checked_provenance({"options": {"p": Path("a/b"), "t": (1, 2.5)}, "mine": float("inf")})
    assert stored["options"] == {"p": str(Path("a/b")), "t": [1, 2.5]} and stored["base"] is None
    assert stored["mine"] is None and notes == ["mine was inf, stored as null"]
    json.dumps(stored, allow_nan=False)


def test_fingerprints(tmp_path):
    with pytest.raises(ModelError, match="no file ending in"):
        weights_sha256(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "leanmatch.json").write_text("{}")
    weights, model = weights_sha256(tmp_path), model_fingerprint(tmp_path)
    (tmp_path / "leanmatch.json").write_text('{"base": "x"}')
    assert (weights_sha256(tmp_path), model_fingerprint(tmp_path)) == (weights, model)
    (tmp_path / "config.json").write_text('{"a": 1}')
    assert weights_sha256(tmp_path) == weights and model_fingerprint(tmp_path) != model
    (tmp_path / "model.safetensors").write_bytes(b"other")
    assert weights_sha256(tmp_path) != weights


def test_import_and_reading_need_no_torch(tmp_path):
    (tmp_path / "leanmatch.json").write_text(json.dumps(GOOD))
    code = (
        "import sys, leanmatch.formats as f; assert f.read_provenance(sys.argv[1])['format_version'] == 1\n"
        "heavy = {'torch', 'transformers', 'sentence_transformers'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=60)
