"""Prompts and truncated dimensions in training: losses, trainer, interventions, negatives, saving."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import training_models as models
from leanmatch.interventions import TokenVocabulary, edit_texts
from leanmatch.models import PromptOptions, Prompts
from leanmatch.models.tokens import prompt_tokens
from leanmatch.training import TrainOptions, fit
from leanmatch.training.base_scores import FrozenBase
from leanmatch.training.engine import column_prompts, train_stage
from leanmatch.training.losses import ITVReg, PlainLoss
from leanmatch.training.negatives import mined_negatives

QUERY, DOCUMENT = "bala cela ", "fome "
ANCHORS, POSITIVES = models.WORDS[:8], [" ".join(models.WORDS[i : i + 3]) for i in range(8)]


@pytest.fixture(params=["transformer", "static"])
def model(request, tmp_path):
    made = models.static_model() if request.param == "static" else models.transformer_model(tmp_path / "m")
    made.prompts = {"query": QUERY, "document": DOCUMENT}
    return made


def rows_of(features):
    """The ids of each text."""
    if "offsets" in features:
        ends = [*features["offsets"].tolist()[1:], len(features["input_ids"])]
        return [
            features["input_ids"][a:b].tolist()
            for a, b in zip(features["offsets"].tolist(), ends, strict=True)
        ]
    masks = features["attention_mask"].bool()
    return [row[mask].tolist() for row, mask in zip(features["input_ids"], masks, strict=True)]


@pytest.mark.parametrize("kind", ["mask", "delete", "replace"])
def test_protected_tokens_are_never_edited(model, kind):
    texts = [QUERY + text for text in POSITIVES]
    features = models.tokenized(model, texts)
    vocabulary = TokenVocabulary.from_model(model)
    protected = prompt_tokens(model.tokenizer, QUERY)
    own = rows_of(features)
    assert protected == len(rows_of(models.tokenized(model, [QUERY]))[0]) - ("offsets" not in features)

    def edited(count):
        return rows_of(edit_texts(features, vocabulary, kind=kind, per_text=20, protected=count).features)

    torch.manual_seed(0)
    touched = [row[:protected] != own[place // 20][:protected] for place, row in enumerate(edited(0))]
    assert any(touched), "without protection prompts are edited"
    for place, row in enumerate(edited(protected)):
        assert row[:protected] == own[place // 20][:protected]


class Spy(PlainLoss):
    """Keeps the columns that the trainer gives it."""

    def forward(self, sentence_features, labels=None):
        self.columns = list(sentence_features)
        return super().forward(self.columns, labels)


def test_the_trainer_puts_prompts_before_the_columns(model, tmp_path):
    from datasets import Dataset

    columns = {"anchor": ANCHORS, "positive": POSITIVES, "negative_1": POSITIVES[::-1]}
    assert column_prompts(model, list(columns)) == {
        "anchor": QUERY,
        "positive": DOCUMENT,
        "negative_1": DOCUMENT,
    }
    loss = Spy(model)
    schedule = models.ScheduleOptions(batch_size=8, max_steps=1, device="cpu", lr=1e-3)
    train_stage(model, loss, Dataset.from_dict(columns), schedule, tmp_path / "stage", lr=1e-3)
    texts = {
        prompt: [rows_of(models.tokenized(model, [prompt + text]))[0] for text in some]
        for prompt, some in ((QUERY, ANCHORS), (DOCUMENT, POSITIVES))
    }
    for column, prompt in zip(loss.columns, (QUERY, DOCUMENT, DOCUMENT), strict=True):
        assert all(row in texts[prompt] for row in rows_of(column))


def test_itvreg_leaves_the_prompts_of_both_sides_alone(model, monkeypatch):
    import leanmatch.training.losses.itvreg as module

    protected = []

    def spy(features, vocabulary, **options):
        protected.append(options["protected"])
        return edit_texts(features, vocabulary, **options)

    monkeypatch.setattr(module, "edit_texts", spy)
    loss = ITVReg(model, FrozenBase(model), sides="both", prompts=Prompts.from_model(model))
    texts = ([QUERY + text for text in ANCHORS], [DOCUMENT + text for text in POSITIVES])
    assert torch.isfinite(loss([models.tokenized(model, some) for some in texts]))
    assert protected == [prompt_tokens(model.tokenizer, prompt) for prompt in (QUERY, DOCUMENT)]
    assert min(protected) > 0


def test_losses_see_the_dimensions_that_are_kept(model):
    columns = [models.tokenized(model, some) for some in (ANCHORS, POSITIVES)]
    whole = PlainLoss(model).encode([dict(column) for column in columns])
    model.truncate_dim = 5
    cut = PlainLoss(model).encode([dict(column) for column in columns])
    cached = FrozenBase(model).embed([dict(column) for column in columns], torch.device("cpu"))
    for full, part, base in zip(whole, cut, cached, strict=True):
        torch.testing.assert_close(part, full[:, :5])
        torch.testing.assert_close(base, torch.nn.functional.normalize(full[:, :5], dim=1))


def test_prompts_left_out_of_pooling_are_left_out_in_losses(tmp_path):
    model = models.transformer_model(tmp_path / "m")
    model.set_pooling_include_prompt(False)
    if "prompt_length" not in model.preprocess(["bala"], prompt=QUERY):
        pytest.skip("this sentence-transformers does not say how long prompts are")
    columns = [model.preprocess(ANCHORS, prompt=QUERY), model.preprocess(POSITIVES, prompt=DOCUMENT)]
    wanted = [
        model.encode(ANCHORS, prompt=QUERY, convert_to_tensor=True),
        model.encode(POSITIVES, prompt=DOCUMENT, convert_to_tensor=True),
    ]
    model.eval()
    for size in (None, 3):
        made = PlainLoss(model, mini_batch_size=size).encode([dict(column) for column in columns])
        for found, right in zip(made, wanted, strict=True):
            torch.testing.assert_close(torch.nn.functional.normalize(found, dim=1), right, atol=1e-5, rtol=0)


def test_negatives_are_mined_with_prompts(model, monkeypatch):
    from sentence_transformers import util

    mine, seen = util.mine_hard_negatives, {}

    def spy(*arguments, **options):
        seen.update(options)
        return mine(*arguments, **options)

    monkeypatch.setattr(util, "mine_hard_negatives", spy)
    mined_negatives(model, ANCHORS, POSITIVES, 1)
    assert (seen["query_prompt"], seen["corpus_prompt"]) == (QUERY, DOCUMENT)


def test_a_trained_model_keeps_the_prompts_that_it_was_trained_with(tmp_path):
    model = models.static_model()
    options = TrainOptions.from_json(
        {
            "schedule": {"max_steps": 2, "batch_size": 8, "device": "cpu"},
            "regularizer": {"kind": "itv", "weight": 1.0},
            "average": 1.0,
            "prompts": {"query": QUERY, "document": ""},
        }
    )
    assert options.prompts == PromptOptions(query=QUERY, document="")
    table = models.PairTable.from_columns({"anchor": ANCHORS, "positive": POSITIVES})
    fit(model, table, None, options, tmp_path / "work")
    model.save(str(tmp_path / "saved"))
    kept = json.loads((tmp_path / "saved" / "config_sentence_transformers.json").read_text())
    assert kept["prompts"]["query"] == QUERY and kept["prompts"]["document"] == ""
    plain = model.encode([QUERY + "bala"], prompt="")
    np.testing.assert_allclose(model.encode_query(["bala"]), plain, atol=1e-6)
