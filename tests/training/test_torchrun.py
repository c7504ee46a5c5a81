"""Two processes of ``torchrun`` (gloo, CPU) end with the same weights, with gradient caching too.

They are made to cut their batches into different numbers of passes, as texts of unequal length and short
batches do in earnest: a pass that waits for the other process would wait for ever.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import training_models as models
from leanmatch.errors import LeanmatchError
from leanmatch.trainer.checkpoints import load_weights
from leanmatch.training import fit
from leanmatch.training.losses import PlainLoss

SCRIPT = """
import dataclasses, json, os, sys
sys.path.insert(0, {tests!r})
import training_models as models
from leanmatch.training import features, fit
from leanmatch.trainer.checkpoints import save_weights
from leanmatch.training.losses import contrastive

rank = int(os.environ["RANK"])
original = contrastive.encode_cached
features.CHUNK_TOKENS = (100, 300)[rank]
contrastive.encode_cached = lambda encode, columns, size, **more: original(
    encode, columns, size + 8 * rank, **more
)
runs, built = {{"plain": None, "cached": 5, "static": None}}, {{}}
for name in runs:  # all before the first run: after it, transformers lets the first process alone write
    folder = {folder!r} + "/" + name
    os.makedirs(folder, exist_ok=True)
    static = name == "static"
    built[name] = models.static_model() if static else models.transformer_model(f"{{folder}}/bert{{rank}}")
ways = {{"whole": (True, None), "cached": (True, 3), "apart": (False, None)}}
os.makedirs({folder!r} + "/gathered", exist_ok=True)
alike = {{name: models.transformer_model({folder!r} + f"/gathered/{{name}}-{{rank}}") for name in ways}}
passes = dict.fromkeys(runs, 0)
for name, size in runs.items():
    folder, model = {folder!r} + "/" + name, built[name]
    save_weights(f"{{folder}}/base{{rank}}.safetensors", model.state_dict())

    def count(module, arguments, name=name):
        passes[name] += 1

    model.register_forward_pre_hook(count)
    options = models.resumable_options()  # a checkpoint after each step
    schedule = dataclasses.replace(options.schedule, max_steps=3, mini_batch_size=size)
    result = fit(
        model, models.pairs(), None, dataclasses.replace(options, schedule=schedule), folder + "/work"
    )
    assert next(iter(result.history.values()))["steps"] == 3
    save_weights(f"{{folder}}/trained{{rank}}.safetensors", model.state_dict())
model = models.static_model()
save_weights({folder!r} + f"/gathered/base{{rank}}.safetensors", model.state_dict())
schedule = dataclasses.replace(options.schedule, max_steps=3, gather_across_devices=True)
gathering = dataclasses.replace(options, schedule=schedule)
fit(model, models.pairs(), None, gathering, {folder!r} + "/gathered/work")
save_weights({folder!r} + f"/gathered/trained{{rank}}.safetensors", model.state_dict())
from functools import partial
from leanmatch.training.losses import PlainLoss
from leanmatch.training.stock import MultipleNegativesRankingLoss
from torch.nn.parallel import DistributedDataParallel
own = slice(8 * rank, 8 * rank + 8)
for name, (gather, size) in ways.items():
    model = alike[name]
    inner = partial(MultipleNegativesRankingLoss, gather_across_devices=gather)
    loss = PlainLoss(model, contrastive=inner, mini_batch_size=size)
    loss.model = DistributedDataParallel(model, find_unused_parameters=True)  # as the trainer does
    loss([models.tokenized(model, texts[own]) for texts in models.pair_lists(16)]).backward()
    gradients = {{key: value.grad for key, value in model.named_parameters() if value.grad is not None}}
    save_weights({folder!r} + f"/gathered/{{name}}{{rank}}.safetensors", gradients)
