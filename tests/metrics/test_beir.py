"""BEIR folders: documents that look like queries, and documents that come twice."""

from __future__ import annotations

import json

import pytest

from leanmatch.data import read_pairs
from leanmatch.metrics import evaluate
from leanmatch.metrics.ranking.quick import retrieval_score


def write_beir(folder, documents, queries, judged):
    """``documents`` and ``queries`` are ids to texts, ``judged`` pairs of ids."""
    (folder / "qrels").mkdir(parents=True)
    for name, texts in (("corpus", documents), ("queries", queries)):
        lines = [json.dumps({"_id": key, "text": text}) + "\n" for key, text in texts.items()]
        (folder / f"{name}.jsonl").write_text("".join(lines))
    rows = "".join(f"{query}\t{document}\t1\n" for query, document in judged)
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + rows)
    return folder


def clashing(folder, *, chance):
    """Queries and documents are numbered from 0; where ``chance``, number 3 is one text on both sides."""
    queries = {str(i): f"word{i} question" for i in range(8)}
    documents = {str(i): f"word{(i + 1) % 8} answer" for i in range(8)}
    if chance:
        queries["3"] = documents["3"]
    judged = [(str(i), str((i - 1) % 8)) for i in range(8)]
    return read_pairs(write_beir(folder, documents, queries, judged))


def test_one_document_with_the_id_and_the_text_of_a_query_changes_that_query_alone(tmp_path, words):
    plain = evaluate(words, clashing(tmp_path / "plain", chance=False))
    same = evaluate(words, clashing(tmp_path / "same", chance=True))
    assert plain.slices["overall"].metrics["MRR@10"].value == 1.0
    assert not same.symmetric
    assert same.slices["overall"].n_candidates == 8
    assert same.slices["overall"].metrics["P@1"].value == 7 / 8  # query 3 is another document's text
    assert same.candidates.startswith("the corpus that comes with the data")


def test_queries_that_are_documents_of_the_corpus_do_not_find_themselves(tmp_path, words):
    texts = {f"d{i}": f"word{i // 2} copy{i}" for i in range(8)}
    judged = [(f"d{i}", f"d{i ^ 1}") for i in range(8)]
    found = evaluate(words, read_pairs(write_beir(tmp_path / "b", texts, texts, judged)))
    assert found.symmetric
    assert found.slices["overall"].metrics["MRR@10"].value == 1.0


@pytest.mark.parametrize("judged", ["first", "second", "third"])
def test_a_document_that_comes_several_times_is_found_whichever_copy_was_judged(tmp_path, words, judged):
    documents = {"first": "usb dock", "second": "usb dock", "third": "usb dock", "other": "hdmi cable"}
    queries = {"q": "usb dock with ports", "r": "cable"}
    table = read_pairs(write_beir(tmp_path / "b", documents, queries, [("q", judged), ("r", "other")]))
    found = evaluate(words, table)
    assert found.slices["overall"].metrics["MRR@10"].value == 1.0
    assert found.slices["overall"].n_candidates == 2
    assert retrieval_score(words, table) == 1.0
    assert any(note.startswith("2 items have the text of another item") for note in found.notes)
