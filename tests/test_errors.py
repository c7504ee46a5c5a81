"""The messages of the error family: place, value, remedy."""

from __future__ import annotations

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


def test_one_family() -> None:
    members = [value for value in vars(errors).values() if isinstance(value, type)]
    assert len(members) >= 6
    assert all(issubclass(member, errors.LeanmatchError) for member in members)
