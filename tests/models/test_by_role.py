"""Prompts by role in everything that encodes: each set-up first shows that the prompts change the result."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sentence_transformers", reason="the train extra is not installed")
sys.path.insert(0, str(Path(__file__).parents[1] / "interventions"))
import tiny_models as models

from leanmatch.data import PairTable
from leanmatch.errors import ModelError, UsageError
from leanmatch.formats.reader import load_encoder
from leanmatch.index import Catalogue, Item, create_catalogue, rebuild_catalogue, upsert_items
from leanmatch.index.encoders import encoder_for
from leanmatch.index.storage.manifest import read_manifest
from leanmatch.interventions import as_readers, importance
from leanmatch.metrics import RetrievalProbe, evaluate
from leanmatch.models import PromptOptions, Prompts, TorchEncoder
from leanmatch.runtime import load
from leanmatch.serve.engine import Embed, Engine, Recommend
from leanmatch.serve.explaining import Explainer

QUERY, DOCUMENT, DEFAULT = "red how: ", "the don ", "usb 4 "
PROMPTS = {"query": QUERY, "document": DOCUMENT, "other": DEFAULT}
TEXTS = ["usb dock", "fast cable", "how fast", "red marker café", "the usb cable", "don't dock the red"]
ANCHORS = ["usb", "fast red", "how", "café", "cable the", "dock"]


@pytest.fixture(scope="module", params=["bert", "static"])
def folder(request, tmp_path_factory):
    """A model's folder with a prompt for every role, and the same model without."""
    home = tmp_path_factory.mktemp(request.param)
    model = models.bert(home / "source", length=24) if request.param == "bert" else models.static()
    model.save(str(home / "plain"))
    model.prompts, model.default_prompt_name = dict(PROMPTS), "other"
    model.save(str(home / "prompted"))
    return home


@pytest.fixture(params=["runtime", "torch"])
def encoders(request, folder):
    """The model with prompts and without them."""
    opened = load if request.param == "runtime" else load_encoder
    return opened(folder / "prompted"), opened(folder / "plain")


def prefixed(prompt, texts):
    return [prompt + text for text in texts]


def test_each_role_is_encoded_with_its_prompt(encoders):
    own, plain = encoders
    for method, prompt in ((own.encode_query, QUERY), (own.encode_document, DOCUMENT), (own.encode, DEFAULT)):
        np.testing.assert_allclose(method(TEXTS), plain.encode(prefixed(prompt, TEXTS)), atol=1e-6)
        assert abs(method(TEXTS) - plain.encode(TEXTS)).max() > 0.01, "the prompt changes the vectors"
    assert own.roles_differ and not plain.roles_differ
    assert own.count_tokens(TEXTS, prompt_name="query") == plain.count_tokens(prefixed(QUERY, TEXTS))
    own.set_prompts(PromptOptions(query="fast "))
    np.testing.assert_allclose(own.encode_query(TEXTS), plain.encode(prefixed("fast ", TEXTS)), atol=1e-6)
    own.set_prompts(PromptOptions(name="other"))
    np.testing.assert_allclose(own.encode_document(TEXTS), plain.encode(prefixed(DEFAULT, TEXTS)), atol=1e-6)
    assert not own.roles_differ


def test_evaluation_gives_anchors_and_positives_their_prompts(encoders):
    own, plain = encoders
    columns = {"anchor": ANCHORS * 2, "positive": [*TEXTS, *TEXTS[::-1]], "label": [1] * 6 + [0] * 6}
    table = PairTable.from_columns(columns)
    both = {"anchor": prefixed(QUERY, columns["anchor"]), "positive": prefixed(DOCUMENT, columns["positive"])}
    (wanted,) = evaluate(plain, PairTable.from_columns({**columns, **both})).slices.values()
    (found,) = evaluate(own, table, against=plain, against_name="plain").slices.values()
    assert len(found.metrics) > 5
    for name, metric in found.metrics.items():
        assert metric.value == pytest.approx(wanted.metrics[name].value, abs=1e-9)
    assert any(metric.difference for metric in found.metrics.values()), "the prompts change the metrics"


def test_a_symmetric_query_is_no_document(encoders):
    own, plain = encoders
    table = PairTable.from_columns({"anchor": TEXTS[:4], "positive": TEXTS[1:5]})
    queries, documents = plain(prefixed(QUERY, TEXTS[:5])), plain(prefixed(DOCUMENT, TEXTS[:5]))
    scores = queries[:4] @ documents.T
    np.fill_diagonal(scores, -np.inf)  # a text never finds itself
    own_scores = scores[np.arange(4), np.arange(1, 5)]
    ranks = 1 + (scores > own_scores[:, None]).sum(axis=1)
    found = RetrievalProbe(table, "MRR@10", symmetric=True).per_query(own)
    np.testing.assert_allclose(found, 1 / ranks)


