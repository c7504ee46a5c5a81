"""Evaluation: metrics of a matcher by slice, with intervals, against another matcher where one is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from leanmatch.data.table import PairTable
from leanmatch.errors import DataError
from leanmatch.metrics.encoding import SideVectors, encode_sides
from leanmatch.metrics.measure import Measurement, Search, measure_pairs, measure_retrieval
from leanmatch.metrics.names import split_metrics
from leanmatch.metrics.options import EvaluationOptions
from leanmatch.metrics.ranking.candidates import Identities, decide_symmetric, grades, identify
from leanmatch.metrics.ranking.fusion import Ranking, RememberingReranker, search_ranked
from leanmatch.metrics.ranking.propensity import FEWEST_TRAINING_QUERIES, LabelCounts, inverse_propensities
from leanmatch.metrics.ranking.tasks import make_task
from leanmatch.metrics.results import Evaluation, SliceResult
from leanmatch.metrics.slices import COLUMN_VALUE, Slice, make_slices
from leanmatch.models import ByRole
from leanmatch.types import EncodeFunction

FEW_QUERIES = 30
"""Below this a note says that bootstrap intervals are too narrow."""


def evaluate(
    encode: EncodeFunction | ByRole,
    table: PairTable,
    *,
    options: EvaluationOptions | None = None,
    against: EncodeFunction | ByRole | None = None,
    name: str = "model",
    against_name: str = "base",
    train_label_counts: LabelCounts | PairTable | None = None,
    ranking: Ranking | None = None,
    against_ranking: Ranking | None = None,
) -> Evaluation:
    """Measure how well a matcher finds and separates pairs, overall and by slice.

    Retrieval: each distinct anchor of a matching pair is a query. Candidates are the corpus that comes with
    the data; else, for symmetric pairs, all distinct texts of the slice less the query; else all its
    positives. Pair metrics: where a slice has rows of both labels. Each distinct text is encoded once a
    model.

    Intervals: bootstrap over queries (for pair metrics over anchors, each with all its pairs), the same
    resamples for both models. They hold one by one: of twenty comparisons at 95% one is expected to err.

    Args:
        encode: an encoder, which encodes anchors as queries and positives as documents, each with their
            prompt; or a function from texts to L2-normalized vectors.
        table: the pairs.
        options: slices, metrics, split and so on; defaults where left out.
        against: another matcher to compare with.
        name: what to call the matcher.
        against_name: what to call the other.
        train_label_counts: for PSP, or the training rows to count over; where left out, the table's rows with
            split train.
        ranking: how the matcher ranks candidates; None by cosine.
        against_ranking: the same for ``against``.

    Raises:
        DataError: no such split, column or value; no matching pair overall or in or out of distribution.
        ModelError: an encoder gives NaN, the wrong shape, or vectors that are not normalized.
    """
    options = options or EvaluationOptions()
    rows, split = choose_rows(table, options.split)
    symmetry = decide_symmetric(rows, options.symmetric)
    identities = identify(rows, symmetric=symmetry.symmetric)
    parts = make_slices(rows, options)
    notes = _remarks(rows, identities, options, parts)
    counts, note = _label_counts(train_label_counts, table, rows, symmetric=symmetry.symmetric)
    if note and any(metric.startswith("PSP") for metric in options.metrics):
        notes.append(note)
    roles = identities.roles(symmetric=symmetry.symmetric)
    models = [encode_sides(encode, identities.texts, *roles, name=name)]
    if against is not None:
        models.append(encode_sides(against, identities.texts, *roles, name=against_name))
    notes += _zero_vectors(models, roles, [name, against_name])
    searches: list[Search | None] = []
    for called, asked in ((name, ranking), (against_name, against_ranking))[: len(models)]:
        notes += asked.in_words(called) if asked is not None else []
        searches.append(_search(asked, identities.texts))
    worker = _Worker(
        rows, identities, symmetric=symmetry.symmetric, options=options, models=models, counts=counts
    )
    worker.searches = searches
    measured: dict[bytes, SliceResult] = {}
    results: dict[str, SliceResult] = {}
    for part in parts:
        key = part.rows.tobytes()
        twin = measured.get(key)
        if twin is None:
            result = measured[key] = worker.run(part, name, against_name, notes)
        else:
            result = replace(twin, name=part.name, kind=part.kind, same_as=twin.name)
            notes.append(f"{part.name} has the same rows as {twin.name}")
        if result.metrics:
            results[part.name] = result
    return Evaluation(
        name=name,
        against=against_name if against is not None else None,
        source=rows.source,
        split=split,
        symmetric=symmetry.symmetric,
        candidates=_candidates_in_words(rows, symmetry.symmetric, symmetry.reason),
        confidence=options.confidence,
        slices=results,
        notes=tuple(dict.fromkeys(notes)),
        options=asdict(options),
    )


def _search(ranking: Ranking | None, texts: Sequence[str]) -> Search | None:
    """How candidates are searched for; None by cosine. A reranker scores each pair once."""
    if ranking is None:
        return None
    if ranking.reranker is not None:
        ranking = replace(ranking, reranker=RememberingReranker.of(ranking.reranker))
    return partial(search_ranked, ranking=ranking, texts=texts)


def choose_rows(table: PairTable, split: str) -> tuple[PairTable, str]:
    """The rows to evaluate on, and which they are, in words.

    Raises:
        DataError: no row, or none of the split; the message counts what there is.
    """
    if not len(table):
        raise DataError(
            "there is no row to evaluate on", path=table.source or None, remedy="give at least one pair"
        )
    if split == "all" or (split == "auto" and not table.has("split")):
        return table, f"all {len(table):,} rows" + (
            "" if table.has("split") else " (there is no column 'split')"
        )
    wanted = "test" if split == "auto" else split
    chosen = table.select_split(wanted)
    if not len(chosen):
        values, counts = np.unique(
            np.array([str(value) for value in table.column("split")]), return_counts=True
        )
        there = ", ".join(f"{value} ({count:,} rows)" for value, count in zip(values, counts, strict=True))
        raise DataError(
            f"no row has split {wanted!r}",
            path=table.source or None,
            remedy=f"use one that there is: {there}, or all",
        )
    return chosen, f"the {len(chosen):,} rows with split {wanted!r}"


class _Worker:
    """Measures slices of one table with one or two models."""

    def __init__(
        self,
        rows: PairTable,
        identities: Identities,
        *,
        symmetric: bool,
        options: EvaluationOptions,
        models: list[SideVectors],
        counts: LabelCounts | None,
    ) -> None:
        self.identities, self.symmetric, self.options, self.models = identities, symmetric, options, models
        self.labels, self.grades, self.source = rows.labels, grades(rows), rows.source
        self.retrieval_metrics, self.pair_metrics = split_metrics(options.metrics)
        self.searches: list[Search | None] = [None] * len(models)
        self.inverse: NDArray[np.float64] | None = None
        if counts is not None:
            seen = [sum(counts.counts.get(name, 0) for name in names) for names in identities.item_names]
            a, b = options.propensity
            self.inverse = inverse_propensities(seen, counts.queries, a=a, b=b)
        else:
            self.retrieval_metrics = tuple(m for m in self.retrieval_metrics if m.family != "PSP")

    def run(self, part: Slice, name: str, against_name: str, notes: list[str]) -> SliceResult:
        """The metrics of one slice; empty, with a note, where a column's value has no matching pair."""
        task = make_task(self.identities, part.rows, self.labels, self.grades, symmetric=self.symmetric)
        if task.judgements.n_queries == 0:
            problem = f"{part.name}: no matching pair of two different texts among {len(part.rows):,} rows"
            if part.kind != COLUMN_VALUE:
                raise DataError(
                    problem,
                    path=self.source or None,
                    remedy="give rows with label 1, or choose other rows (split) or another hold_out",
                    command="give rows with label 1, or choose other rows (--split) or another --hold-out",
                )
            notes.append(f"{problem}; left out")
            return SliceResult(part.name, part.kind, len(part.rows), 0, 0, 0, {})
        notes += _task_notes(part, task.self_pairs, task.lost, task.judgements.n_queries)
        measurement = Measurement(self.options, name, against_name)
        if self.retrieval_metrics:
            measure_retrieval(
                measurement, task, self.models, self.retrieval_metrics, self.inverse, self.searches
            )
        n_pairs = 0
        if self.pair_metrics and len(np.unique(self.labels[part.rows])) > 1:
            n_pairs = len(part.rows)
            measure_pairs(
                measurement,
                self.identities,
                part.rows,
                labels=self.labels,
                models=self.models,
                metrics=self.pair_metrics,
            )
        queries, candidates = task.judgements.n_queries, len(task.candidate_texts)
        ordered = {m: measurement.results[m] for m in self.options.metrics if m in measurement.results}
        return SliceResult(part.name, part.kind, len(part.rows), queries, candidates, n_pairs, ordered)


