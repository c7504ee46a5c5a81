"""MTEB's and BEIR's evaluators run our encoder on a small local corpus; our evaluation gives their numbers.

    python scripts/verify/evaluators.py FOLDER_OF_A_MODEL

MTEB's own wrapper takes what ``leanmatch.load`` returns; BEIR needs the adapter below.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

import mteb
import torch
from beir.retrieval.evaluation import EvaluateRetrieval
from beir.retrieval.search.dense import DenseRetrievalExactSearch
from mteb_task import made_up_task

import leanmatch
from leanmatch import EvaluationOptions, evaluate, read_pairs

METRICS = ("nDCG@10", "MRR@10", "Recall@10", "P@5")
MOST = 1e-5
"""MTEB and BEIR round to five decimals."""


class ForBEIR:
    """``leanmatch.load`` as a BEIR model."""

    def __init__(self, model: str) -> None:
        self.encoder = leanmatch.load(model)

    def encode_queries(self, queries: list[str], batch_size: int = 64, **_: Any) -> torch.Tensor:
        return self.encoder.encode(queries, batch_size=batch_size, convert_to_tensor=True)

    def encode_corpus(self, corpus: list[dict[str, str]], batch_size: int = 64, **_: Any) -> torch.Tensor:
        texts = [f"{one.get('title', '')} {one['text']}".strip() for one in corpus]
        return self.encoder.encode(texts, batch_size=batch_size, convert_to_tensor=True)


def made_up_corpus() -> tuple[dict[str, str], dict[str, str], dict[str, dict[str, int]]]:
    """Queries, documents and judgements: sentences of common words that share some."""
    nouns = ["train", "river", "bread", "window", "garden", "engine", "violin", "market", "harbour", "letter"]
    verbs = ["carries", "crosses", "paints", "repairs", "follows", "measures", "forgets", "opens"]
    draw = random.Random(0)
    corpus, queries, qrels = {}, {}, {}
    for row in range(120):
        words = draw.sample(nouns, 4)
        corpus[f"d{row}"] = f"the {words[0]} {draw.choice(verbs)} the {words[1]} near the {words[2]} ({row})"
        if row % 4 == 0:
            queries[f"q{row}"] = f"which {words[0]} {draw.choice(verbs)} a {words[1]} or a {words[2]}?"
            qrels[f"q{row}"] = {f"d{row}": 1, f"d{(row + 7) % 120}": 1}
    return queries, corpus, qrels


def ours(model: str) -> dict[str, float]:
    queries, corpus, qrels = made_up_corpus()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "qrels").mkdir()
        for file, texts in (("corpus", corpus), ("queries", queries)):
            lines = [json.dumps({"_id": key, "title": "", "text": text}) for key, text in texts.items()]
            (folder / f"{file}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        judged = [f"{q}\t{d}\t{grade}" for q, found in qrels.items() for d, grade in found.items()]
        lines = ["query-id\tcorpus-id\tscore", *judged]
        (folder / "qrels" / "test.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        table = read_pairs(folder)
    options = EvaluationOptions(symmetric=False, metrics=METRICS)
    found = evaluate(leanmatch.load(model), table, options=options)
    return {metric: found.slices["overall"].metrics[metric].value for metric in METRICS}


def from_mteb(model: str) -> dict[str, float]:
    encoder = mteb.models.SentenceTransformerEncoderWrapper(leanmatch.load(model))
    result = mteb.evaluate(
        encoder,
        [made_up_task(*made_up_corpus())],
        cache=None,
        overwrite_strategy="always",
        show_progress_bar=False,
    )
    scores = result.task_results[0].scores["test"][0]
    names = ("ndcg_at_10", "mrr_at_10", "recall_at_10", "precision_at_5")
    return dict(zip(METRICS, (float(scores[name]) for name in names), strict=True))


def from_beir(model: str) -> dict[str, float]:
    queries, corpus, qrels = made_up_corpus()
    search = DenseRetrievalExactSearch(ForBEIR(model), batch_size=64)
    retriever = EvaluateRetrieval(search, k_values=[5, 10], score_function="cos_sim")
    results = retriever.retrieve({k: {"title": "", "text": v} for k, v in corpus.items()}, queries)
    ndcg, _, recall, precision = retriever.evaluate(qrels, results, [5, 10])
    mrr = retriever.evaluate_custom(qrels, results, [10], metric="mrr")
    values = (ndcg["NDCG@10"], mrr["MRR@10"], recall["Recall@10"], precision["P@5"])
    return dict(zip(METRICS, values, strict=True))


def main(model: str) -> None:
    own = ours(model)
    assert 0.2 < own["nDCG@10"] < 0.999, f"the corpus tells nothing: {own}"
    for name, theirs in (("MTEB", from_mteb(model)), ("BEIR", from_beir(model))):
        for metric in METRICS:
            print(f"{name}: {metric} {theirs[metric]:.5f}, leanmatch {own[metric]:.5f}")
            assert abs(theirs[metric] - own[metric]) <= MOST, f"{name} and leanmatch differ in {metric}"


if __name__ == "__main__":
    main(sys.argv[1])
