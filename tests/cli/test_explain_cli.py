"""``leanmatch explain`` with made-up models: words, colours, JSON, exit codes."""

from __future__ import annotations

import importlib
import json

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from leanmatch.cli.app import app

command = importlib.import_module("leanmatch.cli.explain")


def letters(texts):
    return np.array([[text.count(c) for c in "abcdefgh\U0001f680"] for text in texts], np.float32)


def others(texts):
    return letters([text.replace("a", "b") for text in texts])


@pytest.fixture
def run(monkeypatch):
    def call(*arguments, provenance=None):
        models = {"one": letters, "folder/other": others}
        monkeypatch.setattr(command, "_load", lambda name, *_: models[name])
        monkeypatch.setattr(command, "check_models", lambda *names: None)  # they are in memory only
        monkeypatch.setattr("leanmatch.cli.evaluate.plan.check_models", lambda *names: None)
        monkeypatch.setattr(command, "provenance_of", lambda name: provenance)
        return CliRunner().invoke(app, ["explain", "one", *arguments], env={"COLUMNS": "100"})

    return call


def test_words_with_their_effects(run):
    result = run("aa b \U0001f680", "a \U0001f680")
    assert result.exit_code == 0, result.output
    scores = letters(["aa b \U0001f680", "b \U0001f680", "a \U0001f680"])
    scores /= np.linalg.norm(scores, axis=1, keepdims=True)
    assert f"one: score {scores[0] @ scores[2]:.3f}" in result.stdout
    line = next(row for row in result.stdout.splitlines() if row.startswith("aa ") and "+" in row)
    assert f"{(scores[0] - scores[1]) @ scores[2]:+.3f}" in line
    assert "\u2588" in line
    assert "\U0001f680" in result.stdout


def test_json_goes_to_stdout_alone(run):
    result = run(
        "aa b", "a", "--against", "base", "--json", "--interactions", provenance={"base": "folder/other"}
    )
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert list(found["models"]) == ["one", "base"]
    units = found["models"]["one"]["anchor"]["units"]
    assert [(unit["text"], unit["start"], unit["end"]) for unit in units] == [("aa", 0, 2), ("b", 3, 4)]
    assert units[0]["effect"] > 0 > units[1]["effect"]
    assert np.array(found["interactions"]["values"]).shape == (2, 1)


def test_two_models_and_interactions_side_by_side(run):
    result = run("aa c", "a c", "--against", "folder/other", "--interactions")
    assert result.exit_code == 0, result.output
    assert "other: score" in result.stdout
    assert "interactions" in result.stdout


def test_colours_show_the_sign(run, monkeypatch):
    console = Console(force_terminal=True, color_system="truecolor", width=80, record=True)
    monkeypatch.setattr(command, "stdout_console", lambda: console)
    assert run("aa b", "a").exit_code == 0
    text = console.export_text(styles=True)
    assert "48;2;33;102;172maa" in text.replace("37;", ""), "the strongest word on full blue"
    assert "48;2;" in text.split("aa", 1)[1].split("\n", 1)[0]


@pytest.mark.parametrize("texts", [("", "a"), ("", ""), ("\U0001f680", "a"), ("a " * 300, "b")])
def test_odd_texts(run, texts):
    result = run("--", *texts)
    assert result.exit_code == 0, result.output
    assert ("(no text)" in result.stdout) == ("" in texts)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--intervention", "swap"], "one of mask, delete, replace"),
        (["--unit", "phrase"], "one of token, word"),
        (["--unit", "token"], "use unit='word'"),
        (["--intervention", "mask"], "needs a mask token"),
        (["--against", "base"], "one does not say what its base is"),
    ],
)
def test_errors(run, arguments, message):
    result = run("a b", "a", *arguments)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert not result.stdout


def test_text_that_is_not_utf8(run):
    result = run("a \udcff", "a")
    assert result.exit_code == 2
    assert "not UTF-8" in result.stderr
