"""``leanmatch compress``, ``inspect`` and ``export`` as a user meets them, on a tiny BERT."""

from __future__ import annotations

import csv
import importlib
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from compress_models import FewLayers, compress, leanmatch

import training_models as models
from leanmatch.cli.compress.task import LAYER_RECORD_BYTES, record_bytes
from leanmatch.compression.planner import states
from leanmatch.compression.planner import training as planner_training
from leanmatch.data import PairTable, write_pairs
from leanmatch.formats.artifact.reader import read_artifact
from leanmatch.formats.reader import load_encoder, load_matcher
from leanmatch.runtime import load
from leanmatch.trainer import run as trainer_run


@pytest.fixture(scope="module")
def lean(base, pairs, tmp_path_factory):
    """A model with 1.3 times fewer multiply-adds, and what the command printed."""
    output = tmp_path_factory.mktemp("lean") / "m"
    result = compress(base, pairs, output, "--macs", "1.3x", "--minutes", "0.01", "--json")
    assert result.exit_code == 0, result.output
    return output, json.loads(result.stdout), result.stderr


def test_a_model_within_the_budget_is_saved_with_its_quality(lean, base):
    output, summary, said = lean
    assert summary["saved"] and summary["reached"] and summary["asked"]["macs"] == 1.3
    assert summary["dense"]["layer_macs"] >= 1.3 * summary["layer_macs"] > 0
    artifact = read_artifact(output)
    quality = artifact.report["quality"]
    assert quality["metric"] == "MRR@10" and 0 < quality["compressed"] <= 1
    assert quality["kept"] == pytest.approx(quality["compressed"] / quality["dense"])
    assert artifact.provenance["base"] == str(base) and artifact.provenance["options"]["method"] == "stf"
    assert artifact.provenance["training"]["attempts"][0]["training"]["steps"] >= 1
    assert all(0 <= layer.report["error"] < 1 for layer in artifact.layers.values())
    assert "to learn from" in said and "kept" in said
    assert [path.name for path in output.parent.iterdir()] == ["m"], "the work folder is gone"
    forms = {type(layer.factors).__name__ for layer in artifact.layers.values()}
    assert "QuantizedDenseSparse" in forms and "IntMatrix" in forms


def test_evaluate_takes_it_like_any_model_on_its_test_rows(lean, pairs):
    result = leanmatch("evaluate", lean[0], pairs, "--against", "base", "--json", "--device", "cpu")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["slices"][0]["metrics"]["MRR@10"]["verdict"]
    assert found["slices"][0]["n_rows"] == 16, "the test rows, neither those learned from nor those judged on"


def test_evaluate_measures_what_the_runtime_gives(lean, pairs, monkeypatch):
    """The reciprocal ranks of the runtime's own vectors, and no encoder of torch is asked for them.

    The value is compared with that of the same vectors, not with torch's: among 16 queries one pair of
    near-equal candidates that rounding swaps may move the mean by 1/32.
    """
    rows = [row for row in csv.DictReader(pairs.open()) if row["split"] == "test"]
    texts = [[row[column] for row in rows] for column in ("anchor", "positive")]
    queries, items = (load(lean[0], runtime="native").encode(column) for column in texts)
    scores = queries @ items.T
    ranks = (scores > np.diag(scores)[:, None]).sum(axis=1) + 1
    monkeypatch.setattr("leanmatch.formats.reader.load_encoder", None)
    result = leanmatch("evaluate", lean[0], pairs, "--json", "--device", "cpu", "--runtime")
    assert result.exit_code == 0, result.output
    own = json.loads(result.stdout)["slices"][0]["metrics"]["MRR@10"]["value"]
    assert own == pytest.approx(np.where(ranks <= 10, 1 / ranks, 0).mean())


