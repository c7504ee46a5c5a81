"""The losses against formulas computed the slow way, one text and one pair at a time."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import functional

import training_models as models
from leanmatch.errors import UsageError
from leanmatch.interventions import edit_texts
from leanmatch.training.base_scores import FrozenBase
from leanmatch.training.features import take
from leanmatch.training.losses import ITVReg, MaskingLoss, OutReg, PlainLoss

KINDS = ["transformer", "static"]


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


def embed(model, features):
    return functional.normalize(model(dict(features))["sentence_embedding"], dim=1)


@pytest.mark.parametrize("kind", KINDS)
def test_plain_equals_stock_multiple_negatives_ranking(kind, request, pair_texts):
    from leanmatch.training.stock import MultipleNegativesRankingLoss

    model = request.getfixturevalue(kind)
    features = batch(model, pair_texts)
    gradients = []
    for loss in (PlainLoss(model), MultipleNegativesRankingLoss(model)):
        model.zero_grad()
        value = loss([dict(f) for f in features], None)
        value.backward()
        gradients.append(
            [p.grad.clone() for p in model.parameters() if p.grad is not None] + [value.detach()]
        )
    assert float(gradients[0][-1]) > 0.1
    for ours, stock in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, stock, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pairs", ["all", "diagonal"])
def test_outreg_is_the_relative_drift_of_scores(kind, pairs, request, pair_texts):
    model = request.getfixturevalue(kind)
    base = moved(model)
    features = batch(model, pair_texts)
    loss = OutReg(model, base, weight=2.0, pairs=pairs)
    value = float(loss([dict(f) for f in features], None))
    a, p, a0, p0 = (embed(m, f).detach() for m in (model, base) for f in features)
    cells = [(i, j) for i in range(8) for j in range(8) if pairs == "all" or i == j]
    s0 = torch.stack([a0[i] @ p0[j] for i, j in cells])
    drift = torch.stack([(a[i] @ p[j] - a0[i] @ p0[j]) ** 2 for i, j in cells]).mean() / s0.var(correction=0)
    assert float(drift) > 1e-3, "the set-up must bite"
    plain = float(PlainLoss(model)([dict(f) for f in features], None))
    assert value == pytest.approx(plain + 2 * float(drift), rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pairs", ["all", "diagonal"])
@pytest.mark.parametrize("side", ["anchor", "positive"])
@pytest.mark.parametrize("matching", ["effect", "score", "one-sided"])
def test_itvreg_agrees_with_its_definition(kind, pairs, side, matching, request, pair_texts):
    model = request.getfixturevalue(kind)
    base = moved(model)
    features = batch(model, pair_texts)
    loss = ITVReg(
        model,
        base,
        weight=1.5,
        interventions="delete",
        per_text=2,
        sides=side,
        pairs=pairs,
        matching=matching,
    )
    torch.manual_seed(11)
    value = float(loss([dict(f) for f in features], None))
    torch.manual_seed(11)
    which = ("anchor", "positive").index(side)
    edited = edit_texts(features[which], loss.vocabulary, kind="delete", per_text=2)
    text, other = embed(model, features[which]), embed(model, features[1 - which])
    text0, other0 = embed(base, features[which]), embed(base, features[1 - which])
    after, after0 = embed(model, edited.features), embed(base, edited.features)
    squares, references = [], []
    for i in range(8):
        for c in range(2):
            for j in range(8) if pairs == "all" else [i]:
                s, t = text[i] @ other[j], after[2 * i + c] @ other[j]
                s0, t0 = text0[i] @ other0[j], after0[2 * i + c] @ other0[j]
                ti, ti0 = s - t, s0 - t0
                squares.append(
                    {
                        "effect": (ti - ti0) ** 2,
                        "score": (t - t0) ** 2,
                        "one-sided": (abs(ti) - abs(ti0)).clamp(min=0) ** 2,
                    }[matching]
                )
                references.append(t0 if matching == "score" else ti0)
    reference = torch.stack(references)
    if matching == "score":
        reference = reference - reference.mean()
    penalty = float(torch.stack(squares).mean() / reference.square().mean())
    assert penalty > 1e-4, "the set-up must bite"
    plain = float(PlainLoss(model)([dict(f) for f in features], None))
    assert value == pytest.approx(plain + 1.5 * penalty, rel=1e-3)
    assert float(loss.components["penalty"]) == pytest.approx(penalty, rel=1e-3)


def penalty_of_scores(model, base, edited, others):
    """Score matching, by its definition, of edited copies and what they are matched with."""
    after, after0 = embed(model, edited.features), embed(base, edited.features)
    scores, scores0 = after @ embed(model, others).T, after0 @ embed(base, others).T
    return float((scores - scores0).square().mean() / (scores0 - scores0.mean()).square().mean())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", ["anchor", "positive"])
def test_a_share_of_the_texts_is_edited(kind, side, request, pair_texts):
    model = request.getfixturevalue(kind)
    base = moved(model)
    features = batch(model, pair_texts)
    loss = ITVReg(model, base, interventions="delete", per_text=0.25, sides=side)
    torch.manual_seed(11)
    loss([dict(f) for f in features], None)
    torch.manual_seed(11)
    which = ("anchor", "positive").index(side)
    rows = torch.randperm(8)[:2].sort().values
    edited = edit_texts(take(features[which], rows), loss.vocabulary, kind="delete")
    expected = penalty_of_scores(model, base, edited, features[1 - which])
    assert expected > 1e-4, "the set-up must bite"
    assert float(loss.components["penalty"]) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_target_texts_are_regularized_on_in_place_of_the_pairs(kind, request, pair_texts):
    model = request.getfixturevalue(kind)
    base = moved(model)
    features = batch(model, pair_texts)
    target = pair_texts[0][50:60]
    loss = ITVReg(model, base, interventions="delete", per_text=0.5, target=target)
    torch.manual_seed(11)
    loss([dict(f) for f in features], None)
    torch.manual_seed(11)
    drawn = [target[i] for i in torch.randperm(10)[:4].tolist()]  # half of a batch of 8
    texts = models.tokenized(model, drawn)
    edited = edit_texts(texts, loss.vocabulary, kind="delete")
    expected = penalty_of_scores(model, base, edited, texts)
    assert expected > 1e-4, "the set-up must bite"
    assert float(loss.components["penalty"]) == pytest.approx(expected, rel=1e-3)
    plain = float(PlainLoss(model)([dict(f) for f in features], None))
    assert float(loss.components["contrastive"]) == pytest.approx(plain, rel=1e-4)


def test_target_texts_and_shares_that_make_no_sense(static):
    with pytest.raises(UsageError, match="one target text"):
        ITVReg(static, static, target=["bala"])
    for per_text in (1.5, 0, -1):
        with pytest.raises(UsageError, match="per_text must be"):
            ITVReg(static, static, per_text=per_text)


@pytest.mark.parametrize("kind", KINDS)
def test_no_drift_at_the_base_and_its_gradient_pulls_back(kind, request, pair_texts):
    model = request.getfixturevalue(kind)
    features = batch(model, pair_texts)
    loss = ITVReg(model, model, matching="effect", sides="both", per_text=1)
    loss([dict(f) for f in features], None)
    assert float(loss.components["penalty"]) < 1e-8
    moved(model)
    loss.weight = 1e4  # all but the penalty alone
    drifts = []
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(40):
        total = loss([dict(f) for f in features], None)
        drifts.append(float(loss.components["penalty"]))
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    assert drifts[0] > 1e-3, "the set-up must bite"
    assert sum(drifts[-5:]) / 5 < 0.5 * sum(drifts[:5]) / 5


def test_given_negatives_count_in_all_pairs(transformer, pair_texts):
    base = moved(transformer)
    features = [
        models.tokenized(transformer, c) for c in (pair_texts[0][:6], pair_texts[1][:6], pair_texts[1][10:16])
    ]
    for loss in (ITVReg(transformer, base, sides="both"), OutReg(transformer, base)):
        assert torch.isfinite(loss([dict(f) for f in features], None))
        without = loss([dict(f) for f in features[:2]], None)
        assert float(loss([dict(f) for f in features], None)) != pytest.approx(float(without), rel=1e-3)


def test_gradient_caching_changes_nothing_but_memory(dropping_transformer, pair_texts):
    """With dropout: the second encoding must replay the masks of the first."""
    model = dropping_transformer.train()
    base = moved(model)
    features = batch(model, pair_texts, rows=12)
    for make in (PlainLoss, lambda m, **k: ITVReg(m, base, sides="both", **k)):
        loss = make(model, mini_batch_size=5)
        model.zero_grad()
        torch.manual_seed(1)
        value = loss([dict(f) for f in features], None)
        value.backward()
        cached = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        # finite difference along the cached gradient, dropout replayed by the same seed
        norm = sum(g.square().sum() for g in cached.values()).sqrt()
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                for name, p in model.named_parameters():
                    if name in cached:
                        p.add_(sign * 1e-3 * cached[name] / norm)
            torch.manual_seed(1)
            values.append(float(loss([dict(f) for f in features], None)))
            with torch.no_grad():
                for name, p in model.named_parameters():
                    if name in cached:
                        p.sub_(sign * 1e-3 * cached[name] / norm)
        assert (values[0] - values[1]) / 2e-3 == pytest.approx(float(norm), rel=0.03)


def test_gradient_caching_equals_one_pass_without_dropout(transformer, pair_texts):
    features = batch(transformer, pair_texts, rows=11)
    results = []
    for size in (None, 4):
        transformer.zero_grad()
        value = PlainLoss(transformer, mini_batch_size=size)([dict(f) for f in features], None)
        value.backward()
        results.append(
            [value.detach(), *(p.grad.clone() for p in transformer.parameters() if p.grad is not None)]
        )
    for one, cached in zip(*results, strict=True):
        torch.testing.assert_close(one, cached, rtol=1e-4, atol=1e-5)


def test_the_base_is_frozen_cached_and_no_submodule(transformer, pair_texts):
    loss = ITVReg(transformer, transformer, interventions="mask", sides="both")
    assert len(list(loss.parameters())) == len(list(transformer.parameters()))
    features = batch(transformer, pair_texts)
    before = [p.clone() for p in loss.base.model.parameters()]
    optimizer = torch.optim.SGD(transformer.parameters(), lr=1.0)
    loss([dict(f) for f in features], None).backward()
    optimizer.step()
    assert any(not torch.equal(a, b) for a, b in zip(before, transformer.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(before, loss.base.model.parameters(), strict=True))
    misses = loss.base.misses
    first = loss.base.embed(features, torch.device("cpu"))
    assert loss.base.misses == misses, "texts that were seen are not encoded again"
    fresh = FrozenBase(loss.base.model, capacity=0).embed(features, torch.device("cpu"))
    for one, other in zip(first, fresh, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_the_cache_is_bounded(transformer, pair_texts):
    base = FrozenBase(transformer, capacity=5)
    for start in range(0, 12, 4):
        (vectors,) = base.embed(
            [models.tokenized(transformer, pair_texts[0][start : start + 4])], torch.device("cpu")
        )
        assert vectors.shape == (4, 32)
        assert len(base) <= 5


def test_texts_without_anything_to_edit(transformer):
    features = [models.tokenized(transformer, ["", ""]), models.tokenized(transformer, ["bala", "dini"])]
    loss = ITVReg(transformer, transformer, sides="anchor")
    value = loss(features, None)
    assert torch.isfinite(value) and float(loss.components["penalty"]) == 0


def test_masking_edits_in_training_only(transformer, pair_texts):
    loss = MaskingLoss(transformer)
    features = batch(transformer, pair_texts)
    plain = float(PlainLoss(transformer)([dict(f) for f in features], None))
    torch.manual_seed(0)
    assert float(loss.train()([dict(f) for f in features], None)) != pytest.approx(plain, rel=1e-4)
    assert float(loss.eval()([dict(f) for f in features], None)) == pytest.approx(plain, rel=1e-5)


def test_defaults_are_those_of_the_command(transformer):
    """What the README teaches is what ``leanmatch train`` runs."""
    import dataclasses

    from leanmatch.training import RegularizerOptions
    from leanmatch.training.options import TrainOptions
    from leanmatch.training.runs import run_weights

    options = RegularizerOptions()
    for loss in (ITVReg(transformer, transformer), OutReg(transformer, transformer)):
        for name in {field.name for field in dataclasses.fields(options)} - {
            "kind",
            "weight",
            "interventions",
        }:
            assert getattr(loss, name, getattr(options, name)) == getattr(options, name), name
        assert loss.weight == max(run_weights(TrainOptions())) > 0
    assert ITVReg(transformer, transformer).matching == options.matching == "score"


def test_defaults_by_encoder(transformer, static):
    assert ITVReg(transformer, transformer).interventions == "mask"
    assert ITVReg(static, static).interventions == "delete"


def test_card_and_citation(transformer):
    loss = ITVReg(transformer, transformer, weight=0.5)
    assert loss.get_config_dict()["weight"] == 0.5
    assert loss.get_config_dict()["contrastive"] == "MultipleNegativesRankingLoss"
    assert "2210.10636" in loss.citation and "1807.03748" in PlainLoss(transformer).citation
    assert {"interventions", "unit"} <= set(MaskingLoss(transformer).get_config_dict())
    assert OutReg(transformer, transformer).get_config_dict()["pairs"] == "all"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": -1}, "weight must be at least 0"),
        ({"weight": float("nan")}, "weight must be at least 0"),
        ({"pairs": "some"}, "one of all, diagonal"),
        ({"matching": "exact"}, "one of effect, score, one-sided"),
        ({"sides": "left"}, "one of alternate, both, anchor, positive"),
        ({"interventions": "swap"}, "unknown intervention"),
        ({"mini_batch_size": 0}, "mini_batch_size must be at least 1"),
        ({"contrastive": torch.nn.MSELoss()}, "compute_loss_from_embeddings"),
    ],
)
def test_bad_options(options, message, transformer):
    with pytest.raises(UsageError, match=message):
        ITVReg(transformer, transformer, **options)
