"""Our metrics equal those of pytrec_eval and ranx on random runs with ties.

    python scripts/verify/metrics.py

pytrec_eval gets the tied scores themselves; it puts the larger document name first, we the smaller number, so
the names fall as the numbers rise. ranx sorts ties as it likes: it gets our ranking with falling scores.
"""

from __future__ import annotations

import numpy as np
import pytrec_eval
from ranx import Qrels, Run
from ranx import evaluate as ranx_evaluate

from leanmatch.metrics.names import parse_retrieval_metric
from leanmatch.metrics.ranking.retrieval import Judgements, per_query
from leanmatch.metrics.ranking.search import top_k

METRICS = ("nDCG@10", "nDCG@3", "MRR@10", "P@5", "Recall@10", "Recall@100")
TREC = {
    "nDCG@10": "ndcg_cut_10",
    "nDCG@3": "ndcg_cut_3",
    "P@5": "P_5",
    "Recall@10": "recall_10",
    "Recall@100": "recall_100",
}
RANX = {
    "nDCG@10": "ndcg@10",
    "nDCG@3": "ndcg@3",
    "MRR@10": "mrr@10",
    "P@5": "precision@5",
    "Recall@10": "recall@10",
    "Recall@100": "recall@100",
}
ROUNDS, QUERIES, CANDIDATES, DIMENSION = 20, 40, 150, 4


def main() -> None:
    ties = 0
    worst = dict.fromkeys(("pytrec_eval", "ranx"), 0.0)
    for seed in range(ROUNDS):
        rng = np.random.default_rng(seed)
        queries = rng.integers(-1, 2, (QUERIES, DIMENSION)).astype(np.float32)
        candidates = rng.integers(-1, 2, (CANDIDATES, DIMENSION)).astype(np.float32)
        scores = queries @ candidates.T  # whole numbers: few values, many ties, exact in float32
        ties += sum(CANDIDATES - len(set(row)) for row in scores.tolist())
        rows = np.repeat(np.arange(QUERIES), 4)
        items = np.concatenate([rng.choice(CANDIDATES, 4, replace=False) for _ in range(QUERIES)])
        judgements = Judgements(QUERIES, rows, items, rng.integers(1, 4, len(rows)))
        ranking = top_k(queries, candidates, CANDIDATES).indices
        own = per_query(ranking, judgements, [parse_retrieval_metric(name) for name in METRICS])

        name = [f"{CANDIDATES - 1 - item:06d}" for item in range(CANDIDATES)]
        qrels = {
            query: {name[int(item)]: grade for item, grade in judged.items()}
            for query, judged in judgements.qrels.items()
        }
        tied = {
            str(q): {name[item]: float(scores[q, item]) for item in range(CANDIDATES)} for q in range(QUERIES)
        }
        found = pytrec_eval.RelevanceEvaluator(qrels, set(TREC.values())).evaluate(tied)
        for metric, theirs in TREC.items():
            values = np.array([found[str(q)][theirs] for q in range(QUERIES)])
            worst["pytrec_eval"] = max(
                worst["pytrec_eval"], float(np.abs(values - own[:, METRICS.index(metric)]).max())
            )
        falling = {
            str(q): {name[item]: float(CANDIDATES - place) for place, item in enumerate(ranking[q].tolist())}
            for q in range(QUERIES)
        }
        means = ranx_evaluate(Qrels(qrels), Run(falling), list(RANX.values()), make_comparable=True)
        for metric, theirs in RANX.items():
            difference = abs(float(means[theirs]) - float(own[:, METRICS.index(metric)].mean()))
            worst["ranx"] = max(worst["ranx"], difference)
    assert ties > 1000, "the runs have ties"
    for other, difference in worst.items():
        print(f"{other}: largest difference {difference:.1e} in {ROUNDS} runs with {ties:,} tied scores")
        assert difference <= 1e-6, f"{other} gives other numbers"


if __name__ == "__main__":
    main()
