"""``leanmatch train`` as a user meets it, on a tiny static encoder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
import training_models as models
from leanmatch.cli.app import app
from leanmatch.cli.train.options import gather_options
from leanmatch.cli.train.request import TrainRequest
from leanmatch.data import PairTable, read_pairs, write_pairs
from leanmatch.formats import read_provenance
from leanmatch.formats.reader import load_encoder
from leanmatch.trainer import run as trainer_run


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base") / "static"
    models.static_model().save_pretrained(str(folder), create_model_card=False)
    return folder


@pytest.fixture
def pairs(tmp_path):
    """Four copies of the made-up pairs over other words would leak; instead the group column splits them."""
    anchors, positives = models.pair_lists()
    groups = ["toys" if row % 4 == 0 else "books" for row in range(len(anchors))]
    anchors[0], positives[0] = "bala 😀 cela", "bala 😀 " + "word " * 10_000
    path = tmp_path / "pairs.csv"
    write_pairs(PairTable.from_columns({"anchor": anchors, "positive": positives, "category": groups}), path)
    return path


def train(base, pairs, output, *flags):
    return CliRunner().invoke(
        app,
        [
            *("train", str(pairs), "-o", str(output), "--base", str(base), "--max-steps", "6"),
            *("--batch-size", "8", "--device", "cpu", *map(str, flags)),
        ],
    )


def test_trains_saves_and_says_so_in_one_json_document(base, pairs, tmp_path):
    result = train(base, pairs, tmp_path / "model", "--hold-out", "category=toys", "--json")
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert summary["base"] == str(base) and 0 <= summary["average"] <= 1.4
    assert set(summary["history"]) == {"weight-0", "weight-0.3"}
    assert "saved to" in result.stderr and "shifted validation slice" in result.stderr
    provenance = read_provenance(tmp_path / "model")
    assert provenance["base"] == str(base)
    assert provenance["data"]["rows"] == 96
    assert provenance["split"]["options"]["hold_out"] == ["category=toys"]
    assert provenance["options"]["schedule"]["max_steps"] == 6
    assert "valid MRR@10" in provenance["metrics"]
    assert load_encoder(tmp_path / "model", device="cpu")(["bala"]).shape == (1, 16)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model", "pairs.csv"], "nothing is left behind"


def test_target_texts_of_a_file_are_looked_at(base, pairs, tmp_path):
    target = tmp_path / "queries.csv"
    rows = [f"7,{text} {text} ba la {i}" for i, text in enumerate(["bala", "cela", "dini"] * 20)]
    target.write_text("id,query\n" + "\n".join(rows) + "\n", encoding="utf-8")  # identifiers may repeat
    result = train(base, pairs, tmp_path / "model", "--target", target, "--json")
    assert result.exit_code == 0, result.output
    assert "target texts: 60; 60 of them are cut in half" in result.stderr
    candidates = json.loads(result.stdout)["choice"]["candidates"]
    assert all(0 <= candidate["target"] <= 1 for candidate in candidates)
    data = read_provenance(tmp_path / "model")["data"]
    assert data["target"] == {"source": str(target), "texts": 60}


@pytest.mark.parametrize(
    ("content", "flags", "code", "message"),
    [
        (None, [], 1, "queries.csv: there is no such file"),
        ("text\n", [], 1, "there are no texts"),
        ("id,text\n1,bala\n2,\n", [], 1, "queries.csv:3 column 'text': the text is missing or blank"),
        ("a,b\nbala,cela\n", [], 1, "no column is known to hold the text"),
        ("a,b\nbala,cela\n", ["--text-column", "c"], 1, "there is no column 'c'"),
        ("text\nbala\nbala\n", [], 1, "the target has 1 distinct texts of 2"),
    ],
)
def test_bad_targets_stop_before_training(base, pairs, tmp_path, content, flags, code, message):
    target = tmp_path / "queries.csv"
    if content is not None:
        target.write_text(content, encoding="utf-8")
    result = train(base, pairs, tmp_path / "model", "--target", target, *flags)
    assert result.exit_code == code and message in result.stderr.replace("\n", " "), result.stderr
    assert not (tmp_path / "model").exists() and "train, plain" not in result.stderr


def test_a_text_column_needs_a_target(base, pairs, tmp_path):
    result = train(base, pairs, tmp_path / "model", "--text-column", "title")
    assert result.exit_code == 2 and "names a column of --target" in result.stderr


def test_bad_rows_are_listed_where_they_are_left_out(base, pairs, tmp_path):
    with pairs.open("a", encoding="utf-8") as handle:
        handle.write("".join(f",no anchor {n},books\n" for n in range(120)))
    flags = ("--regularizer", "none", "--average", "1", "--on-error", "skip", "--json")
    result = train(base, pairs, tmp_path / "model", *flags)
    assert result.exit_code == 0, result.output
    assert "120 bad rows skipped" in result.stderr and "and 110 more" in result.stderr
    assert "pairs.csv:98 column 'anchor': " in result.stderr
    for found in (json.loads(result.stdout), read_provenance(tmp_path / "model")["data"]):
        assert found["skipped"] == 120 and len(found["skipped_rows"]) == 100
        assert (found["skipped_rows"][0]["line"], found["skipped_rows"][0]["column"]) == (98, "anchor")


def test_brackets_in_data_and_paths_are_no_markup(base, tmp_path):
    path = tmp_path / "pairs.csv"
    found = {
        "anchor": [f"{models.WORDS[row % 7]} a{row}" for row in range(500)],
        "positive": [f"{models.WORDS[row % 7]} b{row}" for row in range(500)],
        "cat": [("toys", "[/x]", *4 * ["books"])[row % 6] for row in range(500)],
    }
    write_pairs(PairTable.from_columns(found), path)
    output = tmp_path / ("long" * 30) / "n[v1] :smile:"
    result = train(base, path, output, "--hold-out", "cat=toys", "--leakage", "ignore")
    assert result.exit_code == 0, result.output
    assert "the training group cat=[/x]" in result.stderr, "a remark names a category"
    assert f"saved to {output} (" in result.stderr


def test_flags_override_the_configuration_file(base, pairs, tmp_path):
    config = tmp_path / "options.yaml"
    config.write_text(
        "average: 0.5\nhold_out: [category=toys]\nregularizer: {kind: out, weight: 0.5}\n"
        "schedule: {seed: 3, lr: 0.001}\n"
    )
    result = train(
        base, pairs, tmp_path / "model", "--config", config, "--regularizer", "none", "--lr", "0.01"
    )
    assert result.exit_code == 0, result.output
    options = read_provenance(tmp_path / "model")["options"]
    assert options["average"] == 0.5 and options["schedule"]["seed"] == 3
    assert options["regularizer"]["kind"] == "none" and options["schedule"]["lr"] == 0.01


def test_the_split_can_be_configured(base, pairs, tmp_path):
    config = tmp_path / "options.yaml"
    config.write_text(
        "hold_out: category=toys\nafter:\nvalid_fraction: 0.2\nleakage: report\nschedule: {seed: 4}\n"
        "average: 1\nregularizer: {kind: none}\n"
    )
    flags = ("--config", config, "--test-fraction", "0.3", "--shared-positives")
    result = train(base, pairs, tmp_path / "model", *flags)
    assert result.exit_code == 0, result.output
    split = read_provenance(tmp_path / "model")["split"]["options"]
    assert split == {
        "hold_out": ["category=toys"], "after": None, "valid_fraction": 0.2, "test_fraction": 0.3, "seed": 4,
        "leakage": "report", "near_duplicates": True, "shared_positives": True,
    }  # fmt: skip


def test_the_model_is_one_of_sentence_transformers(base, pairs, tmp_path):
    from sentence_transformers import SentenceTransformer

    assert train(base, pairs, tmp_path / "model", "--regularizer", "none", "--average", "1").exit_code == 0
    ours = load_encoder(tmp_path / "model", device="cpu")(["bala cela", "😀"])
    theirs = SentenceTransformer(str(tmp_path / "model"), device="cpu").encode(
        ["bala cela", "😀"], normalize_embeddings=True
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["--weight", "heavy"], 2, "--weight must be a finite number or auto"),
        (["--regularizer", "l2"], 2, "one of itv, out, mask, none"),
        (["--batch-size", "1"], 2, "at least 2"),
        (["--hold-out", "category"], 2, "category"),
        (["--hold-out", "colour=red"], 1, "colour"),
        (["--hold-out", "category=cars"], 1, "books"),
        (["--base", "/no/such/model"], 1, "/no/such/model"),
        (["--config", "/no/such.yaml"], 2, "there is no configuration file"),
        (["--freeze-layers", "1"], 2, "needs a transformer"),
        (["--epochs", "inf"], 2, "inf is no finite number"),
        (["--weight", "inf"], 2, "--weight must be a finite number or auto"),
        (["--valid-fraction", "0"], 2, "validation pairs are needed for average 'auto'"),
        (["--valid-fraction", "0"], 2, "a larger --valid-fraction, or set --average to a number"),
    ],
)
def test_mistakes_are_named_and_leave_nothing(flags, code, message, base, pairs, tmp_path):
    result = train(base, pairs, tmp_path / "model", *flags)
    assert result.exit_code == code, result.output
    assert message in result.stderr and "Traceback" not in result.stderr
    assert result.stdout == "" and not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rate: 1", "one of base, regularizer, schedule, average"),
        ("holdout: a=b", "hold_out, after"),
        ("schedule: {learning_rate: 1}", "one of epochs, max_steps, minutes, batch_size, lr"),
        ("regularizer: out", "regularizer: {kind: itv}"),
        ("schedule: [1]", "schedule: {epochs: 1}"),
        ("schedule: {lr: 0.1}\nlr: 0.2", "'lr' stands both in 'schedule' and beside it"),
        ("lr: much", "must be float or nothing (found 'much')"),
        ("hold_out: [1]", "COLUMN=VALUE or a list of those"),
        ("hold_out: toys", "COLUMN=VALUE"),
        ("after: [2024]", "must be a date (found [2024])"),
        ("leakage: 1", "must be a word (found 1)"),
        ("valid_fraction: much", "must be a number (found 'much')"),
        ("shared_positives: 1", "must be true or false (found 1)"),
        ("- a\n- b", "mapping"),
        ("a: [", "is not YAML"),
    ],
)
def test_bad_configuration_files(text, message, base, pairs, tmp_path):
    config = tmp_path / "options.yaml"
    config.write_text(text)
    result = train(base, pairs, tmp_path / "model", "--config", config)
    assert result.exit_code == 2 and message in result.stderr


def test_a_configuration_file_may_be_flat_and_write_exponents(tmp_path):
    config = tmp_path / "options.yaml"
    config.write_text("lr: 2e-5\nweight: 1e-1\nschedule: {batch_size: 16}\nregularizer: {kind: out}\n")
    made, _ = gather_options(TrainRequest(Path("pairs.csv"), Path("model"), config=config))
    assert made.schedule.lr == 2e-5 and made.schedule.batch_size == 16
    assert made.regularizer.kind == "out" and made.regularizer.weight == 0.1


def test_what_the_split_noted_is_printed_and_a_base_folder_is_found_from_anywhere(
    base, pairs, tmp_path, monkeypatch
):
    monkeypatch.chdir(base.parent)
    table = read_pairs(pairs)
    few = [f"topic {row % 4}" for row in range(len(table))]
    path = tmp_path / "few.csv"
    write_pairs(PairTable.from_columns({"anchor": table.anchors, "positive": few}), path)
    result = train(base.name, path, tmp_path / "m", "--average", "1", "--weight", "0")
    assert result.exit_code == 0, result.output
    provenance = read_provenance(tmp_path / "m")
    assert provenance["base"] == str(base)
    assert provenance["split"]["notes"] and provenance["split"]["notes"][0] in result.stderr


def test_an_empty_file(base, tmp_path):
    (tmp_path / "empty.csv").write_text("")
    result = train(base, tmp_path / "empty.csv", tmp_path / "model")
    assert result.exit_code == 1 and "empty" in result.stderr


def test_a_model_that_is_there_is_kept_unless_told_otherwise(base, pairs, tmp_path):
    fixed = ("--average", "1", "--regularizer", "none")
    assert train(base, pairs, tmp_path / "model", *fixed).exit_code == 0
    before = (tmp_path / "model" / "model.safetensors").read_bytes()
    refused = train(base, pairs, tmp_path / "model", *fixed, "--seed", "5")
    assert refused.exit_code == 1 and "exists already" in refused.stderr
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == before
    assert train(base, pairs, tmp_path / "model", *fixed, "--seed", "5", "--overwrite").exit_code == 0
    assert (tmp_path / "model" / "model.safetensors").read_bytes() != before


def test_a_folder_that_is_no_model_is_refused_before_training(base, pairs, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "thesis.txt").write_text("years of work")
    result = train(base, pairs, tmp_path / "model", "--overwrite")
    assert result.exit_code == 1 and "is not a saved model" in result.stderr and "rows:" not in result.stderr
    assert (tmp_path / "model" / "thesis.txt").read_text() == "years of work"


def test_validation_rows_without_a_match_do_not_spoil_a_run_that_needs_none(base, tmp_path):
    anchors, positives = models.pair_lists()
    table = {"anchor": anchors, "positive": positives, "label": [1] * 60 + [0] * 36}
    table["split"] = ["train"] * 60 + ["valid"] * 36
    write_pairs(PairTable.from_columns(table), tmp_path / "pairs.csv")
    result = train(
        base, tmp_path / "pairs.csv", tmp_path / "model", "--regularizer", "none", "--average", "1", "--json"
    )
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["metrics"] == {}


def test_what_was_trained_is_evaluated_against_its_base_on_its_own_test_rows(base, pairs, tmp_path):
    flags = ("--hold-out", "category=toys", "--regularizer", "none", "--average", "1", "--lr", "0.05")
    assert train(base, pairs, tmp_path / "model", *flags).exit_code == 0
    split = read_provenance(tmp_path / "model")["split"]["parts"]
    arguments = ["evaluate", str(tmp_path / "model"), str(pairs), "--against", "base", "--json"]
    result = CliRunner().invoke(app, [*arguments, "--device", "cpu"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    rows = {part["kind"]: part["n_rows"] for part in found["slices"]}
    assert rows["in distribution"] == split["test_in"]["rows"]
    assert rows["out of distribution"] == split["test_out"]["rows"] > 0
    assert found["slices"][0]["metrics"]["MRR@10"]["verdict"]
    assert "test rows of the split that the model was trained with" in result.stderr


def test_it_ends_with_the_test_rows_against_the_base_and_the_next_command(base, pairs, tmp_path, monkeypatch):
    """The numbers are those of ``leanmatch evaluate``; a loss is told loudly, with what to do about it."""
    monkeypatch.setattr("leanmatch.metrics.advice.WORSE", "no difference seen")  # as if it were a loss
    flags = ("--hold-out", "category=toys", "--regularizer", "none", "--average", "1", "--lr", "0.5")
    result = train(base, pairs, tmp_path / "model", *flags, "--json")
    assert result.exit_code == 0, result.output
    tested = {part["kind"]: part for part in json.loads(result.stdout)["test"]["slices"]}
    asked = ("--against", "base", "--json", "--slices", "none")
    arguments = ["evaluate", str(tmp_path / "model"), str(pairs), *asked]
    evaluated = json.loads(CliRunner().invoke(app, [*arguments, "--device", "cpu"]).stdout)
    for part in evaluated["slices"]:
        own, other = (one["metrics"]["MRR@10"] for one in (tested[part["kind"]], part))
        assert own["value"] == pytest.approx(other["value"]) and own["verdict"] == other["verdict"]
    assert tested["out of distribution"]["metrics"]["MRR@10"]["verdict"] == "no difference seen"
    assert "WARNING: out of distribution: no difference seen between model and base" in result.stderr
    assert "--average 0.5" in result.stderr and "--max-steps 3" in result.stderr
    told = result.stderr.rstrip().splitlines()[-1]
    assert told == f"next: leanmatch diagnose {tmp_path / 'model'} {pairs} -o report.html"


def test_the_verdict_is_the_result_on_stdout(base, pairs, tmp_path):
    fixed = ("--regularizer", "none", "--average", "1")
    result = train(base, pairs, tmp_path / "model", *fixed)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("model against base") and "overall" in result.stdout
    assert "No row is out of distribution" in result.stdout and "saved to" not in result.stdout
    assert "model against base" not in result.stderr


def test_a_result_that_is_the_base_is_not_passed_on(base, pairs, tmp_path, monkeypatch):
    from leanmatch.training.selection import choice

    monkeypatch.setattr(choice, "best_shares", lambda per_query, resamples: np.zeros(1 + resamples))
    result = train(base, pairs, tmp_path / "model")
    assert result.exit_code == 0, result.output
    assert "The result is the base model itself" in result.stdout and "significant" not in result.stdout
    assert "next: " not in result.stderr


def test_the_verdict_takes_a_sample_of_many_rows(base, pairs, tmp_path, monkeypatch):
    monkeypatch.setattr("leanmatch.cli.train.verdict.MOST_ROWS", 20)
    result = train(base, pairs, tmp_path / "model", "--hold-out", "category=toys", "--json")
    assert result.exit_code == 0, result.output
    rows = {part["kind"]: part["n_rows"] for part in json.loads(result.stdout)["test"]["slices"]}
    assert rows["overall"] == 20 and rows["in distribution"] + rows["out of distribution"] == 20
    assert "testing on 20 held-out rows (a random sample of " in result.stderr


def test_a_test_that_cannot_be_done_leaves_the_saved_model(base, pairs, tmp_path):
    fixed = ("--regularizer", "none", "--average", "1")
    result = train(base, pairs, tmp_path / "model", *fixed, "--test-fraction", "0", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["test"] is None and (tmp_path / "model").is_dir()
    assert "no test against the base: " in result.stderr and "has no test rows" in result.stderr
    command = result.stderr.rstrip().splitlines()[-1].removeprefix("next: leanmatch ").split()
    assert command[:2] == ["diagnose", str(tmp_path / "model")]
    command[-1] = str(tmp_path / "report.html")
    again = CliRunner().invoke(app, [*command, "--minutes", "0.02", "--device", "cpu"])
    assert again.exit_code == 0, again.output


def test_time_is_told_before_training(base, pairs, tmp_path):
    result = train(base, pairs, tmp_path / "model", "--hold-out", "category=toys")
    assert result.exit_code == 0, result.output
    words = "training takes about a second: 6 steps at 0.0"
    assert words in result.stderr and "(itv at weight 0.3), and a second for the choice on" in result.stderr
    assert result.stderr.index(words) < result.stderr.index("train, plain:")


def test_two_runs_on_one_output(base, pairs, tmp_path):
    """The other run is a process that holds the lock of the work folder, and is then killed."""
    work = tmp_path / ".model.training"
    script = f"""