def test_inspect(lean, tmp_path):
    shown = leanmatch("inspect", lean[0])
    assert shown.exit_code == 0, shown.output
    for words in (
        "all layers",
        "MACs",
        "held-out queries among",
        "BertModel (matcher)",
        "word_embeddings",
        "int8",
    ):
        assert words in shown.stdout
    told = json.loads(leanmatch("inspect", lean[0], "--json").stdout)
    assert sum(row["bytes"] for row in told["layers"]) == told["bytes"]["layers"]
    assert told["quality"]["reached"] is True
    for suffix in ("svg", "png"):
        drawn = leanmatch("inspect", lean[0], "--plot", tmp_path / f"layers.{suffix}")
        assert drawn.exit_code == 0 and (tmp_path / f"layers.{suffix}").stat().st_size > 5000
    assert b"<svg" in (tmp_path / "layers.svg").read_bytes()[:1000]
    wrong = leanmatch("inspect", lean[0], "--plot", tmp_path / "layers.txt")
    assert wrong.exit_code == 2 and "end it in .svg, .png, .pdf" in wrong.stderr


def test_inspect_says_what_it_is_worth_here(lean, base):
    output, summary, _ = lean
    machine = read_artifact(output).provenance["machine"]
    assert machine["workload"] == "bulk" and machine["encoder_layers"] == 2 and machine["faster"] > 0
    assert machine["faster"] == summary["faster"]
    shown = leanmatch("inspect", output, "--runtime")
    assert shown.exit_code == 0, shown.output
    assert "as fast as int8 of the uncompressed model (64 x 32 tokens" in shown.stdout
    assert f"planned on {machine['cpu']} ({machine['level']}): {machine['faster']:.2f}x" in shown.stdout
    worth = json.loads(leanmatch("inspect", output, "--runtime", "--json").stdout)["worth"]
    assert worth["planned"] == machine and worth["here"]["faster"] > 0
    assert json.loads(leanmatch("inspect", base, "--runtime", "--json").stdout)["worth"] is None


def test_where_factors_save_no_time_encoder_layers_go(base, pairs, tmp_path, monkeypatch):
    monkeypatch.setattr("leanmatch.cli.compress.task.clock_of", FewLayers)
    flags = ("--faster", "1.9x", "--minutes", "0.01", "--json")
    result = compress(base, pairs, tmp_path / "m", *flags)
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert len(summary["dropped"]) == 1 and summary["faster"] == 2.0
    assert "factors save no time on this CPU" in result.stderr and "without encoder layers" in result.stderr
    artifact = read_artifact(tmp_path / "m")
    assert artifact.config["num_hidden_layers"] == 1 and artifact.provenance["machine"]["encoder_layers"] == 2
    assert {type(layer.factors).__name__ for layer in artifact.layers.values()} == {"IntMatrix"}
    assert load_encoder(tmp_path / "m")(["bala cela"]).shape == (1, 32)
    too_much = compress(base, pairs, tmp_path / "n", "--faster", "7x", "--minutes", "0.01")
    assert too_much.exit_code == 2 and "the nearest possible is: --faster 2x" in too_much.stderr


def test_the_menu_and_a_row_of_it(base, pairs, tmp_path):
    fixed = ("--minutes", "0.01", "--json")
    shown = compress(base, pairs, tmp_path / "m", "--menu", "--plot", tmp_path / "menu.svg", *fixed)
    assert shown.exit_code == 0, shown.output
    menu = json.loads(shown.stdout)
    assert menu["rows"] and menu["machine"]["level"] and menu["int8"]["texts_a_second"] > 0
    for row in menu["rows"]:
        assert row["bytes"] < menu["int8"]["bytes"] and row["faster"] > 0
        assert row["expected"]["low"] <= row["expected"]["kept"] <= row["expected"]["high"]
    assert b"<svg" in (tmp_path / "menu.svg").read_bytes()[:1000] and not (tmp_path / "m").exists()
    table = compress(base, pairs, tmp_path / "m", "--menu", "--minutes", "0.01")
    assert table.exit_code == 0 and "expected to keep" in table.stdout and "--pick N" in table.stdout
    assert "continuing the run" in table.stderr, "nothing is measured twice"
    wrong = compress(base, pairs, tmp_path / "m", "--pick", "99", *fixed)
    assert wrong.exit_code == 2 and "the menu has no row 99" in wrong.stderr
    number = menu["rows"][-1]["number"]
    taken = compress(base, pairs, tmp_path / "m", "--pick", number, *fixed)
    assert taken.exit_code == 0, taken.output
    assert len(read_artifact(tmp_path / "m").layers) and json.loads(taken.stdout)["saved"]


