"""The messages of the error family: place, value, remedy."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest

from leanmatch import errors


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({}, "empty text"),
        ({"path": "a.csv"}, "a.csv: empty text"),
        ({"path": "a.csv", "line": 3}, "a.csv:3: empty text"),
        ({"path": "a.csv", "line": 3, "column": "anchor"}, "a.csv:3 column 'anchor': empty text"),
        ({"line": 3}, "row 3: empty text"),
        ({"column": "anchor"}, "column 'anchor': empty text"),
        ({"value": None}, "empty text (found None)"),
        ({"value": ""}, "empty text (found '')"),
        ({"remedy": "drop it"}, "empty text\n  remedy: drop it"),
    ],
)
def test_data_error_says_where(where: dict[str, Any], message: str) -> None:
    assert str(errors.DataError("empty text", **where)) == message


def test_data_error_shortens_long_values() -> None:
    message = str(errors.DataError("bad", value="x" * 1000))
    assert message == "bad (found '" + "x" * 76 + "...)"


def test_missing_extra_names_the_extra_and_is_an_import_error() -> None:
    error = errors.MissingExtraError("torch", "train", "training")
    assert isinstance(error, ImportError)
    assert str(error) == (
        'training needs torch, which is not installed\n  remedy: pip install "leanmatch[train]"'
    )


def test_remedies_in_python_name_no_options_of_the_command_line() -> None:
    package = Path(errors.__file__).parent
    seen = 0
    for file in sorted(package.rglob("*.py")):
        if {"cli", "serve"} & set(file.relative_to(package).parts):
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            seen += "command" in given
            wrong = re.search(r"--[a-z]", given.get("remedy", ""))
            assert not wrong or "pip install" in given["remedy"], f"{file}:{node.lineno}: {given['remedy']}"
    assert seen > 20, "the search finds them"


def test_the_command_line_has_its_own_remedy() -> None:
    error = errors.DataError("bad", path="a.csv", line=3, remedy="seed=0", command="--seed 0")
    assert str(error) == "a.csv:3: bad\n  remedy: seed=0"
    assert error.for_command_line() == "a.csv:3: bad\n  remedy: --seed 0"
    assert errors.UsageError("bad", remedy="same").for_command_line() == "bad\n  remedy: same"


def test_one_family() -> None:
    members = [value for value in vars(errors).values() if isinstance(value, type)]
    assert len(members) >= 6
    assert all(issubclass(member, errors.LeanmatchError) for member in members)
