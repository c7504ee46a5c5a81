"""Training as a whole on tiny encoders: it learns, chooses, and resumes after kill -9 to the same weights."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import TrainerControl, TrainerState, TrainingArguments

import training_models as models
from leanmatch.data import PairTable
from leanmatch.errors import DataError, LeanmatchError, ModelError, UsageError
from leanmatch.metrics import retrieval_score
from leanmatch.trainer.checkpoints import load_weights
from leanmatch.training import PairTableEvaluator, RegularizerOptions, ScheduleOptions, TrainOptions, fit
from leanmatch.training.selection.choice import SHARES
from leanmatch.training.selection.evaluator import encode_function
from leanmatch.training.selection.target import clean_target, halves

FAST = {"batch_size": 16, "device": "cpu", "checkpoint_minutes": 60.0, "lr": 1e-2}


def options(kind="itv", average=1.0, weight=1.0, **schedule):
    return TrainOptions(
        average=average,
        regularizer=RegularizerOptions(kind=kind, weight=weight),
        schedule=ScheduleOptions(**{**FAST, "max_steps": 12, **schedule}),
    )


@pytest.fixture
def tables(pair_texts):
    anchors, positives = pair_texts
    table = PairTable.from_columns({"anchor": anchors, "positive": positives})
    return table.take(range(64)), table.take(range(64, 96))


@pytest.mark.parametrize("kind", ["itv", "out", "mask", "none"])
@pytest.mark.parametrize("encoder", ["transformer", "static"])
def test_every_regularizer_trains_every_encoder(kind, encoder, request, tables, tmp_path):
    model = request.getfixturevalue(encoder)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    score = retrieval_score(encode_function(model), tables[0], "MRR@10")
    result = fit(model, tables[0], None, options(kind), tmp_path / "work")
    assert any(not torch.equal(before[n], v) for n, v in result.model.state_dict().items())
    assert result.history["weight-1" if kind in ("itv", "out") else "weight-0"]["steps"] == 12
    assert result.average == 1.0 and result.choice is None
    if encoder == "static" and kind == "none":
        assert retrieval_score(encode_function(model), tables[0], "MRR@10") > score


def test_an_epoch_over_few_distinct_positives_sees_every_pair(static, tables, tmp_path):
    anchors = tables[0].anchors
    few = PairTable.from_columns({"anchor": anchors, "positive": [f"topic {i % 4}" for i in range(64)]})
    said = []
    result = fit(static, few, None, options("none", max_steps=None), tmp_path / "w", report=said.append)
    assert result.history["weight-0"]["steps"] == 16  # four pairs a batch
    assert any("stands in 16 of 64 pairs: batches have about 4 pairs instead of 16" in s for s in said)


@pytest.mark.parametrize("kind", ["none", "itv"])
def test_pairs_that_share_one_text_cannot_be_trained_on(kind, static, tables, tmp_path):
    same = PairTable.from_columns({"anchor": tables[0].anchors, "positive": ["topic"] * 64})
    with pytest.raises(DataError, match="one text stands in all 64 training pairs"):
        fit(static, same, None, options(kind), tmp_path / "w")
    assert not list((tmp_path / "w").rglob("final.safetensors"))


def test_a_run_that_makes_fewer_steps_than_promised_is_an_error(static, tables, tmp_path, monkeypatch):
    from leanmatch.trainer.run import TimedCheckpoints

    def stop_at_three(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == 3
        return control

    monkeypatch.setattr(TimedCheckpoints, "on_step_end", stop_at_three)
    with pytest.raises(ModelError, match="training made 3 of 12 steps"):
        fit(static, tables[0], None, options("none"), tmp_path / "w")
    assert not list((tmp_path / "w").rglob("final.safetensors"))


def test_a_run_that_changes_nothing_is_an_error(static, tables, tmp_path, monkeypatch):
    from leanmatch.training import runs

    build = runs.build_loss

    class Nothing(torch.nn.Module):
        def __init__(self, loss):
            super().__init__()
            self.loss = loss

        def forward(self, features, labels):
            return self.loss(features, labels) * 0

    monkeypatch.setattr(runs, "build_loss", lambda *given: Nothing(build(*given)))
    with pytest.raises(ModelError, match="training weight-0 changed no weight"):
        fit(static, tables[0], None, options("none"), tmp_path / "w")
    assert not list((tmp_path / "w").rglob("final.safetensors"))


def test_minutes_limit_the_steps_and_a_continued_run_keeps_their_number(
    static, tables, tmp_path, monkeypatch
):
    from leanmatch.training import runs

    monkeypatch.setattr(runs, "step_seconds", lambda *given: 2.0)
    said = []
    result = fit(static, tables[0], None, options(minutes=0.2), tmp_path / "w", report=said.append)
    assert result.history["weight-1"]["steps"] == 6  # of 12 that were asked for
    assert any("training takes about 12 seconds: 6 steps at 2.00 s (itv at weight 1)" in s for s in said)
    assert "the time limit leaves 6 of 12 steps for each run" in said
    (tmp_path / "w" / "weight-1" / "final.safetensors").unlink()
    monkeypatch.setattr(runs, "step_seconds", lambda *given: 0.001)
    again = fit(models.static_model(), tables[0], None, options(minutes=0.2), tmp_path / "w")
    assert again.history["weight-1"]["steps"] == 6


def test_timing_a_step_changes_nothing_of_the_run(transformer, tables, tmp_path, monkeypatch):
    """Weights to the bit, with the base's cache and dropout's draws among what decides them."""
    from leanmatch.training import runs

    finals = []
    for number, timed in enumerate((runs.step_seconds, lambda *given: 1.0)):
        monkeypatch.setattr(runs, "step_seconds", timed)
        folder = tmp_path / str(number)
        fit(
            models.transformer_model(tmp_path / f"b{number}", dropout=0.2), tables[0], None, options(), folder
        )
        finals.append(load_weights(folder / "weight-1" / "final.safetensors"))
    assert all(torch.equal(finals[0][name], value) for name, value in finals[1].items())


def test_the_choice_through_the_native_runtime_is_that_through_torch(transformer, tables, tmp_path):
    from leanmatch.runtime import TwinEncoders

    state = {name: value.clone() for name, value in transformer.state_dict().items()}
    choices = []
    for number, encoder_of in enumerate((encode_function, TwinEncoders(encode_function, pytest.fail))):
        transformer.load_state_dict(state)
        result = fit(
            transformer,
            *tables,
            options(average="auto", weight="auto", max_steps=4, lr=1e-3),
            tmp_path / str(number),
            encoder_of=encoder_of,
        )
        choices.append(result.choice.to_json())
    assert choices[0]["average"] == pytest.approx(choices[1]["average"], abs=0.05)
    tried = [[each for each in c["candidates"] if each["average"] in SHARES] for c in choices]
    for one, other in zip(*tried, strict=True):
        assert one == pytest.approx(other, abs=1e-4)


def test_automatic_choices_look_at_validation_and_are_explained(static, tables, tmp_path):
    said = []
    result = fit(
        static, *tables, options(average="auto", weight="auto"), tmp_path / "work", report=said.append
    )
    assert result.choice is not None and result.weights == (0.0, 0.3)
    shares = [c["average"] for c in result.choice.to_json()["candidates"]]
    assert shares == sorted({*SHARES, result.average})
    assert any("chosen on validation pairs" in message for message in said)
    assert any("only 64 training pairs: no shifted slice was set aside" in message for message in said)
    assert set(result.history) == {"weight-0", "weight-0.3"}  # nothing was set aside: no refit


def chosen_at(share, monkeypatch):
    """Let the choice fall on a share, whatever the validation slices say."""
    from leanmatch.training.selection import choice

    monkeypatch.setattr(choice, "best_shares", lambda per_query, resamples: np.full(1 + resamples, share))


HALVES = ["weight-0-first-half", "weight-0-second-half"]
"""The first run: without the shifted slice, then on all rows."""


@pytest.mark.parametrize(
    ("kind", "refit", "stages", "final"),
    [
        ("itv", True, [*HALVES, "weight-0.3-all"], ["weight-0-second-half", "weight-0.3-all"]),
        ("itv", False, ["weight-0", "weight-0.3"], ["weight-0", "weight-0.3"]),
        ("none", True, HALVES, ["weight-0-second-half"]),
        ("none", False, ["weight-0"], ["weight-0"]),
    ],
)
def test_the_model_has_seen_the_slice_that_it_was_chosen_on(
    kind, refit, stages, final, static, tmp_path, monkeypatch
):
    chosen_at(0.8, monkeypatch)
    base = {name: value.clone() for name, value in static.state_dict().items()}
    said, scored = [], []
    options = models.automatic_options(refit=refit, regularizer=RegularizerOptions(kind=kind))

    def encoder_of(model):
        scored.append({name: value.clone() for name, value in model.state_dict().items()})
        return encode_function(model)

    result = fit(
        static,
        *models.many_pairs(),
        options,
        tmp_path,
        group_columns=["topic"],
        report=said.append,
        encoder_of=encoder_of,
    )
    assert sorted(result.history) == sorted(stages)
    assert {"valid", "shifted"} == set(result.choice.scores[0.8])
    words = next(s for s in said if "training takes about" in s)
    assert ("all pairs)" in words) == refit
    ends = {stage: load_weights(tmp_path / stage / "final.safetensors") for stage in stages}
    for name, value in static.state_dict().items():
        soup = torch.stack([ends[stage][name] for stage in final]).mean(0)
        torch.testing.assert_close(value, base[name] + 0.8 * (soup - base[name]))
        if refit:  # the shifted slice was scored with the run that has not seen it, at all shares
            first = base[name] + 1.4 * (ends["weight-0-first-half"][name] - base[name])
            torch.testing.assert_close(scored[-1][name], first)
            assert not torch.equal(ends[stages[0]][name], ends[stages[1]][name])


def test_the_base_may_be_chosen(static, tmp_path, monkeypatch):
    chosen_at(0.0, monkeypatch)
    base = {name: value.clone() for name, value in static.state_dict().items()}
    options = models.automatic_options()
    result = fit(static, *models.many_pairs(), options, tmp_path, group_columns=["topic"])
    assert "shifted" in result.choice.scores[0.0]
    assert set(result.history) == {*HALVES, "weight-0.3-all"} and result.average == 0.0
    assert all(torch.equal(base[name], value) for name, value in static.state_dict().items())
    assert any("the result is the base model" in remark for remark in result.remarks)


def test_a_fixed_average_sets_nothing_aside(static, tmp_path):
    result = fit(static, *models.many_pairs(), models.automatic_options(average=0.7), tmp_path)
    assert result.choice is None and result.average == 0.7 and result.weights == (0.0, 0.3)
    assert set(result.history) == {"weight-0", "weight-0.3"}


def test_target_texts_are_chosen_by_and_kept_where_the_first_run_lost(static, tmp_path, monkeypatch):
    from leanmatch.training import recipe

    train, valid = models.many_pairs()
    target = [f"{a} {b}" for a, b in zip(valid.anchors, valid.positives, strict=True)]
    said, ends = [], {}
    for name, texts, lost in (
        ("without", [], None),
        ("kept", target, True),
        ("shuffled", [*target[::-1], "", target[0]], True),
        ("gained", target, False),
    ):
        seen = iter([0.5, 0.4] if lost else [0.4, 0.5])

        class Scored(recipe.RetrievalProbe):
            def per_query(self, encode, seen=seen):
                return super().per_query(encode) * 0 + next(seen, 0.5)

        monkeypatch.setattr(recipe, "RetrievalProbe", Scored)
        result = fit(
            models.static_model(),
            train,
            valid,
            models.automatic_options(),
            tmp_path / name,
            group_columns=["topic"],
            target=texts,
            report=said.append,
        )
        assert ("target" in result.choice.scores[0.0]) == bool(texts)
        stages = (HALVES[1], "weight-0.3-all")
        ends[name] = [load_weights(tmp_path / name / f"{stage}/final.safetensors") for stage in stages]
    kept = clean_target(target)
    told = f"target texts: {len(kept)}; {len(halves(kept))} of them are cut in half"
    assert sum(told in remark for remark in said) == 3
    assert sum("50.0 with the base model and 40.0 with the plain run" in remark for remark in said) == 2

    def same(one, other, run):
        return all(torch.equal(ends[one][run][n], value) for n, value in ends[other][run].items())

    assert all(same("without", name, 0) for name in ends), "the first run is that without a target"
    assert same("without", "gained", 1) and not same("without", "kept", 1) and same("kept", "shuffled", 1)


def test_target_texts_that_are_of_no_use(static, tables, tmp_path):
    def run(texts, **changes):
        return fit(static, *tables, models.automatic_options(**changes), tmp_path / "w", target=texts)

    with pytest.raises(DataError, match="the target has 1 distinct texts of 2"):
        run(["a b c d", "a b c d"])
    plain = RegularizerOptions(kind="none")
    with pytest.raises(UsageError, match="target texts have no use"):
        run(["a b c d", "e f g h"], average=1.0, regularizer=plain)
    assert not (tmp_path / "w").exists()
    few = run(["ba la me ni", "po ru", "di fo"])
    assert any("fewer than 50 of 3 can be cut" in remark for remark in few.remarks)
    assert "target" not in few.choice.scores[0.0]
    with pytest.raises(LeanmatchError, match="target was"):
        run(["ba la me ni", "po ru", "di fo gu"])


def test_the_average_lies_between_base_and_trained(static, tables, tmp_path):
    base = {name: value.clone() for name, value in static.state_dict().items()}
    fit(static, tables[0], None, options("none", average=0.25), tmp_path / "work")
    trained = load_weights(tmp_path / "work" / "weight-0" / "final.safetensors")
    for name, value in static.state_dict().items():
        torch.testing.assert_close(value, base[name] + 0.25 * (trained[name] - base[name]))
    assert any(not torch.equal(trained[name], base[name]) for name in base)


def test_lora_freezing_and_early_stopping(transformer, tables, tmp_path):
    import dataclasses

    names = set(transformer.state_dict())
    frozen = next(value for name, value in transformer.state_dict().items() if "word_embeddings" in name)
    before = frozen.clone()
    for number, change in enumerate(({"lora_rank": 2}, {"freeze_layers": 1})):
        result = fit(
            transformer,
            *tables,
            dataclasses.replace(options(early_stopping=2), **change),
            tmp_path / str(number),
        )
        assert set(result.model.state_dict()) == names
        now = next(v for k, v in result.model.state_dict().items() if "word_embeddings" in k)
        assert torch.equal(now, before)


def test_what_needs_validation_says_so(static, tables, tmp_path):
    with pytest.raises(UsageError, match="average 'auto' and early stopping"):
        fit(static, tables[0], None, options(average="auto", weight="auto", early_stopping=1), tmp_path / "w")
    assert not (tmp_path / "w").exists()


def test_another_run_in_the_same_folder_is_refused(static, tables, tmp_path):
    fit(static, tables[0], None, options(), tmp_path / "work")
    with pytest.raises(LeanmatchError, match=r"lr was 0\.01, now 0\.02"):
        fit(static, tables[0], None, options(lr=0.02), tmp_path / "work")
    fit(static, tables[0], None, options(lr=0.02), tmp_path / "work", resume=False)


def test_a_stage_that_is_done_is_not_trained_again(static, tables, tmp_path):
    fit(static, tables[0], None, options(), tmp_path / "work")
    first = {name: value.clone() for name, value in static.state_dict().items()}
    again = models.static_model()
    result = fit(again, tables[0], None, options(), tmp_path / "work")
    assert result.history == {}
    assert all(torch.equal(first[name], value) for name, value in again.state_dict().items())


def run_whole(folder: Path, name: str, *, automatic: bool = False):
    """A run in this process, from the start or from what a killed one left; its history."""
    model = models.transformer_model(folder / "bert", dropout=0.2)
    if automatic:
        data, more = models.many_pairs(), {"options": models.automatic_options(), "group_columns": ["topic"]}
    else:
        data, more = (models.pairs(), None), {"options": models.resumable_options()}
    with pytest.MonkeyPatch.context() as patch:
        chosen_at(1.2, patch)
        result = fit(model, *data, work=folder / name, **more)
    return result.history, {key: value.clone() for key, value in model.state_dict().items()}


def run_killed(folder: Path, kill_at: int, *, automatic: bool = False):
    """A process that makes the same run and kills itself after so many steps of all its stages."""
    script = textwrap.dedent(
        f"""
        import os, signal, sys
        from pathlib import Path
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from leanmatch.trainer.run import Progress
        before, steps = Progress.on_step_end, 0

        def on_step_end(self, args, state, control, **kwargs):
            global steps
            before(self, args, state, control, **kwargs)
            steps += 1
            if steps == {kill_at}:
                os.kill(os.getpid(), signal.SIGKILL)

        Progress.on_step_end = on_step_end
        from test_recipe import run_whole
        run_whole(Path({str(folder)!r}), "broken", automatic={automatic})
        """
    )
    killed = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=250
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr


def assert_same_weights(one, other):
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=0, atol=0)


def test_kill_minus_nine_in_mid_epoch_then_the_same_weights(tmp_path):
    """With dropout, interventions and shuffling: all of their randomness must be restored."""
    _, unbroken = run_whole(tmp_path, "unbroken")
    run_killed(tmp_path, 6)  # an epoch has 4 steps
    assert list((tmp_path / "broken" / "weight-1").glob("checkpoint-*/complete"))
    assert not (tmp_path / "broken" / "weight-1" / "final.safetensors").exists()
    history, resumed = run_whole(tmp_path, "broken")
    assert history["weight-1"]["resumed_at"] in (5, 6)
    assert_same_weights(unbroken, resumed)


@pytest.mark.parametrize(("kill_at", "left"), [(3, [HALVES[1], "weight-0.3-all"]), (5, ["weight-0.3-all"])])
def test_kill_minus_nine_in_a_run_on_all_pairs_then_the_same_weights(kill_at, left, tmp_path):
    """Three steps a run, of the first one in the first half: killed after the second step of a stage."""
    _, unbroken = run_whole(tmp_path, "unbroken", automatic=True)
    run_killed(tmp_path, kill_at, automatic=True)
    ended = [path.parent.name for path in (tmp_path / "broken").glob("*/final.safetensors")]
    assert sorted(ended) == sorted({*HALVES, "weight-0.3-all"} - {*left})
    history, resumed = run_whole(tmp_path, "broken", automatic=True)
    assert list(history) == left
    assert history[left[0]]["resumed_at"] == 1
    assert_same_weights(unbroken, resumed)


def test_losses_work_in_a_stock_trainer(transformer, tables, tmp_path):
    from datasets import Dataset
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments

    from leanmatch.training import ITVReg
    from leanmatch.training.stock import BatchSamplers

    train, valid = tables
    trainer = SentenceTransformerTrainer(
        model=transformer,
        args=SentenceTransformerTrainingArguments(
            output_dir=str(tmp_path),
            max_steps=6,
            per_device_train_batch_size=16,
            report_to="none",
            use_cpu=True,
            batch_sampler=BatchSamplers.NO_DUPLICATES,
            eval_strategy="steps",
            eval_steps=3,
            save_strategy="no",
            disable_tqdm=True,
            learning_rate=1e-3,
        ),
        train_dataset=Dataset.from_dict({"anchor": train.anchors, "positive": train.positives}),
        loss=ITVReg(transformer, transformer),
        evaluator=PairTableEvaluator(valid),
    )
    before = [p.clone() for p in transformer.parameters()]
    trainer.train()
    assert any(not torch.equal(a, b) for a, b in zip(before, transformer.parameters(), strict=True))
    scores = [log["eval_valid_MRR@10"] for log in trainer.state.log_history if "eval_valid_MRR@10" in log]
    assert len(scores) >= 2 and all(0 < s <= 1 for s in scores)


@pytest.mark.parametrize(
    ("seconds", "taken", "pause"), [(60.0, 1.0, 60.0), (60.0, 9.0, 180.0), (0.0, 9.0, 0.0)]
)
def test_checkpoints_that_take_long_come_less_often(seconds, taken, pause, tmp_path, monkeypatch):
    from leanmatch.trainer import checkpoints

    clock = [100.0]
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: clock[0])
    kept = checkpoints.TimedCheckpoints(seconds, {})
    arguments = TrainingArguments(output_dir=str(tmp_path))
    (tmp_path / "checkpoint-5").mkdir()
    state = TrainerState(global_step=5, max_steps=50, is_world_process_zero=True)

    def asks() -> bool:
        return bool(kept.on_step_end(arguments, state, TrainerControl()).should_save)

    clock[0] += seconds
    assert asks()
    clock[0] += taken
    kept.on_save(arguments, state, TrainerControl())
    assert (tmp_path / "checkpoint-5" / checkpoints.MARKER).exists()
    clock[0] += max(pause - 1, 0.0)
    assert asks() == (pause == 0)
    clock[0] += 1
    assert asks()
