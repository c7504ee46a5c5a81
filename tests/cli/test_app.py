"""The command as a whole: which commands there are, the version, exit codes."""

from __future__ import annotations

import subprocess
import sys

import pytest
from typer.testing import CliRunner

import leanmatch
from leanmatch.cli.app import app

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


def test_module_and_console_script_are_the_same_program() -> None:
    command = [sys.executable, "-m", "leanmatch", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == f"leanmatch {leanmatch.__version__}\n"
