"""The command as a whole: which commands there are, the version, exit codes."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import typer
from typer.testing import CliRunner

import leanmatch
from leanmatch.cli.app import app, main

COMMANDS = ("train", "evaluate", "compress", "inspect", "export", "recommend", "data", "demo", "doctor")


def test_help_names_every_command() -> None:
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0
    assert [name for name in COMMANDS if name not in result.stdout] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert f"leanmatch {command}" in result.stdout


def test_version() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"leanmatch {leanmatch.__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["fly"], "No such command 'fly'"), (["doctor", "--wings"], "No such option: --wings")],
)
def test_usage_errors_end_with_2(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""


def test_ctrl_c_outside_a_commands_work_leaves_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(**settings: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("leanmatch.cli.app.app", interrupted)
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 130
    assert capsys.readouterr() == ("", "interrupted\n")


def test_module_and_console_script_are_the_same_program() -> None:
    command = [sys.executable, "-m", "leanmatch", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == f"leanmatch {leanmatch.__version__}\n"


def numbers_of(group: typer.Typer) -> list[tuple[Callable[..., Any], str]]:
    """Every command with each of its options that is a number with a point."""
    found = [
        (info.callback, name)
        for info in group.registered_commands
        for name, hint in get_type_hints(info.callback).items()
        if "float" in str(hint)
    ]
    return found + [one for inner in group.registered_groups for one in numbers_of(inner.typer_instance)]


def test_no_option_of_any_command_takes_nan_or_infinity() -> None:
    options = numbers_of(app)
    assert len(options) >= 9 and {name for _, name in options} >= {"timeout", "lr", "test_fraction"}
    for command, name in options:
        for value in (math.nan, math.inf, -math.inf):
            with pytest.raises(typer.BadParameter, match="no finite number"):
                command(**{name: value})


@pytest.mark.parametrize(
    "arguments",
    [
        ["serve", "c", "--timeout", "nan"],
        ["serve", "c", "--timeout", "inf"],
        ["serve", "c", "--window-ms", "-inf"],
        ["serve", "c", "--window-ms", "nan"],
        ["data", "split", "p.csv", "-o", "x", "--test-fraction", "nan"],
        ["compress", "m", "-o", "x", "--data", "d", "--keep", "nan"],
        ["compress", "m", "-o", "x", "--data", "d", "--keep", "inf%"],
        ["compress", "m", "-o", "x", "--data", "d", "--macs", "infx"],
        ["train", "p.csv", "-o", "x", "--lr", "nan"],
    ],
)
def test_numbers_that_are_none_are_usage_errors(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2, result.output
    assert any(word in result.stderr for word in ("nan", "inf", "greater than", "range")), result.stderr
