"""Averaging, adapters, negatives, selection, the shifted slice and the work folder."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import training_models as models
from leanmatch.data import PairTable
from leanmatch.errors import LeanmatchError, ModelError, UsageError
from leanmatch.trainer.work_folder import MARKER, WorkFolder, last_checkpoint
from leanmatch.training.adapters import add_lora, freeze_layers, merge_lora
from leanmatch.training.dataset import training_dataset
from leanmatch.training.engine import total_steps
from leanmatch.training.features import chunks_by_length, encode_columns, take
from leanmatch.training.negatives import fill_negatives, given_negatives, mined_negatives
from leanmatch.training.options import ScheduleOptions, TrainOptions
from leanmatch.training.selection.averaging import average_weights, mean_weights, snapshot
from leanmatch.training.selection.choice import SHARES, Candidate, approach, choose, explore, mixtures, search
from leanmatch.training.selection.shift import set_aside


class TestAveraging:
    def test_shares(self):
        base = {"w": torch.tensor([0.0, 2.0]), "n": torch.tensor(3)}
        trained = {"w": torch.tensor([1.0, 4.0]), "n": torch.tensor(5)}
        assert average_weights(base, trained, 0.25)["w"].tolist() == [0.25, 2.5]
        assert average_weights(base, trained, 0.0)["w"].tolist() == [0.0, 2.0]
        assert average_weights(base, trained, 1.0)["w"].tolist() == [1.0, 4.0]
        assert average_weights(base, trained, 0.25)["n"] == 5

    def test_other_model(self):
        with pytest.raises(ModelError, match="first 'v'"):
            average_weights({"w": torch.zeros(2)}, {"w": torch.zeros(2), "v": torch.zeros(1)}, 0.5)
        with pytest.raises(ModelError, match="first 'w'"):
            average_weights({"w": torch.zeros(2)}, {"w": torch.zeros(3)}, 0.5)

    def test_a_snapshot_does_not_follow(self, static):
        kept = snapshot(static.state_dict())
        before = {name: value.clone() for name, value in kept.items()}
        with torch.no_grad():
            next(static.parameters()).add_(1)
        assert all(torch.equal(kept[name], before[name]) for name in kept)
        assert not all(torch.equal(kept[name], value) for name, value in static.state_dict().items())


class TestAdapters:
    def test_freezing(self, transformer):
        frozen = freeze_layers(transformer, 1)
        still = {name for name, p in transformer.named_parameters() if p.requires_grad}
        assert frozen > 0 and any("layer.1" in name for name in still)
        assert not any("layer.0" in name or "embeddings" in name for name in still)

    def test_lora_trains_few_weights_and_merges_into_a_stock_model(self, transformer, pair_texts):
        names = set(transformer.state_dict())
        features = models.tokenized(transformer, pair_texts[0][:4])
        before = transformer(dict(features))["sentence_embedding"].detach()
        add_lora(transformer, 4)
        trainable = [(n, p) for n, p in transformer.named_parameters() if p.requires_grad]
        assert trainable and all("lora" in name for name, _ in trainable)
        with torch.no_grad():
            for _, parameter in trainable:
                parameter.add_(0.1 * torch.randn_like(parameter))
        changed = transformer(dict(features))["sentence_embedding"].detach()
        assert (changed - before).abs().max() > 1e-3
        assert merge_lora(transformer) == 12
        assert set(transformer.state_dict()) == names
        torch.testing.assert_close(
            transformer(dict(features))["sentence_embedding"].detach(), changed, atol=1e-5, rtol=1e-4
        )
        assert all(p.requires_grad for p in transformer.parameters())
        assert merge_lora(transformer) == 0

    def test_static_encoders_have_no_layers(self, static):
        with pytest.raises(UsageError, match="needs a transformer"):
            add_lora(static, 4)
        with pytest.raises(UsageError, match="needs a transformer"):
            freeze_layers(static, 1)

    def test_too_many_layers(self, transformer):
        with pytest.raises(UsageError, match="cannot freeze 2 layers of an encoder with 2"):
            freeze_layers(transformer, 2)


class TestNegatives:
    table = PairTable.from_columns(
        {
            "anchor": ["a", "a", "b", "c"],
            "positive": ["p", "hard", "q", "r"],
            "negative": ["n", "n", "m", "o"],
            "label": [1, 0, 1, 1],
        }
    )

    def test_negative_columns_and_label_0_rows(self):
        assert given_negatives(self.table) == {"a": ["n", "hard"], "b": ["m"], "c": ["o"]}

    def test_filling_never_gives_a_positive_as_negative(self):
        anchors, positives = ["a", "a", "b"], ["p", "q", "r"]
        columns, share = fill_negatives(anchors, positives, {"a": ["p", "x"]}, 2, seed=0)
        assert share == pytest.approx(2 / 3)
        for row in range(2):
            assert {columns[0][row], columns[1][row]} == {"x", "r"}
        assert "r" not in {columns[0][2], columns[1][2]}

    def test_data_set_uses_given_negatives_where_most_have_one(self):
        dataset, remarks = training_dataset(self.table, TrainOptions(), None)
        assert dataset.column_names == ["anchor", "positive", "negative_1"]
        assert len(dataset) == 3 and "100%" in remarks[0]
        few = PairTable.from_columns(
            {"anchor": ["a", "a", "b", "c"], "positive": ["p", "x", "q", "r"], "label": [1, 0, 1, 1]}
        )
        dataset, remarks = training_dataset(few, TrainOptions(), None)
        assert dataset.column_names == ["anchor", "positive"] and "only 33%" in remarks[0]

    def test_too_few_pairs(self):
        with pytest.raises(LeanmatchError, match="1 training pairs"):
            training_dataset(self.table.take([0]), TrainOptions(), None)

    def test_mined_negatives_are_near_but_below_the_positive(self, static, pair_texts):
        anchors, positives = pair_texts
        found = mined_negatives(static, anchors, positives, 2)
        assert len(found) > len(anchors) / 2
        vectors = static.encode
        for anchor, negatives in list(found.items())[:20]:
            true = positives[anchors.index(anchor)]
            a, p, *n = vectors([anchor, true, *negatives], normalize_embeddings=True)
            assert true not in negatives
            assert all(a @ x <= a @ p - 0.05 * abs(a @ p) + 1e-5 for x in n)

    def test_mining_in_a_catalogue_that_matches_entirely_finds_none(self, static):
        assert mined_negatives(static, ["bala", "bala"], ["cela", "dini"], 1) == {}

    def test_mining_in_a_tiny_catalogue(self, static):
        found = mined_negatives(static, ["bala", "cela", "dini"], ["bala", "cela", "dini"], 5)
        assert set(found) <= {"bala", "cela", "dini"}
        assert all(anchor not in texts for anchor, texts in found.items())


class TestSelection:
    rng = np.random.default_rng(0)

    def scores(self, means, noise=0.0, n=400):
        common = np.linspace(-0.5, 0.5, n)
        spread = {share: self.rng.standard_normal(n) for share in means}
        return {
            Candidate((1.0,), share): {
                "valid": mean
                + 0.1 * (common - common.mean())
                + noise * (spread[share] - spread[share].mean())
            }
            for share, mean in means.items()
        }

    def test_a_clear_winner_wins(self):
        choice = choose(self.scores({0.0: 0.2, 0.5: 0.4, 1.0: 0.3}, noise=0.01), "MRR@10")
        assert choice.candidate.share == 0.5 and "average 0.5" in choice.reason

    def test_among_equals_the_one_nearest_to_the_base(self):
        flat = np.full(50, 0.25)
        per_query = {Candidate((w,), a): {"valid": flat} for w in (0.0, 0.3) for a in (0.8, 0.5, 1.0)}
        assert choose(per_query, "MRR@10").candidate == Candidate((0.3,), 0.5)

    def test_both_slices_count(self):
        n = 500
        per_query = {
            Candidate((1.0,), 0.5): {"valid": np.full(n, 0.30), "shifted": np.full(n, 0.50)},
            Candidate((1.0,), 1.0): {"valid": np.full(n, 0.34), "shifted": np.full(n, 0.40)},
        }
        assert choose(per_query, "MRR@10").candidate.share == 0.5
        assert (
            choose({c: {"valid": s["valid"]} for c, s in per_query.items()}, "MRR@10").candidate.share == 1.0
        )

    @pytest.mark.parametrize("share", [0.0, 0.5, 1.2])
    def test_away_from_the_trained_weights_only_on_evidence(self, share):
        noise = 0.3 * self.rng.standard_normal(400)
        noise -= noise.mean()
        for gain, expected in ((0.005, 1.0), (0.1, share)):
            per_query = {
                Candidate((0.0,), 1.0): {"valid": np.full(400, 0.5)},
                Candidate((0.0,), share): {"valid": 0.5 + gain + noise},
            }
            choice = choose(per_query, "MRR@10")
            assert choice.candidate.share == expected
            # the sentence says which part of the rule decided
            assert ("ahead of average 1, weight 0 (50.00) by more than" in choice.reason) == (expected != 1)
            assert (f"average {share:g}, weight 0 (50.50) is ahead by no more" in choice.reason) == (
                expected == 1
            )

    def test_the_best_and_its_gain_over_the_base_are_told(self):
        choice = choose(self.scores({0.0: 0.2, 0.5: 0.29, 1.0: 0.3}), "MRR@10")
        assert choice.candidate.share == 1.0 and "30.00, the best, +10.00 against the base" in choice.reason

    def test_where_nothing_is_lost_the_share_goes_down(self):
        def chosen(**means):
            values = {float(k[1:]) / 10: m for k, m in means.items()}
            return choose(self.scores(values), "MRR@10")

        near = chosen(s0=0.2, s5=0.2965, s8=0.299, s10=0.3)
        assert near.candidate.share == 0.5
        assert "surely no more than 0.4 points below average 1 (30.00)" in near.reason
        assert chosen(s0=0.2, s5=0.2955, s8=0.299, s10=0.3).candidate.share == 0.8
        # never past a worse one, and never all the way to the base model
        assert chosen(s0=0.2, s5=0.2999, s8=0.29, s10=0.3).candidate.share == 1.0
        assert chosen(s0=0.2999, s5=0.2999, s10=0.3).candidate.share == 0.5
        # another mixture's lower share does not count
        per_query = {
            Candidate((0.0,), 0.5): {"valid": np.full(9, 0.2999)},
            Candidate((0.0, 0.3), 1.0): {"valid": np.full(9, 0.3)},
        }
        assert choose(per_query, "MRR@10").candidate == Candidate((0.0, 0.3), 1.0)

    def test_a_loss_that_may_be_large_is_not_nothing(self):
        noise = self.rng.standard_normal(400)
        noise -= noise.mean()
        for spread, share in ((0.03, 0.5), (0.3, 1.0)):
            per_query = {
                Candidate((0.0,), 1.0): {"valid": np.full(400, 0.5)},
                Candidate((0.0,), 0.5): {"valid": 0.499 + spread * noise},
            }
            assert choose(per_query, "MRR@10").candidate.share == share

    def test_what_the_way_down_needs_is_scored(self):
        curve = {1.2: 0.29, 1.0: 0.3, 0.8: 0.2985, 0.6: 0.2965, 0.4: 0.29, 0.2: 0.3}

        def score(candidate):
            return {"valid": np.full(9, curve[candidate.share])}

        found = search((0.0,), tuple(curve), score)
        assert [c.share for c in found] == [1.0, 1.2, 0.8]
        added = approach(found, tuple(curve), score)
        assert [c.share for c in added] == [0.6, 0.4]
        assert choose({**found, **added}, "MRR@10").candidate.share == 0.6
        base = {Candidate((0.0,), 0.0): {"valid": np.full(9, 0.5)}}
        assert approach({**base, **found}, (0.0, *curve), score) == {}

    def test_the_search_climbs_and_stops(self):
        def asked(best, shares=SHARES):
            tried = []

            def score(candidate):
                tried.append(candidate.share)
                return {"valid": np.array([-abs(candidate.share - best)])}

            found = search((0.0, 0.3), shares, score)
            assert list(found) == [Candidate((0.0, 0.3), share) for share in tried]
            return tried

        assert asked(1.0) == [1.0, 1.2, 0.8]
        assert asked(1.2) == [1.0, 1.2, 1.4]
        assert asked(9.0) == [1.0, 1.2, 1.4]
        assert asked(0.6) == [1.0, 1.2, 0.8, 0.6, 0.4]
        assert asked(0.0) == [1.0, 1.2, 0.8, 0.6, 0.4, 0.2]
        assert asked(0.5, shares=(0.5,)) == [0.5]
        assert asked(0.5, shares=(0.0,)) == [0.0]

    def test_the_base_is_scored_once_and_the_way_down_for_the_winner_alone(self):
        best = {(0.0,): 0.2, (0.3,): 0.3}
        asked = []

        def score(candidate):
            asked.append((candidate.weights, candidate.share))
            loss = 0.009 * abs(candidate.share - 1) if candidate.share > 0 else 0.1
            return {"valid": np.full(9, best[candidate.weights] - loss)}

        found = explore(dict.fromkeys(best, (0.0, 0.4, 0.6, 0.8, 1.0, 1.2)), score)
        plain, regularized = best
        assert asked == [
            (plain, 0.0), (plain, 1.0), (plain, 1.2), (plain, 0.8),
            (regularized, 1.0), (regularized, 1.2), (regularized, 0.8),
            (regularized, 0.6), (regularized, 0.4),
        ]  # fmt: skip
        assert choose(found, "MRR@10").candidate == Candidate(regularized, 0.6)

    def test_several_runs_are_averaged_too(self):
        assert mixtures([0.0]) == [(0.0,)]
        assert mixtures([0.0, 0.3]) == [(0.0,), (0.3,), (0.0, 0.3)]
        slices = {"valid": np.full(9, 0.5)}
        chosen = choose({Candidate((0.0, 0.3), 1.0): slices}, "MRR@10")
        assert chosen.to_json()["weight"] == [0.0, 0.3] and "0 and 0.3 averaged" in chosen.reason
        states = [{"w": torch.full((2,), value)} for value in (1.0, 2.0, 6.0)]
        torch.testing.assert_close(mean_weights(states)["w"], torch.full((2,), 3.0))
        assert mean_weights(states[:1])["w"] is states[0]["w"]

    def test_json(self):
        value = choose(self.scores({0.0: 0.1, 1.0: 0.5}), "MRR@10").to_json()
        assert value["average"] == 1.0 and len(value["candidates"]) == 2
        json.dumps(value, allow_nan=False)


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


class TestWorkFolder:
    def test_resumes_only_the_same_run(self, tmp_path):
        first = WorkFolder(tmp_path / "w", {"lr": 1, "deep": {"a": 1}})
        assert not first.resumed
        (first.stage("s") / "final.safetensors").touch()
        assert WorkFolder(tmp_path / "w", {"lr": 1, "deep": {"a": 1}}).resumed
        with pytest.raises(LeanmatchError, match=r"deep\.a was 1, now 2"):
            WorkFolder(tmp_path / "w", {"lr": 1, "deep": {"a": 2}})
        assert not WorkFolder(tmp_path / "w", {"lr": 2}, resume=False).resumed

    @pytest.mark.parametrize("left", ["final.safetensors", "checkpoint-3/state.safetensors"])
    def test_a_start_that_failed_does_not_stand_in_the_way(self, tmp_path, left):
        WorkFolder(tmp_path / "w", {"lr": 1}).stage("s")
        half = tmp_path / "w" / "s" / "checkpoint-1"
        half.mkdir()
        (half / "state.safetensors").touch()
        folder = WorkFolder(tmp_path / "w", {"lr": 2})
        assert not folder.resumed and not half.exists()
        file = folder.stage("s") / left
        file.parent.mkdir(exist_ok=True)
        file.touch()
        (file.parent / MARKER).touch()
        with pytest.raises(LeanmatchError, match="lr was 2, now 3"):
            WorkFolder(tmp_path / "w", {"lr": 3})
        assert WorkFolder(tmp_path / "w", {"lr": 2}).resumed

    def test_never_touches_a_foreign_folder(self, tmp_path):
        (tmp_path / "thesis.txt").write_text("years of work")
        for resume in (True, False):
            with pytest.raises(LeanmatchError, match="no work folder"):
                WorkFolder(tmp_path, {}, resume=resume)
        assert (tmp_path / "thesis.txt").exists()

    def test_a_spoilt_record(self, tmp_path):
        WorkFolder(tmp_path / "w", {})
        (tmp_path / "w" / "run.json").write_text("{")
        with pytest.raises(LeanmatchError, match="resume=False"):
            WorkFolder(tmp_path / "w", {})

    def test_half_written_checkpoints_are_dropped(self, tmp_path):
        for step, complete in ((9, True), (10, True), (11, False)):
            folder = tmp_path / f"checkpoint-{step}"
            folder.mkdir()
            if complete:
                (folder / MARKER).touch()
        assert last_checkpoint(tmp_path).name == "checkpoint-10"
        assert not (tmp_path / "checkpoint-11").exists()


class TestFeatures:
    def test_chunks_cover_every_row_once_within_the_budget(self):
        lengths = torch.randint(1, 30, (57,))
        mask = (torch.arange(30)[None] < lengths[:, None]).long()
        chunks = list(chunks_by_length({"attention_mask": mask}, 100))
        assert sorted(torch.cat(chunks).tolist()) == list(range(57))
        assert len(chunks) > 3
        assert all(len(c) == 1 or len(c) * int(lengths[c].max()) <= 100 for c in chunks)

    def test_taking_trims_padding(self, transformer, pair_texts):
        features = models.tokenized(transformer, pair_texts[0][:10])
        shortest = features["attention_mask"].sum(1).argmin()
        taken = take(features, shortest[None])
        assert taken["input_ids"].shape == (1, int(features["attention_mask"][shortest].sum()))

    @pytest.mark.parametrize("kind", ["transformer", "static"])
    def test_columns_are_encoded_as_alone(self, kind, request, pair_texts):
        model = request.getfixturevalue(kind)
        columns = [models.tokenized(model, c) for c in (pair_texts[0][:7], pair_texts[1][:9], [""])]
        together = encode_columns(lambda f: model(f)["sentence_embedding"], columns, device_type="cpu")
        for column, vectors in zip(columns, together, strict=True):
            torch.testing.assert_close(
                vectors, model(dict(column))["sentence_embedding"], rtol=1e-4, atol=1e-5
            )

    def test_steps(self):
        assert total_steps(130, ScheduleOptions(batch_size=64)) == 3
        assert total_steps(130, ScheduleOptions(batch_size=64, max_steps=5)) == 5
        assert total_steps(700, ScheduleOptions(batch_size=64, epochs=3), 4) == 6

    def test_a_text_in_many_rows_needs_as_many_batches(self):
        assert total_steps(640, ScheduleOptions(batch_size=64), 1, 80) == 80
        assert total_steps(640, ScheduleOptions(batch_size=64, epochs=0.5), 2, 80) == 20
        assert total_steps(640, ScheduleOptions(batch_size=64, max_steps=7), 1, 80) == 7
        assert total_steps(640, ScheduleOptions(batch_size=64), 1, 3) == 10

    def test_too_few_rows_for_so_many_processes(self):
        for steps in (None, 5):
            with pytest.raises(UsageError, match=r"100 training pairs.*\n.*at most 50"):
                total_steps(100, ScheduleOptions(batch_size=64, max_steps=steps), 2)
        assert total_steps(100, ScheduleOptions(batch_size=50), 2) == 1


def test_two_processes_cannot_train_in_one_folder(tmp_path):
    import subprocess
    import sys

    script = (
        "import sys; from leanmatch.trainer.work_folder import WorkFolder\n"
        "from leanmatch.errors import LeanmatchError\n"
        "try:\n    WorkFolder(sys.argv[1], {}, lock=True)\n"
        "except LeanmatchError as error:\n    print(error)\nelse:\n    print('free')\n"
    )

    def other():
        return subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / "w")], capture_output=True, text=True, check=True
        ).stdout

    folder = WorkFolder(tmp_path / "w", {}, lock=True)
    assert "another process is training" in other()
    assert WorkFolder(tmp_path / "w", {}).resumed, "processes of one torchrun do not take the lock"
    del folder
    assert other() == "free\n"