def _remarks(
    rows: PairTable, identities: Identities, options: EvaluationOptions, parts: list[Slice]
) -> list[str]:
    notes = []
    if identities.conflicts:
        notes.append(
            f"{identities.conflicts:,} identifiers come with more than one text; the first text counts"
        )
    if identities.repeated:
        notes.append(
            f"{identities.repeated:,} items have the text of another item: "
            "items with the same text are one candidate"
        )
    if (options.hold_out or options.after) and not any(part.kind == "in distribution" for part in parts):
        notes.append("every row is out of distribution")
    if (options.hold_out or options.after) and not any(part.kind == "out of distribution" for part in parts):
        notes.append("no row is out of distribution")
    return notes


def _task_notes(part: Slice, self_pairs: int, lost: int, queries: int) -> list[str]:
    notes = []
    if self_pairs:
        notes.append(f"{part.name}: {self_pairs:,} pairs of a text with itself do not count")
    if lost:
        notes.append(f"{part.name}: {lost:,} relevant items are not in the corpus and can never be found")
    if queries < FEW_QUERIES:
        notes.append(f"{part.name}: only {queries} queries; the intervals are too narrow")
    return notes


def _zero_vectors(
    models: list[SideVectors], roles: tuple[NDArray[np.int64], NDArray[np.int64]], names: list[str]
) -> list[str]:
    notes = []
    for vectors, name in zip(models, names, strict=False):
        empty = np.concatenate(
            [rows[~side[rows].any(axis=1)] for side, rows in zip(vectors, roles, strict=True)]
        )
        zeros = len(np.unique(empty))
        if zeros:
            notes.append(f"{name} gives {zeros:,} texts a vector of zeros (no token is known to it)")
    return notes


