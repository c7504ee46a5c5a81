"""The fast training loop of the grid of shifts against the trainer."""

from __future__ import annotations

import importlib
import sys

import pytest
import torch

import training_models as models
from leanmatch.training import RegularizerOptions, ScheduleOptions, TrainOptions, fit


@pytest.fixture
def loop(repository, monkeypatch):
    monkeypatch.syspath_prepend(str(repository / "research"))
    yield importlib.import_module("static_loop")
    sys.modules.pop("static_loop", None)


@pytest.mark.parametrize("kind", ["none", "out"])
def test_the_loop_of_the_grid_ends_with_the_weights_of_the_trainer(kind, loop, tmp_path):
    table, model = models.pairs(), models.static_model()
    schedule = ScheduleOptions(max_steps=30, lr=1e-2, batch_size=16, device="cpu", seed=1)
    regularizer = RegularizerOptions(kind=kind, weight=0.3)
    start = model.state_dict()["0.embedding.weight"].clone()
    texts = sorted({*table.anchors, *table.positives})
    encoded = model[0].tokenizer.encode_batch(texts, add_special_tokens=False)
    used = torch.tensor(sorted({number for each in encoded for number in each.ids}))
    bags = loop.Bags.of(model[0].tokenizer, texts, used)
    scores = iter([0.1, 0.3, 0.2, 0.2, 0.9])  # the best of ten, until two in a row are no better
    seen = []
    ours, best = loop.train_rows(
        start[used],
        start[used],
        bags,
        table,
        regularizer,
        schedule,
        score=lambda rows: seen.append(rows.clone()) or next(scores),
    )
    fit(
        model,
        table,
        None,
        TrainOptions(regularizer=regularizer, average=1.0, negatives="none", schedule=schedule),
        tmp_path,
    )
    theirs = model.state_dict()["0.embedding.weight"][used]
    moved = (theirs - start[used]).abs().max()
    assert moved > 0.05 and float((ours - theirs).abs().max()) < 0.01 * float(moved)
    assert len(seen) == 4 and torch.equal(best, seen[1])


@pytest.mark.parametrize("target", [False, True])
def test_the_loss_of_the_loop_is_itvreg_on_its_own_edits(target, loop):
    """Against the definition, one pair of texts at a time in float64."""
    draw = torch.Generator().manual_seed(3)
    base, rows = (torch.randn(40, 8, generator=draw) for _ in range(2))
    texts = [
        [torch.randint(40, (length,), generator=draw) for length in (1, 5, 3, 2, 4, 1, 6, 2)]
        for _ in range(3)
    ]
    anchors, positives, others = texts
    regularizer = RegularizerOptions(kind="itv", weight=2.0, per_text=1)
    seeded = [torch.Generator().manual_seed(5) for _ in range(2)]
    batch, kept = (anchors, positives), others if target else []
    plain = loop.batch_loss(rows, base, batch, RegularizerOptions(kind="none", weight=0.0), [], seeded[0])
    loss = loop.batch_loss(rows, base, batch, regularizer, kept, seeded[0])

    side = int(torch.randint(2, (), generator=seeded[1]))
    source = others if target else batch[side]
    chosen = torch.randperm(8, generator=seeded[1]).tolist()
    cuts = [int(torch.randint(len(source[number]), (), generator=seeded[1])) for number in chosen]
    against = [source[number] for number in chosen] if target else batch[1 - side]

    def cosine(weight, left, right):
        one, other = (weight.double()[text].mean(0) for text in (left, right))
        return float(one @ other / one.norm() / other.norm())

    edited = [
        torch.cat([source[number][:cut], source[number][cut + 1 :]]) if len(source[number]) > 1 else None
        for number, cut in zip(chosen, cuts, strict=True)
    ]
    assert sum(text is None for text in edited) == 2  # a text of one token stays as it is
    copies = [source[number] if text is None else text for number, text in zip(chosen, edited, strict=True)]
    frozen = torch.tensor([[cosine(base, copy, text) for text in against] for copy in copies])
    after = torch.tensor([[cosine(rows, copy, text) for text in against] for copy in copies])
    some = torch.tensor([text is not None for text in edited])
    drift = (after - frozen)[some].square().mean() / (frozen - frozen.mean())[some].square().mean()
    assert float(drift) > 0.1
    torch.testing.assert_close(loss - plain, 2.0 * drift, rtol=1e-4, atol=1e-5)