def test_inspect_of_what_is_no_artifact(base, tmp_path):
    result = leanmatch("inspect", base)
    assert result.exit_code == 1 and "holds no compressed model" in result.stderr
    assert leanmatch("inspect", tmp_path / "nothing").exit_code == 1


def test_export_for_web_pages(lean, tmp_path):
    result = leanmatch("export", lean[0], "--to", "web", "-o", tmp_path / "web", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert sorted(told["files"]) == ["model.bin", "model.json", "tokenizer.json"]
    assert told["bytes"] == sum(path.stat().st_size for path in (tmp_path / "web").iterdir())
    again = leanmatch("export", lean[0], "--to", "web", "-o", tmp_path / "web")
    assert again.exit_code == 1
    assert "exists already" in again.output
    refused = leanmatch("export", lean[0], "--to", "web", "--int8", "-o", tmp_path / "x")
    assert "its weights have 8 bits" in refused.output
    assert leanmatch("export", lean[0], "--to", "web", "-o", tmp_path / "web", "--overwrite").exit_code == 0


def test_export(lean, tmp_path):
    result = leanmatch("export", lean[0], "--to", "sentence-transformers", "-o", tmp_path / "st", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["min_cosine"] > 0.9999 and told["bytes"] > read_artifact(lean[0]).report["bytes"]["total"]
    texts = ["bala cela", "dini"]
    np.testing.assert_allclose(load_encoder(tmp_path / "st")(texts), load_encoder(lean[0])(texts), atol=1e-4)
    again = leanmatch("export", lean[0], "--to", "sentence-transformers", "-o", tmp_path / "st")
    assert again.exit_code == 1 and "exists already" in again.stderr
    assert leanmatch("export", lean[0], "--to", "coreml", "-o", tmp_path / "x").exit_code == 2


def test_a_quality_that_is_missed_is_not_saved_unless_told(base, pairs, tmp_path, monkeypatch):
    real = states.compare  # a random model's metric may as well rise several times: nearly all is taken away
    spoilt = lambda metric, dense, found, *_, **__: real(metric, dense, found / 100)  # noqa: E731
    monkeypatch.setattr(states, "compare", spoilt)
    flags = ("--macs", "2x", "--method", "nm", "--keep", "99.9%", "--minutes", "0")
    missed = compress(base, pairs, tmp_path / "m", *flags, "--json")
    assert missed.exit_code == 1, missed.output
    summary = json.loads(missed.stdout)
    assert not summary["saved"] and not summary["reached"] and summary["quality"]["kept"] < 0.999
    assert not (tmp_path / "m").exists() and (tmp_path / ".m.compressing").exists()
    in_words = compress(base, pairs, tmp_path / "m", *flags)
    assert in_words.exit_code == 1 and "No model was saved" in in_words.stdout
    assert "2x fewer multiply-adds, one shot: " in in_words.stdout and "<- the best" in in_words.stdout
    assert "--allow-lower" in in_words.stdout
    taken = compress(base, pairs, tmp_path / "m", *flags, "--allow-lower")
    assert taken.exit_code == 0, taken.output
    assert (
        "continuing the run" in taken.stderr
        and "99.9% asked for: missed, the interval ends at" in taken.stdout
    )
    assert read_artifact(tmp_path / "m").report["quality"]["reached"] is False
    assert "99.9% asked for: missed, the interval ends at" in leanmatch("inspect", tmp_path / "m").stdout
    assert not (tmp_path / ".m.compressing").exists()


def test_keep_takes_the_leanest_rung_that_holds(base, pairs, tmp_path):
    result = compress(
        base, pairs, tmp_path / "m", "--keep", "0.8", "--method", "nm", "--minutes", "0.005", "--json"
    )
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert summary["reached"] and summary["quality"]["kept"] >= 0.8 and "one shot at" in result.stderr


def test_size_is_that_of_the_whole_folder(base, pairs, tmp_path):
    most = 110_000
    result = compress(base, pairs, tmp_path / "m", "--size", f"{most / 1000}kB", "--minutes", "0", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["folder_bytes"] <= most
    header = int.from_bytes((tmp_path / "m" / "compressed.safetensors").read_bytes()[:8], "little")
    record = (tmp_path / "m" / "leanmatch.json").read_text(encoding="utf-8")
    assert len(record) + header <= record_bytes(load_matcher(base))
    forms = len(json.dumps(json.loads(record)["artifact"], indent=2)) + header
    assert forms / len(read_artifact(tmp_path / "m").layers) <= LAYER_RECORD_BYTES, "however many layers"
    flags = ("--method", "int8", "--allow-lower", "--json")
    tight = compress(base, pairs, tmp_path / "t", "--size", "65.4kB", *flags)
    assert tight.exit_code == 0 and json.loads(tight.stdout)["folder_bytes"] <= 65_400, tight.output
    layers = read_artifact(tmp_path / "t").layers.values()
    assert {layer.factors.bits for layer in layers if layer.kind == "embedding"} & {2, 3}
    small = compress(base, pairs, tmp_path / "n", "--size", "10kB", "--minutes", "0")
    assert small.exit_code == 2 and "bytes" in small.stderr


@pytest.mark.parametrize("method", ["post", "svd", "fwsvd", "nm"])
def test_other_methods(method, base, pairs, tmp_path):
    flags = ("--method", method, "--macs", "1.3x", "--minutes", "0.003", "--json")
    result = compress(base, pairs, tmp_path / "m", *flags)
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert summary["dense"]["layer_macs"] >= 1.3 * summary["layer_macs"]


def test_int8_needs_no_training_and_measures_no_layer(base, pairs, tmp_path, monkeypatch):
    def measure(*_, **__):
        raise AssertionError("layers are measured for a choice of one")

    monkeypatch.setattr("leanmatch.compression.planner.sensitivity.Sensitivity.measure", measure)
    result = compress(base, pairs, tmp_path / "m", "--method", "int8", "--keep", "0.9", "--json")
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert len(summary["evaluated"]) == 1 and summary["faster"] is None
    layers = read_artifact(tmp_path / "m").layers.values()
    assert len(layers) > 10 and {layer.factors.bits for layer in layers} == {8}
    assert summary["attempts"][-1]["training"]["steps"] == 0
    assert summary["layer_macs"] == summary["dense"]["layer_macs"], (
        "rounding saves no multiply-adds, and says so"
    )


def test_bad_rows_are_left_out_when_told(base, pairs, tmp_path):
    bad = tmp_path / "bad.csv"
    bad.write_text(pairs.read_text(encoding="utf-8") + ",no anchor,train\n", encoding="utf-8")
    fixed = ("--method", "int8", "--keep", "0.9", "--json")
    stopped = compress(base, bad, tmp_path / "m", *fixed)
    assert stopped.exit_code == 1 and "--on-error skip" in stopped.stderr
    told = compress(base, bad, tmp_path / "m", *fixed, "--on-error", "skip")
    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout)["skipped"] == 1 and "1 bad row skipped" in told.stderr


def test_a_specification_instead_of_a_budget(base, pairs, tmp_path):
    spec = tmp_path / "spec.yaml"
    spec.write_text("rules:\n- pattern: '*intermediate.dense'\n  layer: {block: 8, atoms: 16, nonzeros: 2}\n")
    result = compress(base, pairs, tmp_path / "m", "--spec", spec, "--minutes", "0.003", "--json")
    assert result.exit_code == 0, result.output
    assert len(read_artifact(tmp_path / "m").layers) == 2


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["--task", "translate"], 2, "one of match, classify"),
        (["--method", "magic"], 2, "one of stf, post, svd, fwsvd, nm, int8"),
        (["--keep", "most"], 2, "a share such as 0.99 or 99%"),
        (["--keep", "1.5"], 2, "a share is above 0 and at most 1"),
        (["--size", "small"], 2, "a size such as 10MB"),
        (["--size", "5 parsecs"], 2, "a size such as 10MB"),
        (["--size", "10"], 2, "a number without a unit is bytes: write --size 10MB"),
        (["--macs", "0.5x"], 2, "macs must be above 1"),
        (["--macs", "500x"], 2, "the nearest possible is: --macs "),
        (["--faster", "0.5x"], 2, "faster must be above 1"),
        (["--faster", "soon"], 2, "--faster must be a ratio"),
        (["--for", "lunch"], 2, "one of queries, bulk"),
        (["--plot", "menu.svg"], 2, "add --menu"),
        (["--menu", "--pick", "1"], 2, "give one of the two"),
        (["--menu", "--method", "svd"], 2, "the menu is for the methods stf and post"),
        (["--minutes", "-1"], 2, "minutes must be from 0"),
        (["--minutes", "nan"], 2, "no finite number"),
        (["--lr", "0"], 2, "lr must be above 0"),
        (["--method", "int8", "--macs", "2x"], 2, "int8 saves bytes"),
        (["--from", "/no/such", "--size", "10MB", "--menu"], 2, "leave --size, --menu out, or --from"),
        (["--from", "/no/such", "--method", "nm"], 2, "--method cannot change them"),
        (["--from", "/no/such/folder"], 1, "is not a compressed model"),
        (["--spec", "/no/such/file"], 2, "there is no specification file"),
        (["--column", "anchor=question"], 1, "question"),
        (["--data", "/no/such/pairs.csv"], 1, "there is no such file"),
        (["--task", "classify"], 1, "is no trained classifier"),
    ],
)
def test_mistakes_are_named_and_leave_no_model(flags, code, message, base, pairs, tmp_path):
    result = compress(base, pairs, tmp_path / "m", *flags)
    assert result.exit_code == code, result.output
    assert message in result.stderr and "Traceback" not in result.stderr
    assert result.stdout == "" and not (tmp_path / "m").exists()


