"""Ranking metrics: by hand, against slow definitions and against pytrec_eval on untruncated rankings."""

from __future__ import annotations

import math

import numpy as np
import pytest

from leanmatch.errors import UsageError
from leanmatch.metrics.names import DEFAULT_METRICS, parse_retrieval_metric, split_metrics
from leanmatch.metrics.ranking.retrieval import Judgements, per_query

METRICS = [parse_retrieval_metric(name) for name in ("nDCG@10", "MRR@10", "P@1", "P@5", "Recall@10", "MRR@3")]


def made_up(seed, n_queries=40, n_items=60, depth=30):
    rng = np.random.default_rng(seed)
    ranking = np.argsort(rng.random((n_queries, n_items)), axis=1)[:, :depth]
    judged = np.argwhere(rng.random((n_queries, n_items + 5)) < 0.06)
    missing = np.setdiff1d(np.arange(n_queries), judged[:, 0])
    judged = np.vstack([judged, np.stack([missing, np.full_like(missing, n_items)], axis=1)])
    grades = rng.integers(1, 4, len(judged))
    return ranking, Judgements(n_queries, judged[:, 0], judged[:, 1], grades)


def slow(ranking, relevant, metric):
    """The textbook definitions, item by item; ``relevant`` maps items to grades."""
    k = metric.k
    places = [j for j, item in enumerate(ranking[:k].tolist(), start=1) if item in relevant]
    if metric.family == "MRR":
        return 1 / places[0] if places else 0.0
    if metric.family == "P":
        return len(places) / k
    if metric.family == "Recall":
        return len(places) / len(relevant)
    gained = sum(relevant[ranking[j - 1]] / math.log2(j + 1) for j in places)
    ideal = sorted(relevant.values(), reverse=True)[:k]
    return gained / sum(grade / math.log2(j + 1) for j, grade in enumerate(ideal, start=1))


@pytest.mark.parametrize("seed", range(5))
def test_equals_the_definitions(seed):
    ranking, judgements = made_up(seed)
    got = per_query(ranking, judgements, METRICS)
    assert (got > 0).any(axis=0).all() and (got < 1).any(axis=0).all()
    for query in range(judgements.n_queries):
        mine = judgements.queries == query
        relevant = dict(zip(judgements.items[mine].tolist(), judgements.grades[mine].tolist(), strict=True))
        want = [slow(ranking[query], relevant, metric) for metric in METRICS]
        assert got[query] == pytest.approx(want, abs=1e-6)


def test_equals_pytrec_eval_on_whole_rankings():
    pytrec_eval = pytest.importorskip("pytrec_eval")
    ranking, judgements = made_up(9)
    names = {"ndcg_cut_10", "recip_rank", "P_1", "P_5", "recall_10"}
    run = {str(q): {str(i): -float(j) for j, i in enumerate(row)} for q, row in enumerate(ranking.tolist())}
    found = pytrec_eval.RelevanceEvaluator(judgements.qrels, names).evaluate(run)
    got = per_query(ranking, judgements, METRICS)
    for query in range(judgements.n_queries):
        want = found[str(query)]
        assert got[query, [0, 2, 3, 4]].tolist() == [
            want[n] for n in ("ndcg_cut_10", "P_1", "P_5", "recall_10")
        ]
        whole = want["recip_rank"]
        assert got[query, 1] == (whole if whole > 1 / 10.5 else 0)


def test_by_hand():
    ranking = np.array([[4, 7, 2, -1], [1, 3, 0, 2]])
    judgements = Judgements(2, np.array([0, 0, 1]), np.array([7, 9, 2]))
    metrics = [
        parse_retrieval_metric(name) for name in ("MRR@10", "P@1", "P@5", "Recall@10", "nDCG@3", "MRR@3")
    ]
    got = per_query(ranking, judgements, metrics)
    ideal = 1 + 1 / math.log2(3)
    assert got[0] == pytest.approx([0.5, 0, 0.2, 0.5, (1 / math.log2(3)) / ideal, 0.5])
    assert got[1] == pytest.approx([0.25, 0, 0.2, 1, 0, 0])


def test_reciprocal_rank_is_cut_exactly_after_rank_k():
    ranking = np.arange(12)[None, :].repeat(2, axis=0)
    judgements = Judgements(2, np.array([0, 1]), np.array([9, 10]))
    assert per_query(ranking, judgements, [parse_retrieval_metric("MRR@10")])[:, 0].tolist() == [0.1, 0.0]


def test_no_queries():
    nothing = Judgements(0, np.empty(0, np.int64), np.empty(0, np.int64))
    assert per_query(np.empty((0, 3), np.int64), nothing, METRICS).shape == (0, len(METRICS))


def test_psp_has_no_value_a_query():
    ranking, judgements = made_up(1)
    with pytest.raises(UsageError, match="PSP@1"):
        per_query(ranking, judgements, [parse_retrieval_metric("PSP@1")])


@pytest.mark.parametrize("name", ["MAP@10", "MRR", "P@0", "mrr@10", "P@1001", "", "P@1.5", "AUC@0.1"])
def test_unknown_metrics_are_refused_with_those_there_are(name):
    with pytest.raises(UsageError, match=r"nDCG@k, MRR@k, P@k, Recall@k, PSP@k, AUC, AUC@0.05, AP"):
        split_metrics([name])


def test_default_metrics_parse():
    retrieval, pairs = split_metrics(DEFAULT_METRICS)
    assert [str(metric) for metric in retrieval] + list(pairs) == list(DEFAULT_METRICS)