def test_interventions_never_touch_a_prompt(encoders):
    own, plain = encoders
    found = importance(own, ANCHORS, TEXTS)
    base = importance(plain, ANCHORS, TEXTS)
    assert found.level == "tokens" and found.words() == base.words()
    assert found.offsets.tolist() == base.offsets.tolist()
    assert abs(found.effects - base.effects).max() > 0.01, "the prompts change the effects"
    readers = as_readers(own)
    for reader, prompt, texts in zip(readers, (QUERY, DOCUMENT), (ANCHORS, TEXTS), strict=True):
        for reading, text in zip(reader.read(texts, "token"), texts, strict=True):
            whole = plain.encodings([prompt + text])[0].ids if hasattr(plain, "encodings") else None
            if whole is not None:
                assert reading.source.tolist() == whole
            assert all(0 <= unit.start < unit.end <= len(text) for unit in reading.units)
            count = Prompts({"query": prompt}).query.split()
            first = min(piece for unit in reading.units for piece in unit.pieces)
            assert first >= len(count)
    torch = importance(load_encoder(own.folder), ANCHORS, TEXTS)
    np.testing.assert_allclose(found.effects, torch.effects, atol=1e-5)


def test_text_level_interventions_encode_by_role(encoders):
    own, _ = encoders
    tokens, text = importance(own, ANCHORS, TEXTS), importance(own, ANCHORS, TEXTS, level="text")
    np.testing.assert_allclose(text.scores, tokens.scores, atol=1e-6)


def items(texts):
    return [Item(str(number), text) for number, text in enumerate(texts)]


def test_a_catalogue_records_its_prompts(encoders, folder, tmp_path):
    own, plain = encoders
    own.set_prompts(PromptOptions(query="how "))
    target = tmp_path / "catalogue"
    create_catalogue(target, items(TEXTS[:4]), own)
    manifest = read_manifest(target)
    assert (manifest.model.query_prompt, manifest.model.document_prompt) == ("how ", DOCUMENT)
    device = "cpu" if isinstance(own, TorchEncoder) else "auto"
    again = encoder_for(manifest, str(folder / "prompted"), device=device)
    upsert_items(target, [Item("4", TEXTS[4]), Item("5", TEXTS[5])], again)
    catalogue = Catalogue.open(target)
    documents = plain(prefixed(DOCUMENT, TEXTS))
    for query, prompt in ((None, "how "), ("fast ", "fast ")):
        opened = encoder_for(
            manifest, str(folder / "prompted"), device=device, queries=PromptOptions(query=query)
        )
        scores = plain(prefixed(prompt, ["usb red"])) @ documents.T
        found = catalogue.recommend(opened, ["usb red"], 6)[0]
        assert [item.id for item in found] == [str(row) for row in np.argsort(-scores[0])]
        np.testing.assert_allclose([item.score for item in found], np.sort(scores[0])[::-1], atol=1e-5)
    again.set_prompts(PromptOptions(document="usb "))
    with pytest.raises(ModelError, match="encoded with the prompt 'the don ', not with 'usb '"):
        upsert_items(target, items(["new"]), again)
    change = rebuild_catalogue(target, again)
    assert change.encoded == 6 and read_manifest(target).model.document_prompt == "usb "


def test_an_older_catalogue_does_not_say_and_is_refused(encoders, folder, tmp_path):
    own, _ = encoders
    target = tmp_path / "catalogue"
    create_catalogue(target, items(TEXTS), own)
    content = json.loads((target / "manifest.json").read_text())
    del content["model"]["query_prompt"], content["model"]["document_prompt"]
    (target / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match="does not say with which prompt") as refused:
        encoder_for(read_manifest(target), str(folder / "prompted"))
    assert "index rebuild" in refused.value.command


def test_the_server_encodes_and_explains_by_role(encoders, tmp_path):
    own, plain = encoders
    target = tmp_path / "catalogue"
    create_catalogue(target, items(TEXTS), own)
    engine = Engine(own, Catalogue.open(target), threads=1)
    answer, vectors = engine.run([Recommend(["usb"], 6), Embed(["usb"])])
    scores = plain(prefixed(QUERY, ["usb"])) @ plain(prefixed(DOCUMENT, TEXTS)).T
    np.testing.assert_allclose(answer.found[0].scores, np.sort(scores[0])[::-1], atol=1e-5)
    np.testing.assert_allclose(vectors, plain(prefixed(DEFAULT, ["usb"])), atol=1e-6)
    ((explained,),) = Explainer(own).explain([([("usb", [TEXTS[0]])], lambda: False)])[0:1]
    wanted = importance(own, ["usb"], [TEXTS[0]])
    effects = [effect for side in explained[0] for _, _, effect in side]
    np.testing.assert_allclose(effects, wanted.effects, atol=1e-5)


def test_wrong_names_are_refused(encoders):
    own, _ = encoders
    for call in (own.encode, own.encode_query, own.count_tokens):
        with pytest.raises(UsageError, match="no prompt named 'nowhere'"):
            call(["usb"], prompt_name="nowhere")