def test_data_and_models_that_cannot_be_used(base, pairs, lean, tmp_path):
    (tmp_path / "empty.csv").write_text("")
    empty = compress(base, tmp_path / "empty.csv", tmp_path / "m")
    assert empty.exit_code == 1 and "empty" in empty.stderr
    twice = compress(lean[0], pairs, tmp_path / "m")
    assert twice.exit_code == 1 and "is compressed already" in twice.stderr
    models.static_model().save_pretrained(str(tmp_path / "static"), create_model_card=False)
    static = compress(tmp_path / "static", pairs, tmp_path / "m")
    assert static.exit_code == 1 and "is a static encoder" in static.stderr
    broken = load_matcher(base, device="cpu")
    with torch.no_grad():
        broken[0].auto_model.encoder.layer[0].output.dense.weight[0, 0] = float("nan")
    broken.save_pretrained(str(tmp_path / "broken"), create_model_card=False)
    nan = compress(tmp_path / "broken", pairs, tmp_path / "m")
    assert nan.exit_code == 1 and "NaN" in nan.stderr and "Traceback" not in nan.stderr


def test_without_torch_the_extra_is_named(base, pairs, tmp_path, monkeypatch):
    real = importlib.import_module

    def without(name, *arguments):
        if name == "torch":
            raise ModuleNotFoundError(name=name)
        return real(name, *arguments)

    monkeypatch.setattr(importlib, "import_module", without)
    result = compress(base, pairs, tmp_path / "m")
    assert result.exit_code == 1 and "leanmatch[train]" in result.stderr


