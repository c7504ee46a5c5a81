"""Odd codes in web models: packed, marked, put in order and read as the native runtime reads them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from runtime_models import TEXTS
from web_node import encoded, in_node, least_cosine, needs_node, tokens
from web_reference import reference_encoder

from leanmatch.runtime.web import export_web_model


@needs_node
@pytest.mark.parametrize("bits", [3, 2])
def test_odd_codes_are_packed_and_read_as_odd(tmp_path: Path, bits: int) -> None:
    pytest.importorskip("sentence_transformers", reason="the train extra is not installed")
    from runtime_models import build

    from leanmatch.compression import CompressionSpec, RoundingSpec, Rule, factorize, finalize
    from leanmatch.formats import save_compressed

    model = build(tmp_path / "bert")
    factorize(model, CompressionSpec((Rule("*word_embeddings", RoundingSpec(bits=bits)),)))
    folder = save_compressed(finalize(model), tmp_path / "lean", {"base": "tiny"}).folder
    export_web_model(folder, tmp_path / "web")
    manifest = tmp_path / "web" / "model.json"
    written = json.loads(manifest.read_text(encoding="utf-8"))
    entry = written["tensors"][written["plan"]["words"]["codes"]]
    assert (entry["dtype"], entry["bits"], entry["odd"]) == ("packed", bits, True)
    assert written["format_version"] == 2, "scripts that know no odd codes refuse it"
    ids, offsets = tokens(folder, TEXTS)
    expected = reference_encoder(folder).encode(ids, offsets, 1)
    _, vectors = encoded(tmp_path / "web", ids, offsets)
    np.testing.assert_allclose(vectors, expected, atol=3e-3)

    del entry["odd"]
    manifest.write_text(json.dumps(written), encoding="utf-8")
    _, wrong = encoded(tmp_path / "web", ids, offsets)
    assert least_cosine(wrong, expected) < 0.99, "the mark decides"
    entry |= {"odd": True, "bits": 8, "shape": [1, 1]}
    manifest.write_text(json.dumps(written), encoding="utf-8")
    (refused,) = in_node({"do": "create", "folder": str(tmp_path / "web")})
    assert "words has odd codes of 8 bits" in refused["error"]


@needs_node
def test_rows_that_differ_in_bits_are_put_in_order(tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers", reason="the train extra is not installed")
    from runtime_models import build

    from leanmatch.compression import CompressionSpec, MixedRoundingSpec, Rule, factorize, finalize
    from leanmatch.formats import save_compressed

    model = build(tmp_path / "bert")
    spec = CompressionSpec((Rule("*word_embeddings", MixedRoundingSpec(average_bits=3.1)),))
    factorize(model, spec, calibration_texts=TEXTS)
    folder = save_compressed(finalize(model), tmp_path / "lean", {"base": "tiny"}).folder
    export_web_model(folder, tmp_path / "web")
    manifest = tmp_path / "web" / "model.json"
    written = json.loads(manifest.read_text(encoding="utf-8"))
    words = written["plan"]["words"]
    assert words["form"] == "int8-rows" and {"codes2", "codes3", "codes4", "widths"} <= words.keys()
    assert written["format_version"] == 2
    ids, offsets = tokens(folder, TEXTS)
    expected = reference_encoder(folder).encode(ids, offsets, 1)
    _, vectors = encoded(tmp_path / "web", ids, offsets)
    np.testing.assert_allclose(vectors, expected, atol=3e-3)

    whole = manifest.read_text(encoding="utf-8")
    for change, message in (
        (lambda told: told["plan"]["words"].pop("codes3"), "widths do not fit its codes"),
        (lambda told: told["tensors"][words["codes2"]]["shape"].__setitem__(1, 8), "rows differ in length"),
        (lambda told: told["plan"]["words"].pop("widths"), "no array undefined for widths"),
    ):
        told = json.loads(whole)
        change(told)
        manifest.write_text(json.dumps(told), encoding="utf-8")
        (refused,) = in_node({"do": "create", "folder": str(tmp_path / "web")})
        assert message in refused["error"]
