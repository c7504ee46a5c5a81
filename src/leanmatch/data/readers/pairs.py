"""Reading pairs from a file or a folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from leanmatch.data.arrow import pa
from leanmatch.data.columns import REQUIRED, renamed, require
from leanmatch.data.problems import OnError, Problems
from leanmatch.data.readers.batches import raw_batches
from leanmatch.data.readers.canonical import canonical_rows
from leanmatch.data.readers.sources import BATCH_ROWS, format_of
from leanmatch.data.table import PairTable
from leanmatch.errors import DataError, UsageError


def read_pairs(
    path: str | Path, *, columns: Mapping[str, str] | None = None, on_error: OnError = "raise"
) -> PairTable:
    """Read a pair table from CSV, TSV, JSONL or Parquet (each also .gz), a BEIR folder or an XMC folder.

    Args:
        path: the file or folder. CSV follows RFC 4180; TSV has no quoting: a quote is a character.
        columns: from the user's column names to ours, e.g. ``{"query": "anchor"}``.
        on_error: ``"raise"`` at the first bad row, or ``"skip"`` such rows and list them in ``skipped``.

    Raises:
        DataError: no such file, an unknown format, a missing column (with a suggestion), no rows, or a bad
            row, with file, line, column, value and remedy.
    """
    path = Path(path)
    problems = Problems(path, on_error)
    if path.is_dir():
        return _read_folder(path, columns, problems)
    tables = [pa.Table.from_batches([batch]) for batch in _batches(path, columns, problems, BATCH_ROWS)]
    if not tables:
        _refuse_no_rows(path, problems)
    rows = pa.concat_tables(tables, promote_options="default")
    return PairTable(rows, source=str(path), skipped=tuple(problems.skipped))


def iter_pairs(
    path: str | Path,
    *,
    batch_rows: int = BATCH_ROWS,
    columns: Mapping[str, str] | None = None,
    on_error: OnError = "raise",
) -> Iterator[pa.RecordBatch]:
    """Read a file in batches, so that only one is in memory; arguments as in :func:`read_pairs`.

    Yields:
        record batches of the canonical columns, at most ``batch_rows`` rows each. Batches of a JSONL file may
        differ in the optional columns that they have.
    """
    if batch_rows < 1:
        raise UsageError(f"batch_rows is {batch_rows}", remedy="at least 1")
    path = Path(path)
    if path.is_dir():
        yield from read_pairs(path, columns=columns, on_error=on_error).to_arrow().to_batches(batch_rows)
        return
    yield from _batches(path, columns, Problems(path, on_error), batch_rows)


def _batches(
    path: Path, columns: Mapping[str, str] | None, problems: Problems, batch_rows: int
) -> Iterator[pa.RecordBatch]:
    sparse = format_of(path) == "jsonl"  # objects need not have all keys, so batches may differ in columns
    first = True
    for raw in raw_batches(path, batch_rows):
        if sparse and not raw.lines:
            problems.report(raw.problems)
            continue
        values = raw.columns
        wanted = columns or {}
        if sparse and not first:
            wanted = {name: ours for name, ours in wanted.items() if name in values}
        names = renamed(list(values), wanted, path=path)
        values = dict(zip(names, values.values(), strict=True))
        if first or not sparse:
            require(names, path=path)
        else:
            values = {name: [None] * len(raw.lines) for name in REQUIRED} | values
        first = False
        rows, bad = canonical_rows(values, raw.lines)
        problems.report([*raw.problems, *bad])
        if rows.num_rows:
            yield from rows.combine_chunks().to_batches()


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
            f"columns are named for the folder {path}, whose layout fixes them", remedy="leave --column out"
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
