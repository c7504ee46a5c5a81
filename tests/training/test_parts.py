"""Averaging, adapters, negatives, selection, the shifted slice and the work folder."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import training_models as models
from leanmatch import memory
from leanmatch.data import PairTable
from leanmatch.errors import LeanmatchError, ModelError, UsageError
from leanmatch.trainer import pace
from leanmatch.trainer.pace import Spent
from leanmatch.trainer.run import Elapsed
from leanmatch.trainer.work_folder import MARKER, WorkFolder, last_checkpoint
from leanmatch.training.adapters import add_lora, freeze_layers, merge_lora
from leanmatch.training.dataset import training_dataset
from leanmatch.training.engine import total_steps
from leanmatch.training.features import chunks_by_length, count_rows, encode_columns, take
from leanmatch.training.negatives import coverage, fill_negatives, given_negatives, mined_negatives
from leanmatch.training.options import ScheduleOptions, TrainOptions
from leanmatch.training.selection.averaging import average_weights, snapshot


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
        own = {"a": ["p", "x"]}
        columns = fill_negatives(anchors, positives, own, 2, seed=0)
        assert coverage(anchors, positives, own) == pytest.approx(2 / 3)
        assert coverage(anchors, positives, {"a": ["p", "a"], "b": ["r"]}) == 0, "matches are no negatives"
        assert coverage(anchors, positives, {}) == 0
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

    def test_taking_from_a_bag(self, static, pair_texts):
        texts = ["", *pair_texts[0][:6], ""]
        rows = torch.tensor([5, 0, 2])
        taken, alone = (
            take(models.tokenized(static, texts), rows),
            models.tokenized(static, [texts[i] for i in rows]),
        )
        for name in ("input_ids", "offsets"):
            assert torch.equal(taken[name], alone[name])
        assert count_rows(take(models.tokenized(static, texts), torch.tensor([], dtype=torch.int64))) == 0

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


def test_freed_memory_goes_back_to_the_system():
    import gc

    from leanmatch.trainer import run

    if memory.malloc_trim() is None:
        pytest.skip("no glibc")
    callback = run.ReturnedMemory()
    gc.collect()
    memory.return_freed()
    start = memory.resident_bytes()
    size = int(2 * (run.GROWTH - 1) * start) // 96_000 + 1000
    callback.on_step_end(None, None, None)
    blocks = [np.ones(12_000) for _ in range(2 * size)]  # 96 kB each: glibc takes them from the heap
    blocks = blocks[::2]
    before = memory.resident_bytes()
    assert before > run.GROWTH * start
    callback.on_step_end(None, None, None)
    trimmed = memory.resident_bytes()
    assert trimmed < before - 40e3 * size
    del blocks[10::2]
    callback.on_step_end(None, None, None)
    callback.on_step_end(None, None, None)
    assert memory.resident_bytes() > trimmed - 10e6, "a process that has not grown is left alone"


def test_without_glibc_nothing_is_given_back(monkeypatch):
    from leanmatch.trainer import run

    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: SimpleNamespace())
    memory.malloc_trim.cache_clear()
    try:
        assert memory.malloc_trim() is None
        memory.return_freed()
        run.ReturnedMemory().on_step_end(None, None, None)
    finally:
        memory.malloc_trim.cache_clear()


class TestTimeOfARun:
    """Clocks that tests move."""

    @pytest.fixture
    def clocks(self, monkeypatch):
        now = {"monotonic": 100.0, "process_time": 5.0, "perf_counter": 50.0}
        monkeypatch.setattr("leanmatch.trainer.pace.time.monotonic", lambda: now["monotonic"])
        monkeypatch.setattr("leanmatch.trainer.pace.time.process_time", lambda: now["process_time"])
        monkeypatch.setattr("leanmatch.trainer.pace.time.perf_counter", lambda: now["perf_counter"])
        return now

    def test_calls_add_up_also_those_that_were_killed(self, tmp_path, clocks):
        file = tmp_path / "spent.json"
        for _ in range(2):
            spent = Spent(file, ["factors", "training"])
            with spent.on("factors"):
                clocks["monotonic"] += 8
                clocks["process_time"] += 11
            with pytest.raises(KeyboardInterrupt), spent.on("training"):
                clocks["monotonic"] += 30
                raise KeyboardInterrupt
        again = Spent(file, ["factors", "training", "new"])
        assert again.seconds == {"factors": 16.0, "training": 60.0, "new": 0.0}
        assert again.cpu_seconds == {"factors": 22.0, "training": 0.0, "new": 0.0}

    def test_what_is_under_way_is_written_as_well(self, tmp_path, clocks, monkeypatch):
        monkeypatch.setattr(pace, "WRITTEN_EVERY", 0.01)
        file = tmp_path / "spent.json"
        with Spent(file, ["factors"]).on("factors"):
            clocks["monotonic"] += 8
            deadline = threading.Event()
            for _ in range(500):
                if file.exists() and Spent(file, ["factors"]).seconds["factors"] == 8.0:
                    break
                deadline.wait(0.01)
            else:
                pytest.fail("a killed call would have lost its time")
        assert not [thread for thread in threading.enumerate() if thread.name == "leanmatch-spent"]

    def test_training_counts_from_the_checkpoint_it_goes_on_from(self, clocks):
        first = Elapsed()
        clocks["perf_counter"] += 40
        state = first.state_dict()
        clocks["perf_counter"] += 500
        second = Elapsed()
        second.load_state_dict(state)
        clocks["perf_counter"] += 7
        assert second.seconds == 47.0 and first.seconds == 547.0
