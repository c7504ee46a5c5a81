"""A small cross-encoder for product titles and questions, trained on the training pairs of four parts.

No package on PyPI that we know of carries a cross-encoder, so docs/results/hybrid.md reranks with this one:
MiniLM with one output. A training list is a query, one match and three negatives that a hybrid search ranks
high. The loss is the cross-entropy of the softmax over the list's four scores (ListNet's top-one probability;
Cao et al.: Learning to Rank: From Pairwise Approach to Listwise Approach, 2007). Texts that belong to the
query's match, by the connected components of matching pairs, are no negatives.

    python research/train_reranker.py DATA_FOLDER OUTPUT [--base MODEL] [--lists 2400] [--steps N]
        [--bfloat16]

DATA_FOLDER holds product_titles.tsv.gz and question_pairs.tsv.gz (research/private_data.py says with which
columns). Every list is seen once, so the accuracy in the log (the share of lists whose match has the best
score; chance is .25) is on lists that the model has not been trained on. Run the same command again to
resume; with another number of steps, the learning rate falls to zero there.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from private_data import private_table
from sentence_transformers.cross_encoder import CrossEncoder

import leanmatch
from leanmatch.data import PairTable
from leanmatch.files import atomic_file
from leanmatch.formats.reader import find_model
from leanmatch.lexical import LexicalScorer, build_postings, lexical_weight

PARTS = (
    ("product_titles", "category", "cameras"),
    ("product_titles", "category", "computers"),
    ("question_pairs", "domain", "askubuntu"),
    ("question_pairs", "domain", "quora"),
)
NEGATIVES = 3
DEPTH = 50
"""Negatives are drawn from so many of the best, as a reranker sees them."""

POOL = 6_000
"""Texts of a part that are searched beside those of its lists."""

LISTS_A_STEP = 16
LENGTH = 64
RATE, HEAD_RATE = 1.5e-4, 5e-4
WARMUP = 40
SAVE_EVERY, LOG_EVERY = 10, 10


def components(table: PairTable) -> dict[str, str]:
    """Each text to one text of its group: matching pairs are joined."""
    parent: dict[str, str] = {}

    def root(text: str) -> str:
        while parent.setdefault(text, text) != text:
            parent[text] = text = parent[parent[text]]
        return text

    for anchor, positive, label in zip(table.anchors, table.positives, table.labels, strict=True):
        if label == 1:
            parent[root(anchor)] = root(positive)
    return {text: root(text) for text in dict.fromkeys([*table.anchors, *table.positives])}


def mined(
    table: PairTable, encoder: leanmatch.Encoder, count: int, rng: np.random.Generator
) -> list[tuple[str, ...]]:
    """Lists of one part: the query, its match, and negatives, of which a labelled one comes first."""
    group = components(table)
    pairs = list(zip(table.anchors, table.positives, table.labels.tolist(), strict=True))
    labelled: dict[str, list[str]] = defaultdict(list)
    for anchor, other, label in pairs:
        if label == 0 and group[anchor] != group[other]:
            labelled[anchor].append(other)
            labelled[other].append(anchor)
    matching = [pair[:2] for pair in pairs if pair[2] == 1]
    chosen = [matching[row] for row in rng.permutation(len(matching))[:count]]
    chosen = [pair if rng.random() < 0.5 else pair[::-1] for pair in chosen]
    every = list(group)
    pool = list(
        dict.fromkeys(
            [*(item for _, item in chosen), *(every[row] for row in rng.permutation(len(every))[:POOL])]
        )
    )
    scorer = LexicalScorer([(build_postings(pool), np.ones(len(pool), np.bool_))])
    items = encoder.encode_document(pool, normalize_embeddings=True)
    queries = encoder.encode_query([query for query, _ in chosen], normalize_embeddings=True)
    share = 1 / (np.arange(DEPTH) + 3)
    lists = []
    for (query, match), vector in zip(chosen, queries, strict=True):
        weight = lexical_weight(query)
        order = np.argsort(-((1 - weight) * (items @ vector) + weight * scorer(query)))[: 2 * DEPTH]
        hard = [pool[row] for row in order if group[pool[row]] != group[query]][:DEPTH]
        drawn = rng.choice(
            len(hard), NEGATIVES, replace=False, p=share[: len(hard)] / share[: len(hard)].sum()
        )
        known = labelled.get(query, [])
        first = [known[int(rng.integers(len(known)))]] if known else []
        negatives = list(dict.fromkeys([*first, *(hard[at] for at in drawn)]))[:NEGATIVES]
        lists.append((query, match, *negatives))
    return [row for row in lists if len(row) == NEGATIVES + 2]


def training_lists(data: Path, base: str, count: int) -> list[tuple[str, ...]]:
    """The lists of all parts, in steps of much the same length whose order is drawn."""
    encoder = leanmatch.load(base, precision="int8")
    rng = np.random.default_rng(0)
    lists: list[tuple[str, ...]] = []
    for name, column, value in PARTS:
        whole = leanmatch.read_pairs(private_table(data, name)).select_split("train")
        table = whole.take(np.flatnonzero(np.array([str(cell) for cell in whole.column(column)]) == value))
        lists += mined(table, encoder, count, rng)
        print(f"{value}: {len(lists):,} lists so far", flush=True)
    lists.sort(key=lambda row: len(row[0]) + max(map(len, row[1:])))
    steps = [lists[at : at + LISTS_A_STEP] for at in range(0, len(lists) - LISTS_A_STEP + 1, LISTS_A_STEP)]
    return [row for at in rng.permutation(len(steps)) for row in steps[at]]


def kept_lists(options: argparse.Namespace) -> list[tuple[str, ...]]:
    """The lists that an earlier run wrote down, or new ones."""
    path = options.output / f"lists-{options.lists}.json"
    if not path.is_file():
        lists = training_lists(options.data, options.base, options.lists)
        with atomic_file(path) as temporary:
            temporary.write_text(json.dumps(lists), encoding="utf-8")
    return [tuple(row) for row in json.loads(path.read_text(encoding="utf-8"))]


def rate_at(step: int, steps: int) -> float:
    """Share of the full learning rate: a linear rise, then a linear fall."""
    return min((step + 1) / WARMUP, (steps - step) / max(steps - WARMUP, 1))


def train(
    model: CrossEncoder, lists: list[tuple[str, ...]], state_file: Path, steps: int | None, bfloat16: bool
) -> NDArray[np.float64]:
    """Train in place; returns loss and accuracy of each step, before its update, shape ``(steps, 2)``."""
    network: Any = model.model
    for name, parameter in network.named_parameters():
        parameter.requires_grad = "word_embeddings" not in name
    head, body = [], []
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            (head if "classifier" in name or "pooler" in name else body).append(parameter)
    optimizer = torch.optim.AdamW([{"params": body, "lr": RATE}, {"params": head, "lr": HEAD_RATE}])
    steps = len(lists) // LISTS_A_STEP if steps is None else min(steps, len(lists) // LISTS_A_STEP)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_at(step, steps))
    seen: list[tuple[float, float]] = []
    if state_file.is_file():
        state = torch.load(state_file, weights_only=True)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        seen = [(loss, right) for loss, right in state["seen"]]
        print(f"goes on at step {len(seen)} of {steps}", flush=True)
    network.train()
    began, used = time.monotonic(), time.process_time()
    for step in range(len(seen), steps):
        batch = lists[step * LISTS_A_STEP : (step + 1) * LISTS_A_STEP]
        pairs = [(row[0], item) for row in batch for item in row[1:]]
        tokens = model.tokenizer(
            [query for query, _ in pairs],
            [item for _, item in pairs],
            truncation=True,
            max_length=LENGTH,
            padding=True,
            return_tensors="pt",
        )
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            scores = network(**tokens).logits
        scores = scores.float().view(-1, NEGATIVES + 1)
        loss = torch.nn.functional.cross_entropy(scores, torch.zeros(len(scores), dtype=torch.long))
        loss.backward()
        torch.nn.utils.clip_grad_norm_([*head, *body], 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        seen.append((float(loss.detach()), float((scores.argmax(1) == 0).float().mean())))
        if (step + 1) % LOG_EVERY == 0:
            mean = np.mean(seen[-50:], axis=0)
            print(
                f"step {step + 1} of {steps}: over the last 50 loss {mean[0]:.3f}, accuracy {mean[1]:.3f}; "
                f"{time.monotonic() - began:.0f} s, {time.process_time() - used:.0f} s of processor time",
                flush=True,
            )
        if (step + 1) % SAVE_EVERY == 0:
            state = {
                "network": network.state_dict(),
                "optimizer": optimizer.state_dict(),
                "schedule": schedule.state_dict(),
                "seen": seen,
            }
            with atomic_file(state_file) as temporary:
                torch.save(state, temporary)
    network.eval()
    return np.array(seen)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--base", default="sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--lists", type=int, default=2_400, help="of each part, at most")
    parser.add_argument("--steps", type=int, help="fewer steps than there are lists for")
    parser.add_argument("--bfloat16", action="store_true", help="faster where the processor multiplies it")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    lists = kept_lists(options)
    torch.manual_seed(0)
    model = CrossEncoder(
        str(find_model(options.base) or options.base),
        num_labels=1,
        max_length=LENGTH,
        device="cpu",
        config_kwargs={"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
    )
    train(model, lists, options.output / "state.pt", options.steps, options.bfloat16)
    model.save_pretrained(str(options.output / "model"))


if __name__ == "__main__":
    main()
