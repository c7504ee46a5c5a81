"""Which share of the trained weights is kept, and what it is chosen on."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from leanmatch.data import PairTable
from leanmatch.errors import DataError, ModelError
from leanmatch.training.selection.averaging import mean_weights
from leanmatch.training.selection.choice import choose, evidence, mean_share
from leanmatch.training.selection.shift import set_aside
from leanmatch.training.selection.target import clean_target, halves


class TestSelection:
    def scores(self, means, n=400, **slices):
        """Of each share: ``valid`` with the mean given, and other slices by name."""
        common = np.linspace(-0.1, 0.1, n)
        return {
            share: {"valid": mean + common, **{name: of[share] + common for name, of in slices.items()}}
            for share, mean in means.items()
        }

    def choose(self, per_query, metric="MRR@10"):
        return choose(per_query, metric, lambda share: pytest.fail(f"{share} is scored already"))

    def test_a_clear_winner_wins(self):
        choice = self.choose(self.scores({0.0: 0.2, 0.6: 0.4, 1.0: 0.3}))
        assert choice.share == 0.6 and "average 0.6: MRR@10 40.0 valid;" in choice.reason
        assert "against the base model +20.0 valid (standard error 0.0)" in choice.reason
        assert "resampled" not in choice.reason

    @pytest.mark.parametrize(("ahead", "chosen"), [(0.0015, 1.0), (0.0017, 0.6), (-1.0, 1.0)])
    def test_shares_are_pulled_towards_1(self, ahead, chosen):
        """0.01 * 0.4^2 is 0.0016."""
        assert self.choose(self.scores({0.6: 0.3 + ahead, 1.0: 0.3})).share == chosen
        assert self.choose(self.scores({1.4: 0.3 + ahead, 1.0: 0.3})).share == (1.4 if chosen == 0.6 else 1.0)

    @pytest.mark.parametrize(("behind", "chosen"), [(0.0101, 0.0), (0.0099, 1.0)])
    def test_the_base_is_a_share_like_others(self, behind, chosen):
        assert self.choose(self.scores({0.0: 0.3, 1.0: 0.3 - behind})).share == chosen

    def test_the_smallest_of_equals_wins(self):
        assert self.choose(self.scores({0.8: 0.3, 1.2: 0.3})).share == 0.8

    def test_the_share_is_the_mean_of_what_resampled_queries_choose(self):
        rng = np.random.default_rng(3)
        valid = {share: rng.random(300) for share in (0.4, 0.8, 1.2)}
        slices = {share: {"valid": values} for share, values in valid.items()}
        best = []
        for seed in range(400):  # by the definition
            rows = np.random.default_rng(seed).choice(300, 300)
            best.append(max(valid, key=lambda share: valid[share][rows].mean() - 0.01 * (share - 1) ** 2))
        assert len({*best}) > 1, "the scores are alike enough for a choice that varies"
        scored = []

        def score(share):
            scored.append(share)
            return {"valid": np.full(300, 0.25)}

        choice = choose(slices, "MRR@10", score)
        assert choice.share == pytest.approx(np.mean(best), abs=0.06) and scored == [choice.share]
        assert choice.share not in valid and choice.scores[choice.share] == {"valid": 0.25}
        assert list(choice.scores) == sorted(choice.scores)
        assert " (the mean over resampled queries, most of which choose " in choice.reason
        again = choose(slices, "MRR@10", score)
        assert again.share == choice.share, "the same scores make the same choice"

    def test_almost_the_base_is_the_base(self):
        assert mean_share(np.array([0.0] * 199 + [0.2])) == 0.0
        assert mean_share(np.array([0.0] * 3 + [0.2])) == 0.05

    def test_slices_count_alike_and_the_target_as_much_as_both(self):
        valid, shifted = {0.6: 0.30, 1.0: 0.34}, {0.6: 0.50, 1.0: 0.40}
        assert self.choose(self.scores(valid)).share == 1.0
        assert self.choose(self.scores(valid, shifted=shifted)).share == 0.6
        for target, share in ((0.525, 0.6), (0.535, 1.0)):
            both = self.scores(valid, shifted=shifted, target={0.6: 0.5, 1.0: target})
            assert self.choose(both).share == share
        assert evidence(both[1.0]) == {"valid": 0.25, "shifted": 0.25, "target": 0.5}
        assert evidence({"target": np.zeros(2)}) == {"target": 1.0}

    def test_what_is_left_open_is_said(self):
        shifted = {0.0: 0.5, 1.0: 0.45}
        choice = self.choose(self.scores({0.0: 0.2, 1.0: 0.4}, shifted=shifted))
        assert "on texts unlike the rest the chosen model is worse than the base by 5.0" in choice.outlook[0]
        assert "the choice saw no texts of another category or time" in choice.outlook[1]
        target = {0.0: 0.5, 1.0: 0.6}
        assert self.choose(self.scores({0.0: 0.2, 1.0: 0.4}, target=target)).outlook == ()
        assert "the result is the base model" in self.choose(self.scores({0.0: 0.3, 1.0: 0.2})).outlook[0]

    def test_several_runs_are_averaged(self):
        states = [{"w": torch.full((2,), value)} for value in (1.0, 2.0, 6.0)]
        torch.testing.assert_close(mean_weights(iter(states))["w"], torch.full((2,), 3.0))
        assert mean_weights(states[:1])["w"] is states[0]["w"]
        with pytest.raises(ModelError, match="no weights to average"):
            mean_weights([])

    def test_json(self):
        value = self.choose(self.scores({0.0: 0.1, 1.0: 0.5})).to_json()
        assert value["average"] == 1.0 and len(value["candidates"]) == 2
        json.dumps(value, allow_nan=False)


class TestTarget:
    def texts(self, count=60):
        return [f"w{i} one two three four" for i in range(count)]

    def test_halves_keep_every_word_and_one_order(self):
        made = halves(self.texts())
        assert made.anchors[0].endswith("one two") and set(made.positives) == {"three four"}
        assert {a.split()[0] for a in made.anchors} == {f"w{i}" for i in range(60)}
        assert halves(self.texts()).anchors == made.anchors

    def test_scripts_without_spaces_are_cut_between_characters(self):
        made = halves([f"{chr(0x4E00 + i)}\u7684\u4e66\u5728\u684c\u5b50\u4e0a\u9762" for i in range(60)])
        assert all(len(a) == len(p) == 4 for a, p in zip(made.anchors, made.positives, strict=True))

    @pytest.mark.parametrize("text", ["w{} one", "\U0001f600\U0001f600{}", "same same same same", "{} " * 49])
    def test_what_cannot_be_cut_is_left_out(self, text):
        count = 49 if text.startswith("{}") else 60
        assert halves([text.format(*[i] * 49) for i in range(count)]) is None

    def test_at_most_so_many(self):
        assert len(halves(self.texts(3000))) == 1000

    def test_texts_are_distinct_and_their_order_decides_nothing(self):
        assert clean_target([" b", "a", "b", "", "  "]) == ["a", "b"]
        assert clean_target([]) == []
        with pytest.raises(DataError, match="1 distinct texts of 3"):
            clean_target(["a", "a ", ""])


def letters_encode(texts):
    """Each first letter has its own direction."""
    vectors = np.zeros((len(texts), 26), dtype=np.float32)
    vectors[np.arange(len(texts)), [ord(t[0]) - 97 for t in texts]] = 1
    return vectors


class TestShiftedSlice:
    def table(self, **extra):
        letters = "a" * 150 + "b" * 150 + "c" * 150 + "d" * 60
        columns = {
            "anchor": [f"{x}-{i}" for i, x in enumerate(letters)],
            "positive": [f"{x}+{i}" for i, x in enumerate(letters)],
        }
        return PairTable.from_columns({**columns, **{k: v(letters) for k, v in extra.items()}})

    def test_a_group_of_the_held_out_column(self):
        table = self.table(category=list)
        made = set_aside(table, letters_encode, group_columns=["category"])
        assert "category=d" in made.how and set(made.shifted.column("category")) == {"d"}
        assert "d" not in made.train.column("category") and len(made.train) == 450

    def test_the_latest_rows(self):
        table = self.table(timestamp=lambda x: [f"2021-{1 + i * 12 // len(x):02d}-01" for i in range(len(x))])
        made = set_aside(table, letters_encode, by_time=True)
        assert "latest" in made.how
        assert min(made.shifted.column("timestamp")) >= max(made.train.column("timestamp"))

    def test_clusters_of_texts(self):
        made = set_aside(self.table(), letters_encode)
        assert "clusters" in made.how
        assert not set(made.train.anchors) & set(made.shifted.anchors)
        assert {t[0] for t in made.shifted.anchors} == {"d"}

    def test_no_text_on_both_sides(self):
        table = self.table(category=list)
        shared = PairTable.from_columns({"anchor": ["a-0"], "positive": ["d+460"], "category": ["a"]})
        joined = PairTable.concat([table, shared])
        made = set_aside(joined, letters_encode, group_columns=["category"])
        texts = {*made.shifted.anchors, *made.shifted.positives}
        assert "d+460" in texts and not texts & {*made.train.anchors, *made.train.positives}

    def test_too_few_pairs(self):
        made = set_aside(self.table().take(range(60)), letters_encode)
        assert made.shifted is None and "only 60" in made.how
