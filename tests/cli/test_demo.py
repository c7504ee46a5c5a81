"""The demo's whole road on a tiny encoder and a made-up graph; its stages, kept, repeated and resumed."""

from __future__ import annotations

import io
import json
import random
import sys
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
import training_models as models
from leanmatch.cli.app import app
from leanmatch.cli.demo import command, requests, road
from leanmatch.cli.demo.stages import Record, Road, Stage, only_one, run_leanmatch
from leanmatch.cli.demo.summary import against_int8, models_table, next_steps, sentences
from leanmatch.data import PairTable, write_pairs
from leanmatch.errors import LeanmatchError


def made_up_graph(folder: Path) -> None:
    """Pairs and items of four packages, where the demo would read docstrings."""
    draw = random.Random(1)
    columns: dict[str, list[str]] = {name: [] for name in ("anchor", "positive", "anchor_id", "positive_id")}
    columns |= {"package": [], "split": []}
    items = {}
    for row in range(400):
        package = ("numpy", "scipy", "pandas", "sklearn")[row % 4]
        shared = draw.sample(models.WORDS, 3)
        for side in ("anchor", "positive"):
            words = [*shared, *draw.sample(models.WORDS, 4)]
            name, text = f"{package}.{side}{row}", f"{side}{row}: " + " ".join(words)
            columns[side].append(text)
            columns[f"{side}_id"].append(name)
            items[name] = {"id": name, "text": text, "package": package, "kind": "function"}
        columns["package"].append(package)
        columns["split"].append(("train", "train", "train", "test", "valid")[row // 4 % 5])
    folder.mkdir(parents=True, exist_ok=True)
    write_pairs(PairTable.from_columns(columns), folder / "pairs.parquet")
    (folder / "items.jsonl").write_text("\n".join(map(json.dumps, items.values())) + "\n")


class InThisProcess:
    """Runs the same commands as the demo does, without a new interpreter for each, and notes them."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.commands: list[str] = []

    def __call__(self, arguments) -> str:
        self.commands.append(arguments[0])
        if arguments[:2] == ["data", "see-also"]:
            made_up_graph(self.output / "data")
            return "{}"
        result = CliRunner().invoke(app, list(arguments))
        assert result.exit_code == 0, (arguments, result.output)
        return result.stdout


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    """The road walked once: folder, commands, summary."""
    place = tmp_path_factory.mktemp("demo")
    base = place / "base"
    models.transformer_model(place / "source").save_pretrained(str(base), create_model_card=False)
    output = place / "out"
    execute = InThisProcess(output)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(road, "BASE", str(base))
        patch.setattr(road, "TRAINING", ("--max-steps", "6", "--batch-size", "16", "--lr", "1e-3"))
        patch.setattr(road, "COMPRESSION", ("--faster", "1.05x", "--minutes", "0.02", "--batch-size", "16"))
        summary = command.run(output, execute=execute)
        yield output, execute, summary


def test_every_stage_runs_its_command(walked):
    output, execute, summary = walked
    assert execute.commands == [
        *("data", "train", "evaluate", "diagnose", "evaluate", "compress", "evaluate", "index", "index"),
        "export",
    ]
    assert list(summary["stages"])[-2:] == ["serve", "site"]
    assert not any(one["kept"] for one in summary["stages"].values())
    assert "<html" in (output / "report.html").read_text()


def test_the_summary_measures_all_models(walked):
    output, _, summary = walked
    found = summary["models"]
    assert list(found) == ["base", "trained", "int8", "compressed"]
    for model in found.values():
        assert set(model["texts_a_second"]) == {"sentence-transformers", "leanmatch"}
        assert all(speed > 0 for speed in model["texts_a_second"].values())
        assert all(0 < model["metrics"][part]["MRR@10"]["value"] <= 1 for part in model["metrics"])
    trained = found["trained"]["metrics"]["out of distribution"]["MRR@10"]
    assert trained["low"] <= trained["difference"] <= trained["high"]
    sizes = [found[name]["weights_bytes"] for name in ("trained", "int8", "compressed")]
    assert sizes[0] == (output / "model" / "model.safetensors").stat().st_size > sizes[1] > sizes[2] > 0
    json.dumps(summary, allow_nan=False)


def test_the_summary_says_what_compression_reached(walked):
    summary = json.loads(json.dumps(walked[2]))
    quality = summary["compression"]["quality"]
    assert summary["compression"]["asked"]["keep"] == 0.99
    for kept, low, high, said in (
        (0.995, 0.991, 1.0, "99.0% asked for: shown"),
        (0.995, 0.97, 1.02, "99.0% asked for: not shown (97.0% to 102.0%)"),
        (0.95, 0.9, 0.98, "99.0% asked for: missed"),
    ):
        quality |= {"kept": kept, "low": low, "high": high, "evidence": None}
        text = "\n".join(sentences(summary))
        assert said in text and f"{kept:.1%} kept (95% interval {low:.1%}" in text


def test_the_bar_is_int8_and_what_is_given_up_is_named(walked):
    models = json.loads(json.dumps(walked[2]["models"]))
    int8, compressed = models["int8"], models["compressed"]
    int8["weights_bytes"], compressed["weights_bytes"] = 2100, 1000
    int8["texts_a_second"]["leanmatch"], compressed["texts_a_second"]["leanmatch"] = 100.0, 140.0
    for metrics in compressed["metrics"].values():
        for measure in metrics.values():
            measure |= {"difference": -0.01, "low": -0.02, "high": 0.001}
    assert against_int8(models).endswith(
        "2.10x fewer bytes of weights, 1.40x the texts/s, no significant loss"
    )
    compressed["metrics"]["in distribution"]["nDCG@10"]["high"] = -0.002
    compressed["weights_bytes"] = 2000
    said = against_int8(models)
    assert "it gives up: bytes (2x is the bar), nDCG@10 in distribution (-1.0, -2.0 to -0.2)" in said


def test_the_server_answered_from_the_held_out_package(walked):
    server = walked[2]["server"]
    assert [query["text"] for query in server["queries"]] == list(road.QUERIES)
    assert all(item["id"].startswith("pandas.") for query in server["queries"] for item in query["items"])
    assert server["same_vectors"] and 0 < server["median_ms"] <= server["slowest_ms"]


def test_a_second_run_keeps_everything_and_shows_the_same(walked):
    output, execute, summary = walked
    before = list(execute.commands)
    again = command.run(output, execute=execute)
    assert execute.commands == before and all(one["kept"] for one in again["stages"].values())
    assert again["models"] == summary["models"]
    console = Console(file=io.StringIO(), width=200)
    console.print(models_table(again))
    table = console.file.getvalue()
    assert (
        "compressed" in table
        and "int8, untrained" in table
        and "against trained" in table
        and "out of distribution" in table
    )
    steps = next_steps(again)
    assert (output / "report.html").resolve().as_uri() in steps
    assert f"leanmatch serve {output / 'catalogue'}" in steps and "http://127.0.0.1:8080/" in steps


def test_what_is_missing_is_made_again_and_what_rests_on_it(walked):
    output, execute, _ = walked
    (output / "report.html").unlink()
    before = len(execute.commands)
    command.run(output, execute=execute)
    assert execute.commands[before:] == ["diagnose"] and (output / "report.html").exists()


def test_the_command_prints_the_summary(walked, monkeypatch):
    output, _, summary = walked
    as_json = CliRunner().invoke(app, ["demo", "-o", str(output), "--json"])
    assert as_json.exit_code == 0, as_json.output
    assert json.loads(as_json.stdout)["models"] == json.loads(json.dumps(summary["models"]))
    shown = CliRunner().invoke(app, ["demo", "-o", str(output)], env={"COLUMNS": "200"})
    assert shown.exit_code == 0, shown.output
    for words in (*road.QUERIES, "99.0% asked for", "kept from an earlier run", "leanmatch compress model/"):
        assert words in shown.stdout
    assert "minutes on 2 cores" in shown.stderr.splitlines()[0], "it says at once how long it takes"


@pytest.fixture
def stages(tmp_path):
    """Two stages, the second resting on the first; what ran is noted."""
    ran: list[list[str]] = []

    def execute(arguments):
        ran.append(list(arguments))
        return json.dumps({"ran": len(ran)})

    def go(*made: Stage, execute=execute) -> dict[str, Record]:
        return Road(tmp_path / "stages", execute, Console(file=io.StringIO())).run(made)

    return ran, go


FIRST = Stage("first", "the first", ("first", "--json"), anew=("--no-resume",))
SECOND = Stage("second", "the second", ("second",), needs=("first",))


def test_a_change_runs_the_stage_and_those_that_rest_on_it(stages):
    ran, go = stages
    go(FIRST, SECOND)
    assert go(FIRST, SECOND)["second"].result["ran"] == 2 and len(ran) == 2
    changed = Stage("first", "the first", ("first", "--more", "--json"))
    records = go(changed, SECOND)
    assert [one[0] for one in ran[2:]] == ["first", "second"] and not records["second"].kept


def test_a_killed_stage_is_resumed_by_the_same_stage_only(stages):
    ran, go = stages

    def killed(arguments):
        ran.append(list(arguments))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go(FIRST, execute=killed)
    assert ran[-1] == ["first", "--json", "--no-resume"], "nothing of an unknown run is continued"
    with pytest.raises(KeyboardInterrupt):
        go(FIRST, execute=killed)
    assert ran[-1] == ["first", "--json"], "the same stage goes on where it was"
    other = Stage("first", "the first", ("first", "--other"), anew=("--no-resume",))
    go(other)
    assert ran[-1] == ["first", "--other", "--no-resume"]


def test_a_damaged_record_is_made_again(stages, tmp_path):
    ran, go = stages
    go(FIRST)
    (tmp_path / "stages" / "first.json").write_text("{")
    go(FIRST)
    assert len(ran) == 2


def test_a_stage_that_makes_nothing_or_prints_no_json_is_an_error(stages, tmp_path):
    _, go = stages
    with pytest.raises(LeanmatchError, match=r"first did not make .*nowhere"):
        go(Stage("first", "the first", ("first",), makes=(tmp_path / "nowhere",)))
    with pytest.raises(LeanmatchError, match="printed no JSON: 'words'"):
        go(FIRST, execute=lambda arguments: "words")


def test_one_demo_at_a_time(tmp_path):
    with (
        only_one(tmp_path / "out" / "stages"),
        pytest.raises(LeanmatchError, match=r"another demo is running in .*out"),
        only_one(tmp_path / "out" / "stages"),
    ):
        pass


def test_commands_run_in_processes_of_their_own(capfd):
    assert run_leanmatch(["--version"]).startswith("leanmatch ")
    with pytest.raises(LeanmatchError, match="leanmatch recommend ended with exit code 2"):
        run_leanmatch(["recommend", "nowhere", "nothing"])
    assert "is no catalogue" in capfd.readouterr().err


def test_a_server_that_does_not_start_is_an_error(tmp_path):
    with (
        pytest.raises(LeanmatchError, match=r"the server did not start; it said: .*no such catalogue"),
        requests.served(tmp_path / "nowhere"),
    ):
        pass
