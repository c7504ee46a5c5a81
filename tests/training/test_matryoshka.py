"""Losses over several numbers of leading dimensions: our own, and sentence-transformers' around ours."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from sentence_transformers.sentence_transformer.losses import MatryoshkaLoss

import training_models as models
from leanmatch.errors import UsageError
from leanmatch.metrics import retrieval_score
from leanmatch.models import Prefix, RoleEncoder
from leanmatch.training import ScheduleOptions, TrainOptions
from leanmatch.training.engine import train_stage
from leanmatch.training.losses import ITVReg, MaskingLoss, OutReg, PlainLoss

KINDS = ["transformer", "static"]
LOSSES = {
    "plain": lambda model, base, **options: PlainLoss(model, **options),
    "out": lambda model, base, **options: OutReg(model, base, weight=2.0, **options),
    "itv": lambda model, base, **options: ITVReg(model, base, weight=2.0, per_text=2, **options),
    "itv, both sides": lambda model, base, **options: ITVReg(model, base, sides="both", **options),
    "mask": lambda model, base, **options: MaskingLoss(model, **options),
}


def batch(model, pair_texts, rows=8):
    return [models.tokenized(model, column[:rows]) for column in pair_texts]


def moved(model):
    """A model whose weights differ from the base's, so that no drift is zero."""
    base = copy.deepcopy(model)
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return base


def value_and_gradient(loss, model, features, seed=11):
    model.zero_grad()
    torch.manual_seed(seed)
    value = loss([dict(f) for f in features], None)
    value.backward()
    return [value.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", LOSSES)
def test_ours_is_the_mean_that_matryoshka_loss_adds_up(kind, name, request, pair_texts):
    model = request.getfixturevalue(kind)
    base, features, whole = moved(model), batch(model, pair_texts), model.get_embedding_dimension()
    native = value_and_gradient(LOSSES[name](model, base, dimensions=[4, 8]), model, features)
    around = MatryoshkaLoss(
        model, LOSSES[name](model, base), matryoshka_dims=[whole, 8, 4], matryoshka_weights=[1 / 3] * 3
    )
    stock = value_and_gradient(around, model, features)
    alone = value_and_gradient(LOSSES[name](model, base), model, features)
    assert abs(float(native[0] - alone[0])) > 1e-3, "the smaller dimensions change the loss"
    assert len(native) == len(stock) > 1
    for ours, theirs in zip(native, stock, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


def test_each_batch_has_edits_of_its_own(transformer, pair_texts):
    base, features = moved(transformer), batch(transformer, pair_texts)
    around = MatryoshkaLoss(transformer, ITVReg(transformer, base), matryoshka_dims=[32, 8])
    values = [float(value_and_gradient(around, transformer, features, seed)[0]) for seed in (1, 2, 1)]
    assert values[0] == pytest.approx(values[2]) and abs(values[0] - values[1]) > 1e-5


def test_gradient_caching_changes_nothing(transformer, pair_texts):
    base, features = moved(transformer), batch(transformer, pair_texts)
    whole = value_and_gradient(ITVReg(transformer, base, dimensions=[8]), transformer, features)
    cached = ITVReg(transformer, base, dimensions=[8], mini_batch_size=3)
    for ours, theirs in zip(value_and_gradient(cached, transformer, features), whole, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)
    around = MatryoshkaLoss(
        transformer, ITVReg(transformer, base, mini_batch_size=3), matryoshka_dims=[32, 8]
    )
    with pytest.raises(UsageError, match="without mini_batch_size") as refused:
        around([dict(f) for f in features], None)
    assert "ITVReg(..., dimensions=...)" in refused.value.remedy


@pytest.mark.parametrize("dimensions", [[0], [33], [8, 8], [], [True], [8.0]])
def test_dimensions_that_the_model_does_not_have(transformer, dimensions):
    with pytest.raises(UsageError, match="dimensions"):
        PlainLoss(transformer, dimensions=dimensions)


def test_options_hold_dimensions():
    options = TrainOptions.from_json({"dimensions": [8, 4]})
    assert options.dimensions == (8, 4) and options.to_json()["dimensions"] == [8, 4]
    assert TrainOptions.from_json(TrainOptions().to_json()).dimensions is None
    for wrong in ([0], ["8"], 8):
        with pytest.raises(UsageError, match="dimensions"):
            TrainOptions.from_json({"dimensions": wrong})


def test_training_makes_the_first_dimensions_better(tmp_path):
    from leanmatch.training.dataset import training_dataset

    table = models.pairs()
    schedule = ScheduleOptions(epochs=12, batch_size=16, device="cpu")
    scores = {}
    for name, dimensions in (("plain", None), ("matryoshka", [3])):
        model = models.static_model()
        dataset, _ = training_dataset(table, TrainOptions(negatives="none"), model)
        loss = PlainLoss(model, dimensions=dimensions)
        train_stage(model, loss, dataset, schedule, tmp_path / name, lr=3e-2)
        encoder = RoleEncoder(model)
        np.testing.assert_allclose(
            Prefix(encoder, 3).encode_query(table.anchors),
            model.encode_query(table.anchors, truncate_dim=3, normalize_embeddings=True),
            atol=1e-5,
        )
        scores[name] = retrieval_score(Prefix(encoder, 3), table, "MRR@10")
    assert scores["matryoshka"] > scores["plain"] + 0.03, scores
