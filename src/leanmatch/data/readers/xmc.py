"""Folders of the extreme classification repository: ``trn.json.gz``, ``tst.json.gz``, ``lbl.json.gz``.

One JSON object a line with ``uid``, ``title``, ``content``; data points also have ``target_ind`` (rows of
``lbl``, from 0) and perhaps ``target_rel``. ``filter_labels_train.txt`` and ``filter_labels_test.txt`` hold
pairs ``row label`` that are to be left out (a data point that is its own label).

Source: Bhatia et al., "The extreme classification repository: multi-label datasets and code", 2016.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from leanmatch.data.items import ItemTable
from leanmatch.data.problems import Problem, Problems
from leanmatch.data.readers.canonical import canonical_rows
from leanmatch.data.readers.items import joined_text
from leanmatch.data.readers.jsonlines import read_objects
from leanmatch.data.readers.sources import opened
from leanmatch.data.table import PairTable, empty_rows
from leanmatch.errors import DataError

PARTS = (("trn", "filter_labels_train.txt", "train"), ("tst", "filter_labels_test.txt", "test"))
COLUMNS = ("anchor", "positive", "split", "anchor_id", "positive_id", "relevance")


def is_xmc(folder: Path) -> bool:
    """Whether the folder has the layout of the XMC repository."""
    return _either(folder, "lbl") is not None and any(_either(folder, name) is not None for name, *_ in PARTS)


def read_xmc(folder: Path, problems: Problems) -> PairTable:
    """One row for each data point and target; labels are the corpus.

    Raises:
        DataError: a line that is no JSON object, a text that is blank, a target that is no row of ``lbl``.
    """
    corpus, labels = _labels(folder, problems)
    values: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    for name, filters, split in PARTS:
        path = _either(folder, name)
        if path is None:
            continue
        left_out = _filter_pairs(folder / filters)
        part = Problems(path, problems.on_error)
        for row, (line, entry, bad) in enumerate(read_objects(path)):
            anchor = joined_text(entry.get("title"), entry.get("content")) if entry is not None else ""
            if bad is not None or entry is None:
                part.report([bad] if bad is not None else [])
                continue
            targets, grades = entry.get("target_ind"), entry.get("target_rel")
            problem = _fault(line, anchor, targets, grades, labels)
            if problem is not None:
                part.report([problem])
                continue
            for i, target in enumerate(targets or []):
                label = labels[target]
                if label is None or (row, target) in left_out:
                    continue
                new = (anchor, label[1], split, entry.get("uid"), label[0], grades[i] if grades else None)
                for column, value in zip(COLUMNS, new, strict=True):
                    values[column].append(value)
        problems.skipped.extend(part.skipped)
    values = {name: column for name, column in values.items() if any(value is not None for value in column)}
    if not values:
        return PairTable(empty_rows(COLUMNS), source=str(folder), corpus=corpus)
    rows, wrong = canonical_rows(values, range(1, len(values["anchor"]) + 1))
    problems.report(wrong)
    return PairTable(rows, source=str(folder), corpus=corpus, skipped=tuple(problems.skipped))


def _labels(folder: Path, problems: Problems) -> tuple[ItemTable, list[tuple[str, str] | None]]:
    path = _either(folder, "lbl")
    assert path is not None
    own = Problems(path, problems.on_error)
    labels: list[tuple[str, str] | None] = []
    lines: list[int] = []
    for line, entry, unreadable in read_objects(path):
        text = joined_text(entry.get("title"), entry.get("content")) if entry is not None else ""
        bad = unreadable
        if bad is None and not text:
            bad = Problem(line, "title", text, "the label has no text", "give it a title")
        if bad is not None or entry is None:
            own.report([bad] if bad is not None else [])
            labels.append(None)
        else:
            labels.append((str(entry.get("uid", len(labels))), text))
            lines.append(line)
    problems.skipped.extend(own.skipped)
    good = [label for label in labels if label is not None]
    if not good:
        raise DataError("there are no labels", path=path, remedy="download the file again")
    ids, texts = zip(*good, strict=True)
    return ItemTable.from_columns(list(ids), list(texts), source=str(path), rows=lines), labels


def _fault(line: int, anchor: str, targets: Any, grades: Any, labels: list[Any]) -> Problem | None:
    if not anchor:
        return Problem(line, "title", anchor, "the data point has no text", "give it a title or delete it")
    if not isinstance(targets, list):
        return Problem(
            line, "target_ind", targets, "a list of rows of lbl is needed", "[] where there are none"
        )
    for target in targets:
        if not isinstance(target, int) or isinstance(target, bool) or not 0 <= target < len(labels):
            what = f"no row of lbl, which has {len(labels)}"
            return Problem(line, "target_ind", target, what, "rows are counted from 0")
    if grades is not None and (not isinstance(grades, list) or len(grades) != len(targets)):
        what = f"one value for each of the {len(targets)} targets is needed"
        return Problem(line, "target_rel", grades, what, "give as many as in target_ind, or none")
    return None


def _filter_pairs(path: Path) -> set[tuple[int, int]]:
    pairs: set[tuple[int, int]] = set()
    if not path.exists():
        return pairs
    with opened(path) as handle:
        for number, line in enumerate(handle, start=1):
            fields = line.split()
            if not fields:
                continue
            if len(fields) != 2 or not all(field.isdigit() for field in fields):
                raise DataError(
                    "a row and a label are needed",
                    path=path,
                    line=number,
                    value=line,
                    remedy="two whole numbers",
                )
            pairs.add((int(fields[0]), int(fields[1])))
    return pairs


def _either(folder: Path, name: str) -> Path | None:
    return next((p for p in (folder / f"{name}.json.gz", folder / f"{name}.json") if p.exists()), None)
