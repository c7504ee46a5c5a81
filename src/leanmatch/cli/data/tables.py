"""Reports on data as tables for the terminal."""

from __future__ import annotations

from collections import Counter

from rich.markup import escape
from rich.table import Table

from leanmatch.data.check import LengthHistogram, PairReport
from leanmatch.data.see_also.build import SeeAlsoSummary
from leanmatch.data.splitting.leakage import KINDS
from leanmatch.data.splitting.parts import PARTS, Split

SKIPPED_SHOWN = 10
SLICES_SHOWN = 12


def report_tables(report: PairReport) -> list[Table | str]:
    """What ``leanmatch data check`` prints."""
    main = Table(title=escape(f"{report.source}: {report.rows:,} rows"), title_justify="left")
    main.add_column("what")
    main.add_column("count", justify="right")
    for name, count in report.splits.items():
        main.add_row(escape(f"split {name}"), f"{count:,}")
    for name, count in report.labels.items():
        main.add_row(escape(f"label {name}"), f"{count:,}")
    main.add_row("distinct texts", f"{report.texts:,}")
    main.add_section()
    findings = {
        "exact duplicate rows": report.exact_duplicates,
        "rows with the same two texts": report.same_pairs,
        "reversed duplicates": report.reversed_duplicates,
        "pairs with both labels": report.label_conflicts,
        "anchor and positive the same": report.identical_texts,
        "blank anchors": report.blank_texts["anchor"],
        "blank positives": report.blank_texts["positive"],
        "anchors such as nan or null": report.null_texts["anchor"],
        "positives such as nan or null": report.null_texts["positive"],
        "pairs of near-duplicate texts": report.near_duplicates,
        "bad rows skipped": len(report.skipped),
    }
    for name, hits in findings.items():
        main.add_row(name, "not looked for" if hits is None else f"{hits:,}")
    for name, shared in report.overlap.items():
        main.add_row(f"texts in both {name}", f"{shared['texts']:,}")
        main.add_row(f"pairs in both {name}", f"{shared['pairs']:,}")
    tables: list[Table | str] = [main]
    for name, values in list(report.slices.items())[:SLICES_SHOWN]:
        table = Table(title=escape(f"slice column {name}"), title_justify="left")
        table.add_column("value")
        table.add_column("rows", justify="right")
        for value, count in values.items():
            table.add_row(escape(value), f"{count:,}")
        if report.slice_values[name] > len(values):
            table.caption = f"and {report.slice_values[name] - len(values):,} more values"
        tables.append(table)
    if len(report.slices) > SLICES_SHOWN:
        tables.append(f"{len(report.slices) - SLICES_SHOWN:,} more slice columns: --json lists all")
    tables += [_length_table(unit, report) for unit in ("characters", "words")]
    if report.skipped:
        tables.append(_skipped_table(report))
    return tables


def _length_table(unit: str, report: PairReport) -> Table:
    table = Table(title=f"length in {unit}", title_justify="left")
    table.add_column("from")
    columns: list[LengthHistogram] = []
    for name, units in report.lengths.items():
        table.add_column(name, justify="right")
        columns.append(units[unit])
    for i, edge in enumerate(columns[0].edges):
        if any(column.counts[i] for column in columns):
            table.add_row(f"{edge:,}", *(f"{column.counts[i]:,}" for column in columns))
    table.add_section()
    for name in ("mean", "median", "p95", "longest"):
        table.add_row(name, *(f"{getattr(column, name):,.1f}".removesuffix(".0") for column in columns))
    return table


def _skipped_table(report: PairReport) -> Table:
    counted = Counter(row.problem for row in report.skipped)
    title = "; ".join(f"{count:,} x {problem}" for problem, count in counted.most_common(5))
    table = Table(title=escape(f"bad rows: {title}"), title_justify="left")
    for name in ("line", "column", "value", "problem", "remedy"):
        table.add_column(name, overflow="fold")
    for row in report.skipped[:SKIPPED_SHOWN]:
        table.add_row(str(row.line), *map(escape, (row.column, row.value, row.problem, row.remedy)))
    if len(report.skipped) > SKIPPED_SHOWN:
        table.caption = f"and {len(report.skipped) - SKIPPED_SHOWN:,} more: --json lists all"
    return table


def split_tables(split: Split) -> list[Table | str]:
    """What ``leanmatch data split`` prints."""
    parts = Table(title=escape(f"split of {split.table.source}"), title_justify="left")
    for name in ("part", "rows", "matching", "removed"):
        parts.add_column(name, justify="left" if name == "part" else "right")
    for name in PARTS:
        rows = split.rows[name]
        matching = int(split.table.labels[rows].sum())
        parts.add_row(name, f"{len(rows):,}", f"{matching:,}", f"{split.leakage.removed.get(name, 0):,}")
    tables: list[Table | str] = [parts]
    if split.leakage.action != "ignore":
        leaks = Table(title=f"leakage ({split.leakage.action})", title_justify="left")
        leaks.add_column("rows")
        for meaning in KINDS.values():
            leaks.add_column(meaning, justify="right")
        for relation, counts in split.leakage.counts.items():
            leaks.add_row(relation, *(f"{counts[kind]:,}" for kind in KINDS))
        tables.append(leaks)
    tables += [escape(f"note: {note}") for note in split.notes]
    return tables


def see_also_table(summary: SeeAlsoSummary) -> Table:
    """What ``leanmatch data see-also`` prints."""
    table = Table(
        title=escape(f"{summary.items:,} items and {summary.pairs:,} pairs in {summary.folder}"),
        title_justify="left",
    )
    for name in ("package", "version", "items", "pairs", "train", "valid", "test"):
        table.add_column(name, justify="left" if name in ("package", "version") else "right")
    for name, package in summary.packages.items():
        counts = [
            package.items,
            package.pairs,
            *(package.splits.get(part, 0) for part in ("train", "valid", "test")),
        ]
        table.add_row(name, package.version, *(f"{count:,}" for count in counts))
    return table