def _label_counts(
    given: LabelCounts | PairTable | None, table: PairTable, rows: PairTable, *, symmetric: bool
) -> tuple[LabelCounts | None, str]:
    """Training label counts by the same names that items have in ``rows``, and a note on their origin."""
    if isinstance(given, LabelCounts):
        return given, ""
    if given is None and not table.has("split"):
        return None, "no PSP: it needs training labels, and the data has no column 'split' with train rows"
    train = (table.select_split("train") if given is None else given).relevant()
    by_id = rows.has("positive_id") and (rows.has("anchor_id") or not symmetric)
    if by_id and not train.has("positive_id"):
        return None, "no PSP: the training rows lack the column 'positive_id'"
    items = [str(value) for value in train.column("positive_id")] if by_id else train.positives
    queries = len(set(train.anchors))
    if queries < FEWEST_TRAINING_QUERIES:
        return None, f"no PSP: there are {queries} training queries, {FEWEST_TRAINING_QUERIES} are the least"
    counts = LabelCounts.from_pairs(train.anchors, items)
    return counts, f"PSP: propensities from {len(train):,} matching training rows"


def _candidates_in_words(rows: PairTable, symmetric: bool, reason: str) -> str:
    if rows.corpus is not None:
        return "the corpus that comes with the data" + (", less the query itself" if symmetric else "")
    if symmetric:
        return f"all distinct texts of the slice less the query itself (symmetric pairs: {reason})"
    return f"all distinct positives of the slice (not symmetric: {reason})"