def test_a_folder_of_something_else_is_never_replaced(base, pairs, tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "thesis.tex").write_text("years of work")
    result = compress(base, pairs, tmp_path / "m", "--overwrite")
    assert result.exit_code == 1 and "is not a saved model" in result.stderr
    assert (tmp_path / "m" / "thesis.tex").read_text() == "years of work"


def test_an_interrupted_run_ends_as_if_it_had_not_been(base, pairs, tmp_path, monkeypatch):
    fixed = ("--macs", "1.3x", "--minutes", "0.02", "--json")
    steps = 8  # the second pass begins with the last one: the dense model's vectors are there already
    monkeypatch.setattr(planner_training, "fixed_steps", lambda *arguments: steps)
    whole = compress(base, pairs, tmp_path / "whole", *fixed, "--resume")
    assert whole.exit_code == 0, whole.output

    def interrupt(self, args, state, control, **kwargs):
        if state.global_step == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        options = planner_training.TrainingOptions

        def impatient(**values):
            return options(**{**values, "checkpoint_seconds": 0.0})

        patch.setattr("leanmatch.cli.compress.options.TrainingOptions", impatient)
        patch.setattr(trainer_run.Progress, "on_step_end", interrupt)
        stopped = compress(base, pairs, tmp_path / "cut", *fixed)
    assert stopped.exit_code == 130 and not (tmp_path / "cut").exists()
    before = json.loads((tmp_path / ".cut.compressing" / "spent.json").read_text())
    assert all(before["seconds"][part] > 0 for part in ("measuring", "factors", "training", "judging"))
    again = compress(base, pairs, tmp_path / "cut", *fixed)
    assert again.exit_code == 0, again.output
    assert "continuing the run" in again.stderr
    summary = json.loads(again.stdout)
    for kind in ("seconds", "cpu_seconds"):
        more = {part: value - before[kind][part] for part, value in summary[kind].items()}
        assert more["training"] > 0 and min(more.values()) > -0.1, (kind, "both calls count, to a decimal")
        assert more["measuring"] < before[kind]["measuring"], "nothing was measured again"
    training = summary["attempts"][0]["training"]
    assert training["seconds"] > 0
    assert training["resumed_at"] == 3 and training["steps"] == steps
    one, two = (tmp_path / name / "compressed.safetensors" for name in ("whole", "cut"))
    assert one.read_bytes() == two.read_bytes(), "to the bit"
    assert not (tmp_path / ".cut.compressing").exists()


