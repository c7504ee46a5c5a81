"""Which share of the trained weights is kept, and what it is chosen on."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from leanmatch.data import PairTable
from leanmatch.errors import DataError, ModelError
from leanmatch.training.selection.averaging import mean_weights
from leanmatch.training.selection.choice import SHARES, best_shares, choose, evidence
from leanmatch.training.selection.shift import set_aside
from leanmatch.training.selection.target import clean_target, halves


class TestSelection:
    def scores(self, n=400, **slices):
        """Of each share and slice; the same queries are hard under every share, so nothing is uncertain."""
        common = np.linspace(-0.1, 0.1, n)
        return {share: {name: of(share) + common for name, of in slices.items()} for share in SHARES}

    def top(self, share, height=0.4):
        """A parabola with its top there; 0 is 10 points lower if the top is at 1."""
        return lambda at: height - 0.1 * (at - share) ** 2

    def choose(self, per_query):
        scored = []

        def score(share):
            scored.append(share)
            return {name: np.full(len(v), 0.25) for name, v in per_query[0.0].items()}

        choice = choose(per_query, "MRR@10", score)
        assert scored == [choice.share] * (choice.share not in SHARES)
        assert list(choice.scores) == sorted({*SHARES, choice.share})
        return choice

    def test_a_clear_winner_wins(self):
        choice = self.choose(self.scores(valid=self.top(0.8)))
        assert choice.share == 0.8 and "average 0.8: MRR@10 40.0 valid;" in choice.reason
        assert "against the base model +6.4 valid (standard error 0.0)" in choice.reason
        assert "resampled" not in choice.reason

    def test_the_share_may_lie_between_those_that_were_scored(self):
        choice = self.choose(self.scores(valid=self.top(0.67)))
        assert choice.share == 0.67 and choice.scores[0.67] == {"valid": 0.25}
        assert self.choose(self.scores(valid=lambda share: 0.3 + share / 100)).share == SHARES[-1]

    def test_neighbours_are_smoothed(self):
        """What a parabola cannot fit of a peak at 0.4 moves nothing."""
        peak = np.array(SHARES) == 0.4
        noise = dict(zip(SHARES, peak - np.polyval(np.polyfit(SHARES, peak, 2), SHARES), strict=True))
        values = self.scores(valid=lambda share: self.top(1.0)(share) + noise[share] / 5)
        assert max(values, key=lambda share: values[share]["valid"].mean()) == 0.4
        assert self.choose(values).share == 1.0

    def test_the_smallest_of_equals_wins(self):
        assert self.choose(self.scores(valid=lambda share: 0.3)).share == 0.0

    @pytest.mark.parametrize(("top", "chosen"), [(-0.5, 0.0), (0.04, 0.0), (0.05, 0.05)])
    def test_almost_the_base_is_the_base(self, top, chosen):
        assert self.choose(self.scores(valid=self.top(top))).share == chosen

    def noisy(self, queries):
        """Two slices of which 1.2 is the best share, and scores with a standard deviation of 0.1."""
        rng = np.random.default_rng(3)
        return {
            share: {name: rng.normal(self.top(1.2)(share), 0.1, queries) for name in ("valid", "shifted")}
            for share in SHARES
        }

    @pytest.mark.parametrize("queries", [300, 3000])
    def test_the_pull_is_two_standard_errors_of_the_slope(self, queries):
        """The definition, with the parabola of each query fitted by itself."""
        per_query = self.noisy(queries)
        slices = [np.stack([of[name] for of in per_query.values()]) for name in ("valid", "shifted")]
        mean = np.polyfit(SHARES, np.mean([values.mean(1) for values in slices], axis=0), 2)
        slopes = [2 * 0.8 * a + b for a, b, _ in (np.polyfit(SHARES, values, 2) for values in slices)]
        error = 0.5 * np.sqrt(sum(of.var(ddof=1) / queries for of in slopes))
        grid = np.arange(141) / 100
        expected = grid[np.argmax(np.polyval(mean, grid) - 2 * error * (grid - 0.8) ** 2)]
        assert best_shares(per_query)[0] == pytest.approx(expected)

    def test_few_queries_are_pulled_more_and_say_less(self):
        """The same scores, each query once and a thousand times."""
        rng = np.random.default_rng(3)
        few = {share: {"valid": self.top(1.3)(share) + rng.normal(0, 0.1, 100)} for share in SHARES}
        many = {share: {"valid": np.tile(of["valid"], 1000)} for share, of in few.items()}
        free = best_shares(few, pull=0)[0]
        chosen, sure = best_shares(few, resamples=200), best_shares(many, resamples=200)
        assert 0.8 < chosen[0] < sure[0] - 0.05 and sure[0] == pytest.approx(free, abs=0.05)
        assert chosen[1:].std() > 10 * sure[1:].std() > 0
        assert chosen[1:].mean() == pytest.approx(chosen[0], abs=0.05)

    def test_how_sure_the_choice_is(self):
        first, again = self.choose(self.noisy(300)), self.choose(self.noisy(300))
        assert " (resampled queries mostly choose " in first.reason
        assert (first.share, first.reason) == (again.share, again.reason)

    def test_slices_count_alike_and_the_target_as_much_as_both(self):
        two = {"valid": self.top(0.6), "shifted": self.top(1.0)}
        assert self.choose(self.scores(**two)).share == 0.8
        three = self.scores(**two, target=self.top(1.2))
        assert self.choose(three).share == 1.0
        assert evidence(three[0.8]) == {"valid": 0.25, "shifted": 0.25, "target": 0.5}
        assert evidence({"target": np.zeros(2)}) == {"target": 1.0}

    def test_what_is_left_open_is_said(self):
        gains, losses = (lambda share: 0.2 + share / 5), (lambda share: 0.5 - share / 20)
        choice = self.choose(self.scores(valid=gains, shifted=losses))
        assert "on texts unlike the rest the chosen model is worse than the base by 7.0" in choice.outlook[0]
        assert "the choice saw no texts of another category or time" in choice.outlook[1]
        assert self.choose(self.scores(valid=gains, target=gains)).outlook == ()
        assert "the result is the base model" in self.choose(self.scores(valid=losses)).outlook[0]

    def test_several_runs_are_averaged(self):
        states = [{"w": torch.full((2,), value)} for value in (1.0, 2.0, 6.0)]
        torch.testing.assert_close(mean_weights(iter(states))["w"], torch.full((2,), 3.0))
        assert mean_weights(states[:1])["w"] is states[0]["w"]
        with pytest.raises(ModelError, match="no weights to average"):
            mean_weights([])

    def test_json(self):
        value = self.choose(self.scores(valid=self.top(0.8))).to_json()
        assert value["average"] == 0.8 and len(value["candidates"]) == len(SHARES)
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
