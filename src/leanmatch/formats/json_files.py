"""JSON files that may be damaged or hostile: bounded, without repeated keys, NaN or endless nesting."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from leanmatch.errors import FormatError
from leanmatch.types import JsonValue


def read_object(path: Path, most_bytes: int, remedy: str) -> dict[str, JsonValue]:
    """The object in a JSON file.

    Raises:
        FormatError: no plain file, more than ``most_bytes``, no JSON (repeated keys, NaN and infinities are
            none), or JSON that is no object.
    """
    content = read_value(path, most_bytes, remedy)
    if not isinstance(content, dict):
        raise FormatError(f"{path} holds a {type(content).__name__}, not an object", remedy=remedy)
    return content


def read_value(path: Path, most_bytes: int, remedy: str) -> JsonValue:
    """Any JSON value in a file; see :func:`read_object`."""
    if not path.is_file():
        raise FormatError(f"there is no file {path}", remedy=remedy)
    size = path.stat().st_size
    if size > most_bytes:
        raise FormatError(f"{path} has {size:,} bytes, more than {most_bytes:,}", remedy=remedy)
    return parse(path.read_bytes(), str(path), remedy)


def parse(text: bytes, name: str, remedy: str) -> JsonValue:
    """JSON in UTF-8, strictly.

    Raises:
        FormatError: it is none.
    """
    try:
        return json.loads(
            text.decode("utf-8"),
            parse_constant=_refuse_constant,
            parse_float=_finite,
            object_pairs_hook=_without_repeats,
        )
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{name} is not JSON: {error}", remedy=remedy) from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{text} is too large a number")
    return value


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for name, value in pairs:
        if name in content:
            raise ValueError(f"the key {name!r:.80} stands there twice")
        content[name] = value
    return content
