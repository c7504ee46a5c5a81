"""What is in a pair table: counts, duplicates, lengths, overlap between splits."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from leanmatch.data.columns.names import SPLITS
from leanmatch.data.near_duplicates import near_pairs
from leanmatch.data.problems import SkippedRow
from leanmatch.data.table import PairTable
from leanmatch.data.text_form import text_ids
from leanmatch.types import JsonValue

CHARACTER_EDGES = (1, 10, 20, 40, 80, 160, 320, 640, 1280)
WORD_EDGES = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256)
TOP_VALUES = 20
NULL_WORDS = {"nan", "<na>", "na", "n/a", "#n/a", "null", "none"}
"""What programs write for a missing value, in lower case."""


@dataclass(frozen=True)
class LengthHistogram:
    """Lengths of the texts of one column in one unit.

    Attributes:
        edges: ``counts[i]`` texts have a length from ``edges[i]`` to below ``edges[i + 1]``, the last no end.
        counts: number of texts, as many as edges.
        mean: mean length.
        median: median length.
        p95: 95th percentile.
        longest: the greatest length.
    """

    edges: tuple[int, ...]
    counts: tuple[int, ...]
    mean: float
    median: float
    p95: float
    longest: int


@dataclass(frozen=True)
class PairReport:
    """What :func:`check_pairs` found. Texts are compared in their normalized form, except exact duplicates.

    Attributes:
        source: where the table comes from.
        rows: rows that can be used.
        fingerprint: of the table.
        columns: all columns.
        splits: rows by split; empty without a ``split`` column.
        labels: rows by label (all 1 without labels).
        slices: rows by value of each slice column, the 20 most frequent.
        slice_values: how many values each slice column has.
        texts: distinct texts of anchors and positives.
        exact_duplicates: rows that repeat an earlier one's anchor and positive to the letter.
        same_pairs: rows that repeat an earlier row's two texts in the same order (includes the above).
        reversed_duplicates: rows that repeat an earlier row's two texts the other way round.
        label_conflicts: unordered pairs that stand with label 1 and with label 0.
        identical_texts: rows whose anchor and positive are the same text.
        blank_texts: texts without a letter, digit or symbol, by column.
        null_texts: texts that are what programs write for a missing value, such as ``nan``, by column.
        near_duplicates: pairs of different texts with trigram Jaccard similarity of at least 0.9; None: not
            looked for.
        lengths: histograms by column and unit (characters, words).
        overlap: for two splits (``"train/test"``): ``texts`` and unordered ``pairs`` that stand in both.
        skipped: bad rows that were left out.
    """

    source: str
    rows: int
    fingerprint: str
    columns: tuple[str, ...]
    splits: dict[str, int]
    labels: dict[str, int]
    slices: dict[str, dict[str, int]]
    slice_values: dict[str, int]
    texts: int
    exact_duplicates: int
    same_pairs: int
    reversed_duplicates: int
    label_conflicts: int
    identical_texts: int
    blank_texts: dict[str, int]
    null_texts: dict[str, int]
    near_duplicates: int | None
    lengths: dict[str, dict[str, LengthHistogram]]
    overlap: dict[str, dict[str, int]]
    skipped: tuple[SkippedRow, ...] = field(default=())

    def to_json(self) -> JsonValue:
        """As a JSON object; ``skipped_by_problem`` counts what ``skipped`` lists."""
        counted = Counter(row.problem for row in self.skipped)
        return asdict(self) | {"skipped_by_problem": dict(counted.most_common())}


def check_pairs(table: PairTable, *, near_duplicates: bool = True) -> PairReport:
    """Count what is in a table and what may be wrong with it.

    Args:
        table: the pairs.
        near_duplicates: whether to look for near-duplicate texts (seconds for 100,000 texts).

    >>> table = PairTable.from_columns({"anchor": ["a b", "c d"], "positive": ["c d", "A, b!"]})
    >>> check_pairs(table).reversed_duplicates
    1
    """
    texts, numbered = text_ids([table.anchors, table.positives])
    anchors, positives = (np.array(column, np.int64) for column in numbered)
    ordered = anchors * len(texts) + positives
    unordered = np.minimum(anchors, positives) * len(texts) + np.maximum(anchors, positives)
    labels = table.labels
    distinct_ordered, distinct_unordered = len(np.unique(ordered)), len(np.unique(unordered))
    exact = len(table) - len(set(zip(table.anchors, table.positives, strict=True)))
    conflicts = np.intersect1d(unordered[labels == 1], unordered[labels == 0])
    counted = {name: Counter(table.column(name)) for name in table.slice_columns}
    slices = {
        name: {str(value): n for value, n in values.most_common(TOP_VALUES)}
        for name, values in counted.items()
    }
    return PairReport(
        source=table.source,
        rows=len(table),
        fingerprint=table.fingerprint(),
        columns=table.column_names,
        splits=_split_counts(table),
        labels={str(value): int((labels == value).sum()) for value in (1, 0)},
        slices=slices,
        slice_values={name: len(values) for name, values in counted.items()},
        texts=len(texts),
        exact_duplicates=exact,
        same_pairs=len(table) - distinct_ordered,
        reversed_duplicates=distinct_ordered - distinct_unordered,
        label_conflicts=len(conflicts),
        identical_texts=int((anchors == positives).sum()),
        blank_texts={name: _blank(table.column(name)) for name in ("anchor", "positive")},
        null_texts={
            name: sum(text.strip().lower() in NULL_WORDS for text in table.column(name))
            for name in ("anchor", "positive")
        },
        near_duplicates=len(near_pairs(texts)) if near_duplicates else None,
        lengths={
            "anchor": _lengths(table.anchors),
            "positive": _lengths(table.positives),
        },
        overlap=_overlap(table, anchors, positives, unordered),
        skipped=table.skipped,
    )


def _split_counts(table: PairTable) -> dict[str, int]:
    if not table.has("split"):
        return {}
    counted = Counter(table.column("split"))
    return {name: counted[name] for name in SPLITS if counted[name]}


def _blank(texts: list[str]) -> int:
    return sum(not any(c.isalnum() for c in text) and text.isascii() for text in texts)


def _lengths(texts: list[str]) -> dict[str, LengthHistogram]:
    return {
        "characters": _histogram([len(text) for text in texts], CHARACTER_EDGES),
        "words": _histogram([len(text.split()) for text in texts], WORD_EDGES),
    }


def _histogram(lengths: list[int], edges: tuple[int, ...]) -> LengthHistogram:
    if not lengths:
        return LengthHistogram(edges, (0,) * len(edges), 0.0, 0.0, 0.0, 0)
    values = np.array(lengths)
    counts = np.histogram(values, bins=[*edges, np.inf])[0]
    median, p95 = np.percentile(values, [50, 95])
    mean = round(float(values.mean()), 2)
    return LengthHistogram(edges, tuple(counts.tolist()), mean, float(median), float(p95), int(values.max()))


def _overlap(
    table: PairTable, anchors: NDArray[np.int64], positives: NDArray[np.int64], unordered: NDArray[np.int64]
) -> dict[str, dict[str, int]]:
    if not table.has("split"):
        return {}
    splits = np.array(table.column("split"))
    masks = {name: mask for name in SPLITS if (mask := splits == name).any()}
    texts = {name: np.union1d(anchors[mask], positives[mask]) for name, mask in masks.items()}
    return {
        f"{a}/{b}": {
            "texts": len(np.intersect1d(texts[a], texts[b])),
            "pairs": len(np.intersect1d(unordered[masks[a]], unordered[masks[b]])),
        }
        for a, b in combinations(masks, 2)
    }
