"""Rankings by terms and by a reranker, against sums over all candidates."""

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("bm25s", reason="bm25s is not installed (extra hybrid)")

from leanmatch.data import PairTable
from leanmatch.errors import UsageError
from leanmatch.lexical import LexicalScorer, build_postings, lexical_weight
from leanmatch.metrics import EvaluationOptions, Ranking, evaluate
from leanmatch.models.reranker import reranking_scores

OPTIONS = EvaluationOptions(metrics=("MRR@10", "P@1"), resamples=200, split="all")


class First:
    """Knows which item is right: the one whose number is the query's."""

    name = "first"

    def __init__(self):
        self.pairs = []

    def scores(self, pairs):
        self.pairs += pairs
        number = [tuple(text.split()[-1].replace("-", "").lower() for text in pair) for pair in pairs]
        return np.array([float(query == item) for query, item in number])


def noise(texts):
    vectors = np.random.default_rng(len(texts)).standard_normal((len(texts), 256)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def numbers():
    """Queries and items that share a part number and nothing else."""
    return PairTable.from_columns(
        {
            "anchor": [f"part QX-{n}10" for n in range(60)],
            "positive": [f"spare qx{n}10" for n in range(60)],
            "site": ["a" if n % 2 else "b" for n in range(60)],
        },
        "made-up",
    )


def value(evaluation, metric="MRR@10", part="overall"):
    return evaluation.slices[part].metrics[metric]


def test_terms_find_what_vectors_of_noise_do_not(numbers):
    dense = evaluate(noise, numbers, options=OPTIONS)
    both = evaluate(noise, numbers, options=OPTIONS, ranking=Ranking(hybrid=True), against=noise)
    assert value(dense).value < 0.3 and value(both).value > 0.9
    assert value(both).base == value(dense).value and value(both).verdict == "better"
    assert any("part number 0.5" in note for note in both.notes)


@pytest.mark.parametrize("weight", [None, 0.0, 0.3, 1.0])
def test_the_ranking_is_that_of_the_sum(table, words, weight):
    found = evaluate(words, table, options=OPTIONS, ranking=Ranking(hybrid=True, weight=weight))
    rows = table.relevant()
    items = list(dict.fromkeys(table.positives))
    scorer = LexicalScorer([(build_postings(items), np.ones(len(items), bool))])
    vectors = words(items)
    ranks = []
    for anchor, positive in zip(rows.anchors, rows.positives, strict=True):
        used = lexical_weight(anchor, weight)
        sums = (1 - used) * (vectors @ words([anchor])[0]) + used * scorer(anchor)
        rank = 1 + int((sums > sums[items.index(positive)] + 1e-6).sum())
        ranks.append(1 / rank if rank <= 10 else 0.0)
    assert value(found).value == pytest.approx(np.mean(ranks), abs=0.02)  # ties
    assert weight == 0.0 or value(found).value != value(evaluate(words, table, options=OPTIONS)).value


def test_a_reranker_orders_the_first_and_scores_a_pair_once(numbers):
    reranker = First()
    options = EvaluationOptions(metrics=("MRR@10", "P@1"), resamples=200, split="all", slices=("site",))
    dense = evaluate(
        noise, numbers, options=EvaluationOptions(metrics=("Recall@5",), resamples=200, split="all")
    )
    found = evaluate(
        noise, numbers, options=options, ranking=Ranking(reranker=reranker, rerank_top=5, rerank_weight=1)
    )
    assert value(found, "P@1").value == pytest.approx(value(dense, "Recall@5").value)
    assert 60 * 5 <= len(reranker.pairs) == len(set(reranker.pairs))
    assert any("reranked by first" in note for note in found.notes)


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.5, 1.0])
def test_a_weight_between_the_search_and_the_reranker(weight):
    """Against the formula; one item and equal scores have no spread."""
    found = [np.array([0.9, 0.5, 0.4], np.float32), np.array([0.7]), np.array([0.3, 0.3]), np.zeros(0)]
    logits = np.array([-1.0, 3.0, 2.5, 4.0, 1.0, 5.0])
    reranker = SimpleNamespace(scores=lambda pairs: 1 / (1 + np.exp(-logits)), logits=lambda pairs: logits)
    own = reranking_scores(reranker, [("q", "i")] * 6, found, weight)
    assert [len(part) for part in own] == [3, 1, 2, 0]
    if weight == 1:
        assert np.concatenate(own) == pytest.approx(1 / (1 + np.exp(-logits)))
        return
    first, spread = logits[:3], found[0].astype(np.float64)
    expected = weight * (first - first.mean()) / first.std()
    expected += (1 - weight) * (spread - spread.mean()) / spread.std()
    assert own[0] == pytest.approx(expected)
    assert own[1] == [0] and own[2] == pytest.approx(weight * np.array([-1.0, 1.0]))


@pytest.mark.parametrize(
    "options", [{"weight": 0.5}, {"hybrid": True, "weight": 2.0}, {"rerank_top": 0}, {"rerank_weight": -0.1}]
)
def test_options_out_of_range(options):
    with pytest.raises(UsageError):
        Ranking(**options)
