"""JSON Lines: one object a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from leanmatch.data.problems import Problem
from leanmatch.data.readers.sources import RawBatch, TableFile, not_utf8, opened, text_lines


def read_objects(path: TableFile) -> Iterator[tuple[int, dict[str, Any] | None, Problem | None]]:
    """Each line's number with its object, or with the problem where the line holds no object."""
    with opened(path) as handle:
        undecodable: dict[int, bytes] = {}
        for number, line in enumerate(text_lines(path, handle, undecodable), start=1):
            if undecodable:
                yield number, None, not_utf8(number, undecodable.pop(number))
                continue
            if not line.strip():
                continue
            try:
                value = json.loads(line, object_pairs_hook=_object)
            except (ValueError, RecursionError) as error:
                where = getattr(error, "pos", 0)
                remedy = "write one JSON object a line: {...} and a line end, no commas between"
                excerpt = line[max(0, where - 40) : where + 40]
                yield number, None, Problem(number, "", excerpt, f"not JSON: {error}", remedy)
                continue
            if isinstance(value, dict):
                yield number, value, None
            else:
                what = f"a JSON object is needed, not {type(value).__name__}"
                yield number, None, Problem(number, "", value, what, "write one {...} a line")


def read_jsonl(path: TableFile, *, batch_rows: int, absent: Any = None) -> Iterator[RawBatch]:
    """Batches of a file. Lists under ``negative`` become columns; ``absent`` replaces missing keys."""
    objects: list[dict[str, Any]] = []
    lines: list[int] = []
    problems: list[Problem] = []
    for number, row, problem in read_objects(path):
        if problem is not None or row is None:
            problems.extend([problem] if problem is not None else [])
        else:
            objects.append(_spread(row))
            lines.append(number)
        if len(objects) + len(problems) >= batch_rows:
            yield RawBatch(_columns(objects, absent), lines, problems)
            objects, lines, problems = [], [], []
    yield RawBatch(_columns(objects, absent), lines, problems)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} stands {names.count(twice)} times")
    return record


def _columns(objects: list[dict[str, Any]], absent: Any) -> dict[str, list[Any]]:
    names = dict.fromkeys(name for row in objects for name in row)
    return {name: [row.get(name, absent) for row in objects] for name in names}


def _spread(row: dict[str, Any]) -> dict[str, Any]:
    """``{"negative": ["x", "y"]}`` becomes ``{"negative_1": "x", "negative_2": "y"}``."""
    for key in ("negative", "negatives"):
        if isinstance(row.get(key), list):
            texts = row.pop(key)
            row.update({f"negative_{i}": text for i, text in enumerate(texts, start=1)})
    return row
