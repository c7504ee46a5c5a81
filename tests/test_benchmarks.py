"""The training benchmark runs and reports; how fast anything is, is no matter here."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch

from leanmatch.errors import UsageError
from leanmatch.training import features

sys.path.insert(0, str(Path(__file__).parent / "training"))
import training_models as models


@pytest.fixture(scope="module")
def bench(load_script):
    return load_script("benchmarks/bench_training.py")


@pytest.fixture
def unchanged():
    """The benchmark sets threads and chunk size for its own process: here it must not."""
    threads, chunk = torch.get_num_threads(), features.CHUNK_TOKENS
    yield
    torch.set_num_threads(threads)
    features.CHUNK_TOKENS = chunk


@pytest.fixture
def tiny(tmp_path):
    model = models.transformer_model(tmp_path / "bert")
    model.save(str(tmp_path / "tiny"))
    return str(tmp_path / "tiny")


def test_the_first_run_is_timed_and_each_command_says_beforehand_how_long_it_takes(
    load_script, tiny, tmp_path, capsys
):
    module = load_script("benchmarks/bench_first_run.py")
    file = tmp_path / "times.json"
    flags = ("--rows", "400", "--max-steps", "2", "--minutes", "0.05", "--base", tiny, "--json", str(file))
    found = module.main(flags)
    assert found["rows"] == 400 and found["seconds"] > 0 and file.is_file()
    assert any("training takes about" in line for line in found["train"]["said"])
    assert any("testing on" in line for line in found["train"]["said"])
    assert len(found["diagnose"]["said"]) == 2
    assert "bar: 600 s on two idle cores" in capsys.readouterr().out


@pytest.mark.usefixtures("unchanged")
def test_training_benchmark_measures_every_contestant_and_writes_what_it_prints(
    bench, tiny, tmp_path, capsys
):
    file = tmp_path / "new" / "speed.md"
    command = ["--quick", "--model", tiny, "--batch-size", "8", "--threads", "1", "--write", str(file)]
    races = bench.main(command)
    assert set(races) == {"steps", "throughput"}
    assert len(races["steps"].names) == 7
    for race in races.values():
        assert set(race.ratios(race.names[0])) == {1.0}
        for name in race.names:
            ratios = race.ratios(name)
            assert len(ratios) == 2
            assert all(math.isfinite(ratio) and ratio > 0 for ratio in ratios), name
    text = file.read_text(encoding="utf-8")
    assert text == capsys.readouterr().out
    for name in races["steps"].names:
        assert sum(line.startswith(f"| {name} |") for line in text.splitlines()) == 1, name
    assert "| leanmatch, pairs/s | stock, pairs/s |" in text
    assert "load average" in text
    assert f"torch {torch.__version__}" in text


@pytest.mark.usefixtures("unchanged")
def test_chunk_sizes_are_compared_with_the_one_that_is_set(bench, tiny, capsys):
    sizes, default = [], features.CHUNK_TOKENS
    chunks = features.chunks_by_length
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            features, "chunks_by_length", lambda f, tokens: sizes.append(tokens) or chunks(f, tokens)
        )
        command = ["--quick", "--model", tiny, "--batch-size", "8", "--threads", "1"]
        races = bench.main([*command, "--chunk-tokens", "64", "128"])
    assert set(sizes) == {default, 64, 128}
    assert list(races["chunks"].names) == [f"PlainLoss, CHUNK_TOKENS {n}" for n in (default, 64, 128)]
    assert "| PlainLoss, CHUNK_TOKENS 64 |" in capsys.readouterr().out


@pytest.mark.usefixtures("unchanged")
def test_later_epochs_find_the_base_embeddings_in_the_cache(bench, tiny, monkeypatch):
    hits = []
    forward = bench.ITVReg.forward

    def counting(self, *given):
        before = self.base.hits
        result = forward(self, *given)
        hits.append(self.base.hits - before)
        return result

    monkeypatch.setattr(bench.ITVReg, "forward", counting)
    model = bench.load_matcher(tiny, device="cpu")
    bench.race_losses(model, bench.made_up_pairs(model, 24), bench.parse(["--quick", "--batch-size", "8"]))
    # three rounds; ITVReg, sides=both, and ITVReg on a full cache: it asks for the texts that edits meet
    assert sorted(hits) == [0] * 6 + [8] * 3


def test_ratios_are_taken_within_a_round(bench):
    cost = {"first": 2, "second": 3}
    race = bench.Race(("first", "second")).run(
        3, lambda name, turn: bench.Spent((turn + 1) * cost[name], turn * cost[name] ** 2), "note"
    )
    assert race.seconds == {"first": [4, 6, 8], "second": [6, 9, 12]}
    assert race.ratios("second") == [1.5, 1.5, 1.5]
    assert race.cpu_ratios("second") == [2.25, 2.25, 2.25]


def test_too_few_pairs_for_the_plan_are_an_error(bench, tmp_path):
    file = tmp_path / "pairs.csv"
    file.write_text("anchor,positive\na,b\nc,d\n")
    with pytest.raises(UsageError, match="has 2 pairs with label 1, and 3 are needed"):
        bench.file_pairs(file, 3)


def test_a_tokenizer_without_plain_words_is_an_error(bench):
    class Empty:
        class tokenizer:  # noqa: N801
            @staticmethod
            def get_vocab():
                return {"[PAD]": 0, "\u2581a": 1}

    with pytest.raises(UsageError, match="0 plain words"):
        bench.made_up_pairs(Empty(), 3)


def test_no_rounds_are_an_error(bench, capsys):
    with pytest.raises(SystemExit):
        bench.parse(["--rounds", "0"])
    assert "--rounds must be at least 1 (found 0)" in capsys.readouterr().err


@pytest.mark.usefixtures("unchanged")
def test_diagnosis_benchmark_compares_effects_and_times(load_script, tiny, tmp_path, capsys):
    module = load_script("benchmarks/bench_diagnose.py")
    file = tmp_path / "new" / "speed.md"
    results = module.main(["--quick", "--model", tiny, "--pairs", "2", "--write", str(file)])
    assert set(results) == {"delete", "mask"}
    for seconds in results.values():
        assert {name: len(found) for name, found in seconds.items()} == {"fast": 2, "hoisted": 2, "slow": 2}
        assert all(second > 0 for found in seconds.values() for second in found)
    text = file.read_text(encoding="utf-8")
    assert text == capsys.readouterr().out
    assert "| delete |" in text and "| mask |" in text and "Largest difference" in text
