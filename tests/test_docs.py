"""What README and the documentation show can be typed: commands, options, and links between pages."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = sorted(
    page
    for page in [REPOSITORY / "README.md", *(REPOSITORY / "docs").rglob("*.md")]
    if page.name not in {"LOG.md", "cli.md"} and "log" not in page.parent.name
)
LINK = re.compile(r"\]\(([^)\s]+)\)")
GENERATED = {"cli.md"}


def names(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


def code_blocks(text: str, languages: frozenset[str]) -> Iterator[str]:
    """The content of fenced blocks of these languages ("" is a block without one)."""
    for language, body in re.findall(r"^```([\w{}-]*)\n(.*?)^```$", text, re.M | re.S):
        if language in languages:
            yield body


def commands(text: str) -> list[list[str]]:
    """Every ``leanmatch ...`` of the shell blocks, as arguments; continued lines are joined."""
    found = []
    for block in code_blocks(text, frozenset({"", "sh", "bash", "shell", "console"})):
        for line in re.sub(r"\\\n\s*", " ", block).splitlines():
            words = line.strip().removeprefix("$ ")
            if words.startswith("leanmatch "):
                found.append(shlex.split(words, comments=True)[1:])
    return found


def leaves(command: Any) -> Iterator[Any]:
    """Every command that does something, below a group."""
    for child in command.commands.values():
        yield from leaves(child) if hasattr(child, "commands") else [child]


@pytest.fixture(scope="module")
def parse() -> Callable[[list[str]], int]:
    """Parses arguments as the command line would, runs nothing, and gives the exit code."""
    from leanmatch.cli.app import app

    command = typer.main.get_command(app)
    for leaf in leaves(command):
        leaf.callback = lambda **_: None

    def exit_code(arguments: list[str]) -> int:
        try:
            command.main(args=list(arguments), prog_name="leanmatch")
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    return exit_code


def test_the_check_bites(parse: Callable[[list[str]], int]) -> None:
    text = "```\n$ leanmatch fly \\\n    high  # so high\nother line\n```\n```python\nleanmatch train\n```\n"
    assert commands(text) == [["fly", "high"]]
    for wrong in (
        ["fly"],
        ["train", "a.csv", "-o", "m", "--wings"],
        ["train", "a.csv", "b", "-o", "m"],
        ["train"],
    ):
        assert parse(wrong) == 2
    assert parse(["train", "a.csv", "-o", "m"]) == 0


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_commands_can_be_typed(page: Path, parse: Callable[[list[str]], int]) -> None:
    refused = [words for words in commands(page.read_text(encoding="utf-8")) if parse(words) != 0]
    assert refused == []


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_links_lead_somewhere(page: Path) -> None:
    missing = [
        target
        for target in LINK.findall(page.read_text(encoding="utf-8"))
        if "://" not in target
        and not target.startswith(("#", "mailto:"))
        and not (page.parent / target.partition("#")[0]).exists()
        and Path(target).name.partition("#")[0] not in GENERATED
    ]
    assert missing == []


def test_the_pages_show_commands() -> None:
    shown = {page.name: len(commands(page.read_text(encoding="utf-8"))) for page in PAGES}
    assert shown["README.md"] >= 6 and shown["tutorial.md"] >= 6
