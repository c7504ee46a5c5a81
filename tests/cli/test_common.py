"""What the commands share: which error ends with which exit code, and where words go."""

from __future__ import annotations

import ast
import errno
import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import typer
from rich.table import Table
from rich.text import Text

import leanmatch
from leanmatch.cli.common import (
    from_full_disk,
    print_json,
    reported_errors,
    say,
    stderr_console,
    stdout_console,
)
from leanmatch.cli.terminal import visible, visible_offsets
from leanmatch.errors import DataError, LeanmatchError, UsageError


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (UsageError("no such option", remedy="read"), 2, "error: no such option\n  remedy: read\n"),
        (LeanmatchError("it broke"), 1, "error: it broke\n"),
        (DataError("bad", path="a.csv", line=2), 1, "error: a.csv:2: bad\n"),
        (
            FileNotFoundError(errno.ENOENT, "No such file", "x.csv"),
            1,
            "error: [Errno 2] No such file: 'x.csv'\n",
        ),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_exit_codes(
    error: BaseException, code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as stop, reported_errors():
        raise error
    assert stop.value.exit_code == code
    assert capsys.readouterr() == ("", message)


def test_ctrl_c_says_what_a_command_that_keeps_its_work_does_next(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as stop, reported_errors(resumes=True):
        raise KeyboardInterrupt
    assert stop.value.exit_code == 130
    assert capsys.readouterr().err == "interrupted; give the same command again to resume\n"


def test_a_full_disk_is_told_with_the_file_and_a_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as stop, reported_errors():
        raise OSError(errno.ENOSPC, "No space left on device", "site/model.bin")
    assert stop.value.exit_code == 1
    told = capsys.readouterr().err
    assert (
        told.startswith("error: site/model.bin could not be written: the disk is full") and "remedy: " in told
    )


@pytest.mark.parametrize("error", [OSError("without a number"), ZeroDivisionError("a bug")])
def test_bugs_keep_their_traceback(error: Exception) -> None:
    with pytest.raises(type(error)), reported_errors():
        raise error


def test_json_goes_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": "ü"})
    out, err = capsys.readouterr()
    assert (json.loads(out), err) == ({"a": "ü"}, "")
    assert "ü" in out
    with pytest.raises(ValueError, match="JSON compliant"):
        print_json(float("inf"))
    assert capsys.readouterr().out == ""


def test_consoles(capsys: pytest.CaptureFixture[str]) -> None:
    stdout_console().print("result")
    stderr_console().print("progress")
    assert capsys.readouterr() == ("result\n", "progress\n")


def test_a_library_that_meets_a_full_disk_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    with pytest.raises(typer.Exit) as stop, reported_errors():
        try:
            full.write_bytes(b"x")
        except OSError as error:  # as a library passes it on: without errno
            raise RuntimeError("saving failed") from error
    assert stop.value.exit_code == 1
    assert "disk is full" in capsys.readouterr().err


def test_a_full_disk_is_recognized_in_each_librarys_words() -> None:
    assert from_full_disk(RuntimeError("Error: I/O error: No space left on device (os error 28)"))
    assert not from_full_disk(ValueError("another"))
    assert not from_full_disk(None)


HOSTILE = "dock\x1b]0;gone\x07\x1b[2J\r\x9b31m\u202egpj\x7f"


def test_control_characters_are_shown_and_not_obeyed(capsys):
    assert visible(HOSTILE) == r"dock\x1b]0;gone\x07\x1b[2J\r\x9b31m\u202egpj\x7f"
    assert visible("tab\tand\nline é 日 \N{ROCKET}") == "tab\tand\nline é 日 \N{ROCKET}"
    assert visible("\ud800") == r"\ud800"
    places = visible_offsets(HOSTILE)
    assert len(places) == len(HOSTILE) + 1 and places[-1] == len(visible(HOSTILE))
    assert visible(HOSTILE)[places[HOSTILE.index("gpj")] :].startswith("gpj")
    table = Table(title=HOSTILE)
    table.add_column("text", overflow="fold")
    table.add_row(Text(HOSTILE))
    stdout_console().print(table, HOSTILE, markup=False)
    say(HOSTILE)
    print_json({"text": HOSTILE})
    with pytest.raises(typer.Exit), reported_errors():
        raise DataError(HOSTILE, path=HOSTILE)
    out, err = capsys.readouterr()
    for written in (out, err):
        assert written and not set(written) & set("\x1b\x07\r\x9b\x7f\u202e"), written
    assert json.loads(out[out.index("{") :]) == {"text": HOSTILE}


def test_nothing_is_folded_where_there_is_no_terminal(capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    table = Table("id", "title")
    table.add_row("7", "word " * 100)
    stdout_console().print(table)
    assert "word " * 99 in capsys.readouterr().out
    monkeypatch.setenv("COLUMNS", "60")
    stdout_console().print(table)
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 60


def _bars():
    """Each call of tqdm in the package."""
    package = Path(leanmatch.__file__).parent
    for file in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "tqdm":
                yield f"{file.relative_to(package)}:{node.lineno}", node


def test_every_bar_says_what_it_counts_with_a_space_before_the_unit():
    bars = dict(_bars())
    assert len(bars) >= 8, "the search finds them"
    for place, call in bars.items():
        named = {keyword.arg: keyword.value for keyword in call.keywords}
        assert "desc" in named or len(call.args) > 1, f"{place} has no description"
        unit = named.get("unit")
        unit = unit.values[0] if isinstance(unit, ast.JoinedStr) else unit
        assert isinstance(unit, ast.Constant) and unit.value.startswith(" "), f"{place}: '10model'"


@pytest.mark.parametrize("asked", [True, False])
def test_with_json_what_libraries_print_goes_to_stderr(asked: bool) -> None:
    """LAPACK, for one, prints its complaints to stdout, from Fortran."""
    program = """
        import os, sys
        from leanmatch.cli import app, common

        def noisy(prog_name):
            os.write(1, b"from C\\n")
            print("from Python", flush=True)
            common.print_json({"a": "\u00e9"})

        app.app = noisy
        app.main()
        """
    words = [sys.executable, "-c", textwrap.dedent(program), *(["--json"] if asked else [])]
    done = subprocess.run(words, capture_output=True, text=True, encoding="utf-8", check=True)
    noise, document = "from C\nfrom Python\n", '{\n  "a": "\u00e9"\n}\n'
    assert (done.stdout, done.stderr) == ((document, noise) if asked else (noise + document, ""))