def test_other_settings_do_not_continue_a_run_and_two_at_once_are_refused(base, pairs, tmp_path):
    work = tmp_path / ".m.compressing"
    script = f"""
import time
from leanmatch.trainer.work_folder import WorkFolder
held = WorkFolder({str(work)!r}, {{"options": "other"}}, lock=True)
(held.stage("attempt") / "steps.json").touch()
print("held", flush=True)
time.sleep(300)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout.readline() == "held\n"
            refused = compress(base, pairs, tmp_path / "m", "--macs", "2x")
        finally:
            other.kill()
    assert refused.exit_code == 1 and "another process" in refused.stderr
    different = compress(base, pairs, tmp_path / "m", "--macs", "2x")
    assert different.exit_code == 1 and "unfinished run with other settings" in different.stderr


def test_classification(tmp_path):
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    torch.manual_seed(0)
    names = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=models.tiny_tokenizer(), model_max_length=32, **names
    )
    classes = ["fruit", "tool", "place"]
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=64, initializer_range=0.2,
        id2label=dict(enumerate(classes)), label2id={name: place for place, name in enumerate(classes)},
    )  # fmt: skip
    model = BertForSequenceClassification(config).eval()
    texts = models.pair_lists()[0]
    with torch.no_grad():
        wanted = [
            classes[int(model(**tokenizer(text, return_tensors="pt")).logits.argmax())] for text in texts
        ]
    model.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    rows = {"anchor": texts, "positive": wanted}
    write_pairs(PairTable.from_columns(rows), tmp_path / "texts.csv")
    flags = ("--task", "classify", "--macs", "1.3x", "--minutes", "0.01", "--json")
    result = compress(tmp_path / "base", tmp_path / "texts.csv", tmp_path / "m", *flags)
    assert result.exit_code == 0, result.output
    quality = json.loads(result.stdout)["quality"]
    assert quality["metric"] == "accuracy" and quality["dense"] == 1.0 and quality["compressed"] > 0.3
    assert read_artifact(tmp_path / "m").task == "sequence-classification"
    flags = ("--task", "classify", "--from", tmp_path / "m", "--minutes", "0.01")
    further = compress(tmp_path / "base", tmp_path / "texts.csv", tmp_path / "n", *flags)
    assert further.exit_code == 0 and "before more training" in further.stdout
    other = compress(tmp_path / "base", tmp_path / "texts.csv", tmp_path / "o", *flags, "--seed", "3")
    assert other.exit_code == 2 and "give --seed 0" in other.stderr
    flags = ("--task", "classify", "--macs", "1.3x", "--minutes", "0.01", "--json")
    rows["positive"][0] = "animal"
    write_pairs(PairTable.from_columns(rows), tmp_path / "texts.csv")
    more = compress(
        tmp_path / "base", tmp_path / "texts.csv", tmp_path / "p", *flags, "--texts", tmp_path / "texts.csv",
        "--text-column", "anchor",
    )  # fmt: skip
    assert more.exit_code == 2 and "a classifier learns from labelled texts" in more.stderr
    unknown = compress(tmp_path / "base", tmp_path / "texts.csv", tmp_path / "p", *flags)
    assert unknown.exit_code == 1 and "the model has no such class" in unknown.stderr