os.makedirs({folder!r} + "/automatic", exist_ok=True)
model = models.static_model()
save_weights({folder!r} + f"/automatic/base{{rank}}.safetensors", model.state_dict())
train, valid = models.many_pairs()
import numpy
from leanmatch.training.selection import choice
choice.best_shares = lambda per_query, resamples: numpy.full(1 + resamples, 1.2)
result = fit(
    model, train, valid, models.automatic_options(), {folder!r} + "/automatic/work", group_columns=["topic"]
)
stages = ["weight-0-first-half", "weight-0-second-half", "weight-0.3-all"]
assert list(result.history) == stages and result.average == 1.2
save_weights({folder!r} + f"/automatic/trained{{rank}}.safetensors", model.state_dict())
from leanmatch.data import PairTable
from leanmatch.errors import DataError, ModelError
from leanmatch.training import engine
anchors = models.pair_lists()[0][:64]
topics = [f"ba {{models.WORDS[i % 5]}}" for i in range(64)]
few = PairTable.from_columns({{"anchor": anchors, "positive": topics}})
refused = {{}}
for case in ("before", "after"):
    if case == "after":  # as if what is known beforehand had let it through
        engine._check_full_batches = lambda *arguments: None
    model = models.static_model()
    work = f"{folder}/few-{{case}}"
    try:
        fit(model, few, None, options, work)
    except (DataError, ModelError) as error:
        saved = os.path.exists(work + "/weight-1/final.safetensors")
        refused[case] = [type(error).__name__, str(error), saved]
with open({folder!r} + f"/refused{{rank}}.json", "w") as file:
    json.dump(refused, file)
with open({folder!r} + f"/passes{{rank}}.json", "w") as file:  # stdout would be one line
    json.dump([passes["plain"], passes["cached"]], file)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("torchrun")
    script = folder / "run.py"
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parent), folder=str(folder)))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*launcher, str(script)], capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    passes = [json.loads((folder / f"passes{rank}.json").read_text()) for rank in (0, 1)]
    assert passes[0][0] != passes[1][0] and passes[0][1] != passes[1][1], "unequal passes were the point"
    return folder


def weights(folder, name):
    return load_weights(folder / f"{name}.safetensors")


def distance(one, other):
    return float(sum((value - other[name]).abs().sum() for name, value in one.items()))


@pytest.mark.parametrize("run", ["plain", "cached", "static", "gathered", "automatic"])
def test_both_processes_train_and_end_with_the_same_weights(folder, run):
    base, *trained = (weights(folder / run, name) for name in ("base0", "trained0", "trained1"))
    assert distance(base, trained[0]) > 0
    for name, value in trained[0].items():
        torch.testing.assert_close(value, trained[1][name], rtol=0, atol=0)


def test_gradient_caching_changes_nothing_but_rounding(folder):
    base, plain, cached = (
        weights(folder / run, name)
        for run, name in (("plain", "base0"), ("plain", "trained0"), ("cached", "trained0"))
    )
    assert distance(plain, cached) < 0.02 * distance(base, plain)


def test_gathered_negatives_are_those_of_one_process_with_the_double_batch(folder):
    model = models.transformer_model(str(folder / "double"))
    PlainLoss(model)([models.tokenized(model, texts) for texts in models.pair_lists(16)]).backward()
    double = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    size = float(sum(value.abs().sum() for value in double.values()))
    for rank in (0, 1):
        for name in ("whole", "cached"):
            assert distance(double, weights(folder / "gathered", f"{name}{rank}")) < 1e-4 * size
        assert distance(double, weights(folder / "gathered", f"apart{rank}")) > 0.1 * size  # it bites
    trained, gathered = weights(folder / "static", "trained0"), weights(folder / "gathered", "trained0")
    assert distance(trained, gathered) > 0


def test_a_checkpoint_has_the_random_state_of_every_process(folder):
    checkpoints = list((folder / "plain" / "work" / "weight-1").glob("checkpoint-*"))
    assert checkpoints
    for checkpoint in checkpoints:
        names = {file.name for file in checkpoint.iterdir()}
        assert {"complete", "rng_state_0.pth", "rng_state_1.pth"} <= names


def test_another_number_of_processes_cannot_continue_the_run(folder):
    record = json.loads((folder / "plain" / "work" / "run.json").read_text())
    assert record["identity"]["processes"] == 2
    model = models.transformer_model(str(folder / "other"))
    options = models.resumable_options()
    schedule = dataclasses.replace(options.schedule, max_steps=3)
    with pytest.raises(LeanmatchError, match="processes was 2, now 1"):
        fit(
            model,
            models.pairs(),
            None,
            dataclasses.replace(options, schedule=schedule),
            folder / "plain" / "work",
        )


def test_few_distinct_positives_are_an_error_and_not_a_run_of_no_steps(folder):
    for rank in (0, 1):
        refused = json.loads((folder / f"refused{rank}.json").read_text())
        kind, message, saved = refused["before"]
        assert (
            kind == "DataError" and "column 'positive' of the training pairs has 5 distinct texts" in message
        )
        assert "batch_size" in message and not saved
        kind, message, saved = refused["after"]
        assert kind == "ModelError" and "training made 0 of 21 steps" in message and not saved
