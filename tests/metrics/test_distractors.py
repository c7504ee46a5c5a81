"""Further candidates of a search among held-out pairs: which texts they are, what they do to the ranks."""

from __future__ import annotations

import numpy as np
import pytest

from leanmatch.data import ItemTable, PairTable
from leanmatch.metrics import RetrievalProbe
from leanmatch.metrics.ranking.distractors import distractors


class TestDistractors:
    """Candidates beside the table's own."""

    @pytest.mark.parametrize("symmetric", [False, True])
    def test_ranks_are_those_of_a_search_by_hand(self, table, words, symmetric):
        relevant = table.relevant()
        near = relevant.anchors[1].rpartition(" ")[0]  # has all words of a query but the last
        further = [near, "w1 w2 w3", "y3", near, relevant.positives[0]]  # the last one is a candidate already
        probe = RetrievalProbe(table, "MRR@10", symmetric=symmetric, distractors=further)
        own = {*table.positives, *(table.anchors if symmetric else [])}
        assert probe.candidates == len(own) + 3
        everything = sorted({*own, *table.anchors, *further})
        vector = dict(zip(everything, words(everything), strict=True))
        expected = []
        for anchor, positive in zip(relevant.anchors, relevant.positives, strict=True):
            others = {*own, *further} - {anchor if symmetric else ""}
            scores = {text: float(vector[text] @ vector[anchor]) for text in others}
            rank = 1 + sum(score > scores[positive] for score in scores.values())
            expected.append(1 / rank if rank <= 10 else 0)
        found = probe.per_query(words)
        np.testing.assert_allclose(found, expected, atol=1e-6)
        alone = RetrievalProbe(table, "MRR@10", symmetric=symmetric).per_query(words)
        assert (found <= alone).all() and (found < alone).any(), "some query finds one of them"
        neighbours = probe.neighbours(probe.vectors(words), 3)
        assert neighbours.max() >= len(own), "and is told so"

    def test_an_item_that_is_no_candidate_stays_one_that_is_never_found(self, words):
        corpus = ItemTable.from_columns(["1"], ["c d"])
        columns = {"anchor": ["a", "c"], "positive": ["a b", "c d"], "anchor_id": ["x", "y"]}
        table = PairTable.from_columns(columns | {"positive_id": ["0", "1"]})
        table = PairTable(table.to_arrow(), corpus=corpus)
        for further in ((), ("a e", "a f", "g"), [f"a {n}" for n in range(20)]):
            probe = RetrievalProbe(table, "Recall@10", symmetric=False, distractors=further)
            assert probe.candidates == 1 + len(further)
            assert probe.per_query(words).tolist() == [0.0, 1.0]

    def test_they_are_encoded_as_documents(self, table, words):
        asked = {"query": [], "document": []}

        class Roles:
            roles_differ = True

            def encode_query(self, texts, **_):
                asked["query"] += texts
                return words([f"w1 {text}" for text in texts])

            def encode_document(self, texts, **_):
                asked["document"] += texts
                return words(texts)

        RetrievalProbe(table, symmetric=False, distractors=["w1 w2 w3"]).per_query(Roles())
        assert "w1 w2 w3" in asked["document"] and "w1 w2 w3" not in asked["query"] and asked["query"]


class TestWhichTextsAreDistractors:
    """Never one that may be a match."""

    train = PairTable.from_columns(
        {
            "anchor": ["query one", "other", "query two", "third", "Item A", "fourth"],
            "positive": ["its second match", "an item", "a negative", "item a!", "paired with it", "last"],
            "label": [1, 1, 0, 1, 1, 1],
        }
    )
    held_out = PairTable.from_columns(
        {"anchor": ["Query one", "query two"], "positive": ["item a", "item b"]}
    )

    def found(self, symmetric, train=train, held_out=held_out, **more):
        options = {"most": 100, "seed": 0} | more
        return distractors(train, held_out, symmetric=symmetric, **options)

    def test_of_queries_and_items(self):
        expected = {"an item", "a negative", "paired with it", "last"}
        assert set(self.found(False)) == expected

    def test_of_things_of_one_kind(self):
        """Those paired with a held-out text on either side go: "third" and "paired with it" by "item a"."""
        assert set(self.found(True)) == {"an item", "a negative", "last", "other", "fourth"}

    def test_of_a_corpus(self):
        corpus = ItemTable.from_columns(["1", "2", "3"], ["item B", "one more", "its second match"])
        table = PairTable(self.held_out.to_arrow(), corpus=corpus)
        assert self.found(False, held_out=table) == ["one more"]

    def test_near_duplicates_of_a_held_out_text_go(self):
        long = "how to install the latest kernel on an ubuntu server"
        near = long.replace("kernel", "kernels")
        other = near.replace("ubuntu", "debian")
        train = PairTable.from_columns({"anchor": ["a", "b"], "positive": [near, other]})
        held_out = PairTable.from_columns({"anchor": ["q"], "positive": [long]})
        assert self.found(False, train, held_out) == [other]
        assert set(self.found(False, train, self.held_out)) == {near, other}, "it was there"

    def test_the_first_ones_are_a_sample(self):
        train = PairTable.from_columns(
            {"anchor": [f"a{n}" for n in range(50)], "positive": [f"thing number {n}" for n in range(50)]}
        )
        all_of_them, few = (self.found(False, train, most=most) for most in (100, 7))
        assert few == all_of_them[:7] and sorted(all_of_them) == sorted(train.positives) != all_of_them
        assert self.found(False, train, seed=1) != all_of_them == self.found(False, train)
