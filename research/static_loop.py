"""Training of a static encoder without the trainer's overhead, for grids: a fifth of the processor time.

Batches, loss, clipping, optimizer and schedule are those of ``leanmatch.training.engine.train_stage`` in one
process, so that plain and OutReg runs end with the trainer's weights up to rounding (tests/test_research.py).
ITVReg draws other edits than the trainer does. Only rows of the embedding that the texts use are trained:
without weight decay AdamW never moves the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from leanmatch.data import PairTable
from leanmatch.training import RegularizerOptions, ScheduleOptions

EVALUATIONS = 10
PATIENCE = 2


@dataclass(frozen=True)
class Bags:
    """Texts as bags of rows.

    Attributes:
        number: of each text.
        rows: of each text, its tokens' places among the rows that are trained.
    """

    number: dict[str, int]
    rows: list[Tensor]

    @classmethod
    def of(cls, tokenizer: object, texts: Sequence[str], used: Tensor) -> Bags:
        """Tokenize once. ``used`` is sorted, and holds every token of the texts."""
        encoded = tokenizer.encode_batch(list(texts), add_special_tokens=False)  # type: ignore[attr-defined]
        rows = [torch.searchsorted(used, torch.tensor(each.ids, dtype=torch.int64)) for each in encoded]
        return cls({text: place for place, text in enumerate(texts)}, rows)


def train_rows(
    start: Tensor,
    base: Tensor,
    bags: Bags,
    table: PairTable,
    regularizer: RegularizerOptions,
    schedule: ScheduleOptions,
    *,
    target: Sequence[str] = (),
    score: Callable[[Tensor], float] | None = None,
) -> tuple[Tensor, Tensor]:
    """The rows that a run ends with, and the best of ten by ``score`` (early stopping; else the same).

    Args:
        start: rows to begin with, ``(rows, dimensions)``.
        base: the frozen base's.
        bags: the texts of ``table`` and ``target``.
        regularizer: ``none``, ``out`` or ``itv`` with scores of all pairs and deletions.
        schedule: ``max_steps``, ``lr``, ``batch_size``, ``warmup`` and ``seed`` count.
        target: texts to regularize on.
        score: of rows, on validation pairs.
    """
    steps, peak = int(schedule.max_steps or 0), float(schedule.lr or 0)
    warm = round(schedule.warmup * steps)
    rows = start.clone().requires_grad_(True)
    optimizer = torch.optim.AdamW([rows], lr=peak, weight_decay=0.0, fused=True)
    draw = torch.Generator().manual_seed(schedule.seed)
    kept = [bags.rows[bags.number[text]] for text in target]
    best, best_score, bad = start, -1.0, 0
    every = max(1, steps // EVALUATIONS)
    pairs = batches(table, bags, schedule)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = peak * (step / warm if step < warm else (steps - step) / max(1, steps - warm))
        loss = batch_loss(rows, base, next(pairs), regularizer, kept, draw)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([rows], 1.0)
        optimizer.step()
        if score is not None and bad < PATIENCE and (step + 1) % every == 0:
            value = score(rows.detach())
            bad = 0 if value > best_score else bad + 1
            if bad == 0:
                best, best_score = rows.detach().clone(), value
    trained = rows.detach()
    return trained, best if score is not None else trained


def batches(
    table: PairTable, bags: Bags, schedule: ScheduleOptions
) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    """Anchors and positives of each batch; no text stands twice in one."""
    pairs = table.relevant()
    anchors = [bags.number[text] for text in pairs.anchors]
    positives = [bags.number[text] for text in pairs.positives]
    epoch = 0
    while True:
        order = torch.Generator().manual_seed(schedule.seed + epoch)
        left = torch.randperm(len(anchors), generator=order).tolist()
        while left:
            seen: set[int] = set()
            batch: list[int] = []
            rest: list[int] = []
            for place, row in enumerate(left):
                if anchors[row] in seen or positives[row] in seen:
                    rest.append(row)
                    continue
                seen |= {anchors[row], positives[row]}
                batch.append(row)
                if len(batch) == schedule.batch_size:
                    rest += left[place + 1 :]
                    break
            left = rest
            yield [bags.rows[anchors[row]] for row in batch], [bags.rows[positives[row]] for row in batch]
        epoch += 1


def batch_loss(
    rows: Tensor,
    base: Tensor,
    batch: tuple[list[Tensor], list[Tensor]],
    regularizer: RegularizerOptions,
    target: Sequence[Tensor],
    draw: torch.Generator,
) -> Tensor:
    """InfoNCE at temperature 0.05, and the regularizer."""
    anchors, positives = batch
    count = len(anchors)
    edited: list[Tensor] = []
    changed: list[bool] = []
    others: list[Tensor] = []
    if regularizer.kind == "itv":
        texts = batch[int(torch.randint(2, (), generator=draw))]
        others = positives if texts is anchors else anchors
        copies = max(2 if target else 1, round(min(1.0, float(regularizer.per_text)) * count))
        source = target or texts
        chosen = torch.randperm(len(source), generator=draw)[:copies].tolist()
        if target:
            others = [source[number] for number in chosen]
        for number in chosen:
            cut = int(torch.randint(max(1, len(source[number])), (), generator=draw))
            changed.append(len(source[number]) > 1)  # a bag of one token stays as it is
            keep = torch.arange(len(source[number])) != cut
            edited.append(source[number][keep] if changed[-1] else source[number])
    parts = [anchors, positives, edited, others if target else []]
    vectors = embed(rows, parts)
    scores = vectors[0] @ vectors[1].T
    loss = functional.cross_entropy(20 * scores, torch.arange(count))
    if regularizer.kind == "out":
        frozen = embed(base, parts)
        scores0 = frozen[0] @ frozen[1].T
        spread = scores0.var(correction=0).clamp(min=1e-6)
        loss = loss + float(regularizer.weight) * (scores - scores0).square().mean() / spread
    elif regularizer.kind == "itv" and any(changed):
        frozen = embed(base, parts)
        against = 3 if target else 1 if others is positives else 0
        after, after0 = vectors[2] @ vectors[against].T, frozen[2] @ frozen[against].T
        some = torch.tensor(changed)
        size = (after0 - after0.mean())[some].square().mean().clamp(min=1e-8)
        loss = loss + float(regularizer.weight) * (after - after0)[some].square().mean() / size
    return loss


def embed(rows: Tensor, parts: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """Normalized means of the rows of each text, part by part."""
    texts = [text for part in parts for text in part]
    ends = torch.tensor([0, *(len(text) for text in texts)]).cumsum(0)[:-1]
    means = functional.embedding_bag(torch.cat(texts), rows, ends, mode="mean")
    return list(functional.normalize(means, dim=1).split([len(part) for part in parts]))
