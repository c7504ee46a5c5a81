"""Reading pairs from a file or a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from leanmatch.data.arrow import pa
from leanmatch.data.columns.mapping import ROWS_LOOKED_AT, ColumnMapping, map_columns, warn_python
from leanmatch.data.columns.names import REQUIRED
from leanmatch.data.problems import OnError, Problem, Problems
from leanmatch.data.readers.batches import raw_batches
from leanmatch.data.readers.canonical import canonical_rows
from leanmatch.data.readers.plain_values import as_list
from leanmatch.data.readers.sources import BATCH_ROWS, format_of
from leanmatch.data.table import PairTable
from leanmatch.errors import DataError, UsageError


def read_pairs(
    path: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    on_error: OnError = "raise",
    delimiter: str | None = None,
    tell: Callable[[ColumnMapping], None] = warn_python,
) -> PairTable:
    """Read a pair table from CSV, TSV, JSONL or Parquet (each also .gz), a BEIR folder or an XMC folder.

    Columns that are not named are recognized by their usual names, where only one fits
    (:mod:`leanmatch.data.columns.roles`): ``query`` and ``title`` become ``anchor`` and ``positive``,
    ``clicked`` of 0 and 1 becomes ``label``.

    Args:
        path: the file or folder. CSV follows RFC 4180; TSV has no quoting: a quote is a character.
        columns: our column names and those of the file, as ``--column`` has them: ``{"anchor": "query"}``. A
            column that is given its own name is kept as it is.
        on_error: ``"raise"`` at the first bad row, or ``"skip"`` such rows and list them in ``skipped``.
        delimiter: of CSV and TSV; that of a CSV file is found by itself where it is not given.
        tell: gets the mapping of columns; a warning says what was recognized, where it is not given.

    Raises:
        DataError: no such file, an unknown format, a missing column or several that may be meant (with what
            to write), no rows, or a bad row, with file, line, column, value and remedy.
    """
    path = Path(path)
    problems = Problems(path, on_error)
    if path.is_dir():
        return _read_folder(path, columns, problems)
    mappings: list[ColumnMapping] = []
    batches = _batches(path, columns, problems, delimiter, mappings.append)
    tables = [pa.Table.from_batches([batch]) for batch in batches]
    for mapping in mappings:
        tell(mapping)
    if not tables:
        _refuse_no_rows(path, problems)
    rows = pa.concat_tables(tables, promote_options="default")
    return PairTable(
        rows, source=str(path), skipped=tuple(problems.skipped), columns_read=mappings[0].columns
    )


def column_names(path: str | Path, delimiter: str | None = None) -> list[str]:
    """The names of a file's columns; of JSON lines those of the first rows.

    Raises:
        DataError: no such file, an unknown format, or one that cannot be read.
    """
    for raw in raw_batches(Path(path), delimiter=delimiter):
        return list(raw.columns)
    return []


def _batches(
    path: Path,
    columns: Mapping[str, str] | None,
    problems: Problems,
    delimiter: str | None,
    tell: Callable[[ColumnMapping], None],
) -> Iterator[pa.RecordBatch]:
    sparse = format_of(path) == "jsonl"  # objects need not have all keys, so batches may differ in columns
    mapping: ColumnMapping | None = None
    for raw in raw_batches(path, BATCH_ROWS, delimiter):
        if sparse and not raw.lines:
            problems.report(raw.problems)
            continue
        first = mapping is None
        if mapping is None:
            mapping = map_columns({n: _first(v) for n, v in raw.columns.items()}, columns, path=path)
            tell(mapping)
        values = dict(zip(mapping.names(list(raw.columns)), raw.columns.values(), strict=True))
        if not first:
            values = {name: [None] * len(raw.lines) for name in REQUIRED} | values
        rows, bad = canonical_rows(values, raw.lines)
        problems.report([*raw.problems, *(_in_file(problem, mapping) for problem in bad)])
        if rows.num_rows:
            yield from rows.combine_chunks().to_batches()


def _first(values: Any) -> list[Any]:
    part = values[:ROWS_LOOKED_AT]
    return as_list("", part, range(len(part)), [])  # what cannot be read is reported with its row, later


def _in_file(problem: Problem, mapping: ColumnMapping) -> Problem:
    """The problem with the name that the column has in the file."""
    theirs = mapping.columns.get(problem.column)
    if theirs is None:
        return problem
    remedy = problem.remedy
    if problem.column in mapping.recognized and problem.column not in REQUIRED:
        kept = f"--column {theirs}={theirs}, in Python columns={{{theirs!r}: {theirs!r}}}"
        remedy += f"; or keep the column as it is: {kept}"
    return replace(problem, column=theirs, remedy=remedy)


def _refuse_no_rows(path: Path, problems: Problems) -> None:
    if problems.skipped:
        first = problems.skipped[0]
        raise DataError(
            f"none of the {len(problems.skipped):,} rows can be used; the first, on line {first.line}: "
            f"{first.problem} (found {first.value})",
            path=path,
            remedy=first.remedy,
        )
    raise DataError(
        "there are no rows", path=path, remedy="name a file with at least one row after the header"
    )


def _read_folder(path: Path, columns: Mapping[str, str] | None, problems: Problems) -> PairTable:
    from leanmatch.data.readers.beir import is_beir, read_beir
    from leanmatch.data.readers.xmc import is_xmc, read_xmc

    if columns:
        raise UsageError(
            f"columns are named for the folder {path}, whose layout fixes them",
            remedy="leave columns= out",
            command="leave --column out",
        )
    if is_beir(path):
        table = read_beir(path, problems)
    elif is_xmc(path):
        table = read_xmc(path, problems)
    else:
        names = sorted(entry.name for entry in path.iterdir())[:10]
        raise DataError(
            f"the folder is neither a BEIR nor an XMC folder; it holds: {', '.join(names) or 'nothing'}",
            path=path,
            remedy="a BEIR folder holds corpus.jsonl, queries.jsonl and qrels/*.tsv, an XMC folder "
            "trn.json.gz, tst.json.gz and lbl.json.gz; else name a file",
        )
    if not len(table):
        _refuse_no_rows(path, problems)
    return table
