"""The help of every command: options in groups, the defaults that apply, an example that can be typed."""

from __future__ import annotations

import shlex
from dataclasses import asdict

import pytest
import typer
from typer.testing import CliRunner

from leanmatch.cli.app import app
from leanmatch.cli.help import DEFAULTS, OLD_SPELLINGS, PANELS

GROUP = typer.main.get_command(app)


def leaves(group, path=()):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from leaves(command, (*path, name))
        else:
            yield (*path, name), command


LEAVES = dict(leaves(GROUP))


def options(command):
    return [parameter for parameter in command.params if parameter.param_type_name == "option"]


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_every_option_stands_in_a_group(path):
    command = LEAVES[path]
    shown = [parameter for parameter in options(command) if not parameter.hidden]
    assert len(LEAVES) > 12 and shown
    for parameter in shown:
        assert parameter.rich_help_panel in PANELS, f"{parameter.name} is in no group of leanmatch.cli.help"
        assert parameter.help, parameter.name
    sizes = [sum(p.rich_help_panel == panel for p in shown) for panel in PANELS]
    assert max(sizes) <= 14
    result = CliRunner().invoke(app, [*path, "-h"], env={"COLUMNS": "120"})
    assert result.exit_code == 0
    assert all(panel in result.output for panel in {p.rich_help_panel for p in shown})


@pytest.mark.parametrize("path", [(), ("index",), ("train",), ("data", "check")], ids=" ".join)
def test_flags_show_no_type(path):
    result = CliRunner().invoke(app, [*path, "-h"], env={"COLUMNS": "120"})
    assert result.exit_code == 0 and "--help" in result.output
    assert "bool" not in result.output.lower()


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_every_command_ends_with_an_example_that_parses(path):
    command = LEAVES[path]
    assert command.epilog is not None and command.epilog.startswith(f"Example: leanmatch {' '.join(path)} ")
    words = shlex.split(command.epilog.removeprefix("Example: leanmatch "))[len(path) :]
    assert command.make_context(path[-1], words).params


def test_the_defaults_that_help_shows_are_those_that_apply():
    from leanmatch.cli.compress import options as compress_options
    from leanmatch.data import SplitOptions
    from leanmatch.training import TrainOptions

    train, split = TrainOptions(), SplitOptions()
    real = {**asdict(train), **asdict(train.regularizer), **asdict(train.schedule), **asdict(split)}
    real["regularizer"] = train.regularizer.kind
    words = {"lr": None, "near_duplicates": True, "shared_positives": None, "refit": True}
    for name, shown in DEFAULTS["train"].items():
        if name in words:
            assert real[name] is words[name], name
        else:
            value = real[name]
            assert shown == (f"{value:g}" if isinstance(value, float) else str(value)), name
    for name, command in (("train", "train"), ("compress", "compress")):
        given = {p.name: p.default for p in options(LEAVES[name,])}
        for parameter in DEFAULTS[command]:
            assert given[parameter] is None, f"{parameter} has a default of its own"
    assert DEFAULTS["compress"]["minutes"].startswith(f"{compress_options.DEFAULT_MINUTES:g};")
    assert DEFAULTS["compress"]["faster"].startswith(f"{compress_options.DEFAULT_FASTER}x")
    output = CliRunner().invoke(app, ["train", "-h"], env={"COLUMNS": "160"}).output
    assert "[default: (itv)]" in output and "[default: (alternate)]" in output


def test_old_spellings_are_taken_and_not_shown():
    train = LEAVES["train",]
    for spelling in ("--intervention", "--interventions"):
        context = train.make_context("train", ["pairs.csv", "-o", "m", spelling, "mask"])
        assert context.params["interventions"] == "mask"
    text = CliRunner().invoke(app, ["train", "-h"], env={"COLUMNS": "120"}).output
    assert "--interventions" not in text and "--intervention " in text
    assert OLD_SPELLINGS["catalogue"] == "output"


@pytest.mark.parametrize("name", ["--column", "--delimiter", "--on-error"])
def test_options_that_read_rows_are_the_same_in_every_command(name):
    texts = {(p.help, p.metavar) for command in LEAVES.values() for p in options(command) if name in p.opts}
    assert len(texts) == 1


def test_add_and_update_have_the_same_options():
    one, other = ([p.opts for p in LEAVES["index", name].params] for name in ("add", "update"))
    assert one == other and len(one) > 5