import sys, time
from leanmatch.trainer.work_folder import WorkFolder
held = WorkFolder({str(work)!r}, {{}}, lock=True)
print("held", flush=True)
time.sleep(300)
"""
    fixed = ("--average", "1", "--regularizer", "none", "--no-resume")
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout.readline() == "held\n"
            refused = train(base, pairs, tmp_path / "model", *fixed)
        finally:
            other.kill()
    assert refused.exit_code == 1 and "another process is training in" in refused.stderr
    assert (work / "run.json").exists() and not (tmp_path / "model").exists()
    assert train(base, pairs, tmp_path / "model", *fixed).exit_code == 0, "the lock died with its process"
    assert not work.exists()


def test_training_that_diverges_saves_nothing(base, pairs, tmp_path):
    result = train(base, pairs, tmp_path / "model", "--regularizer", "none", "--average", "1", "--lr", "1e39")
    assert result.exit_code == 1 and "diverged" in result.stderr and "--lr" in result.stderr
    assert not (tmp_path / "model").exists()


def test_an_interrupted_run_goes_on(base, pairs, tmp_path, monkeypatch):
    def interrupt(self, args, state, control, **kwargs):
        if state.global_step == 3:
            raise KeyboardInterrupt

    (tmp_path / "often.yaml").write_text("schedule: {checkpoint_minutes: 0}")
    fixed = ("--average", "1", "--regularizer", "none", "--config", tmp_path / "often.yaml")
    with monkeypatch.context() as patch:
        patch.setattr(trainer_run.Progress, "on_step_end", interrupt)
        stopped = train(base, pairs, tmp_path / "model", *fixed)
    assert stopped.exit_code == 130
    assert not (tmp_path / "model").exists() and (tmp_path / ".model.training").exists()
    other = train(base, pairs, tmp_path / "model", *fixed, "--lr", "0.5")
    assert other.exit_code == 1 and "unfinished run with other settings" in other.stderr
    again = train(base, pairs, tmp_path / "model", *fixed)
    assert again.exit_code == 0, again.output
    assert "continuing the run" in again.stderr
    assert not (tmp_path / ".model.training").exists()


def test_every_option_of_the_command_reaches_the_options(tmp_path, monkeypatch):
    """What a new option of the command would be forgotten in: each is typed, and none keeps its default."""
    from leanmatch.cli.train import command
    from leanmatch.data import SplitOptions
    from leanmatch.training import TrainOptions

    typed = {
        **{"base": "b", "regularizer": "out", "weight": 0.5, "average": 0.7, "negatives": "none"},
        **{"lora_rank": 2, "epochs": 3.0, "max_steps": 4, "minutes": 5.0},
        **{"batch_size": 6, "lr": 0.5, "seed": 7, "device": "cpu", "precision": "fp32"},
        **{"mini_batch_size": 2, "max_length": 9, "early_stopping": 3, "interventions": "mask"},
        **{"per_text": 2, "unit": "word", "matching": "effect", "pairs": "diagonal", "sides": "both"},
        **{"after": "2024-01-01", "valid_fraction": 0.2, "test_fraction": 0.3, "leakage": "report"},
    }
    seen = []
    monkeypatch.setattr(command, "run", seen.append)
    names = {name: "--" + name.replace("_", "-") for name in typed} | {"interventions": "--intervention"}
    flags = [word for name, value in typed.items() for word in (names[name], str(value))]
    flags += ["--hold-out", "a=b", "--no-refit", "--no-near-duplicates", "--shared-positives"]
    result = CliRunner().invoke(app, ["train", "pairs.csv", "-o", str(tmp_path / "m"), *flags])
    assert result.exit_code == 0, result.output
    options, split = gather_options(seen[0])
    made = options.to_json()
    flat = {**made, **made["schedule"], **made["regularizer"], "regularizer": made["regularizer"]["kind"]}
    flat |= {name: getattr(split, name) for name in ("after", "valid_fraction", "test_fraction", "leakage")}
    assert {name: flat[name] for name in typed} == typed
    assert made["refit"] is False and TrainOptions().refit is True
    assert split.hold_out == ("a=b",) and not split.near_duplicates and split.shared_positives
    defaults = TrainOptions().to_json()
    plain = {**SplitOptions().__dict__, **defaults, **defaults["schedule"], **defaults["regularizer"]}
    assert not [name for name, value in typed.items() if plain[name] == value], "the test bites"
