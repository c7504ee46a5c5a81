"""Diagnose a matcher: what its scores hang on, and how training moved that from the base model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from leanmatch.data import PairTable
from leanmatch.interventions import TokenImportance, as_readers, faithfulness, importance
from leanmatch.interventions.faithfulness import Faithfulness
from leanmatch.interventions.words.drift import Bootstrap, PartDrift, WordDrift, part_drift, word_drift
from leanmatch.metrics import Evaluation, EvaluationOptions, choose_rows, evaluate
from leanmatch.metrics.advice import advice
from leanmatch.metrics.pace import in_words, text_seconds
from leanmatch.metrics.ranking.propensity import LabelCounts
from leanmatch.metrics.slices import Slice, make_slices
from leanmatch.models import RoleEncoder, TorchEncoder
from leanmatch.models.roles import is_sentence_transformer
from leanmatch.report.explorer import ShownPair, shown_pairs
from leanmatch.report.kept import KeptVectors
from leanmatch.report.options import DiagnoseOptions
from leanmatch.report.pairs import Remembering, is_symmetric, ranks_of, scores_of, worth_looking_at
from leanmatch.report.sampling import PairSample, occurring, sample_pairs, sample_rows, strata_of
from leanmatch.report.timing import Pace, measure_pace, timed_budget, timed_shown
from leanmatch.types import JsonValue

Both: TypeAlias = tuple[TokenImportance, TokenImportance]
"""Of the model and of the base."""

FEW_PAIRS = 100
"""Pairs whose words should be looked at."""
JUDGED_PAIRS = 40
"""Pairs on which the faithfulness of the importance is measured."""


@dataclass(frozen=True)
class Diagnosis:
    """What a diagnosis found.

    Attributes:
        name, against: what the matcher and its base are called.
        source: the data.
        sampling: in sentences, which rows were looked at and how they were chosen.
        evaluation: metrics by slice.
        parts: drift and concentration by slice, matching pairs only.
        words: word types by how surely their importance moved.
        faithfulness: of the importance under ``model`` and ``base``; None where no pair could be judged.
        pairs: the explorer's, the worst regression first.
        options: how it was made.
        advice: what to do now.
    """

    name: str
    against: str
    source: str
    sampling: tuple[str, ...]
    evaluation: Evaluation
    parts: dict[str, PartDrift]
    words: tuple[WordDrift, ...]
    faithfulness: dict[str, Faithfulness] | None
    pairs: tuple[ShownPair, ...]
    options: DiagnoseOptions
    advice: tuple[str, ...] = ()

    def gained(self) -> list[WordDrift]:
        """Words whose importance surely rose, the surest first; punctuation is left out."""
        return [word for word in self.spoken() if word.low > 0]

    def lost(self) -> list[WordDrift]:
        """Words whose importance surely fell, the surest first; punctuation is left out."""
        return [word for word in self.spoken() if word.high < 0]

    def spoken(self) -> list[WordDrift]:
        """Words with a letter or a digit."""
        return [word for word in self.words if any(letter.isalnum() for letter in word.word)]

    def to_json(self) -> JsonValue:
        """Everything, as a JSON object."""
        judged = self.faithfulness
        return {
            "name": self.name,
            "against": self.against,
            "source": self.source,
            "sampling": list(self.sampling),
            "options": asdict(self.options),
            "evaluation": self.evaluation.to_json(),
            "parts": {name: part.to_json() for name, part in self.parts.items()},
            "words": [word.to_json() for word in self.words],
            "faithfulness": None
            if judged is None
            else {key: result.to_json() for key, result in judged.items()},
            "pairs": [pair.to_json() for pair in self.pairs],
            "advice": list(self.advice),
        }


def diagnose(
    model: Any,
    table: PairTable,
    *,
    against: Any,
    options: DiagnoseOptions | None = None,
    evaluation: EvaluationOptions | None = None,
    name: str = "model",
    against_name: str = "base",
    train_label_counts: LabelCounts | PairTable | None = None,
    rows_in_words: str | None = None,
    notes: Sequence[str] = (),
    show_progress: bool = False,
    average: float | None = None,
    steps: int | None = None,
    kept: KeptVectors | None = None,
    report: Callable[[str], None] = lambda message: None,
) -> Diagnosis:
    """Compare a matcher with its base: metrics by slice, importance of words, pairs that got worse.

    Args:
        model: a ``SentenceTransformer``, a ``SentenceEncoder``, or a function from texts to L2-normalized
            vectors.
        table: the pairs.
        against: the base, likewise.
        options: how much to look at; see :class:`~leanmatch.report.options.DiagnoseOptions`.
        evaluation: rows, slices, what is out of distribution; see
            :class:`~leanmatch.metrics.EvaluationOptions`.
        name, against_name: what to call the two.
        train_label_counts: for PSP, as :func:`leanmatch.metrics.evaluate` takes it.
        rows_in_words: which rows the table holds, where ``evaluation.split`` does not tell.
        notes: what a reader should know of them, put before the evaluation's own notes.
        show_progress: bars on stderr.
        average, steps: of the matcher's training, for the advice; None where they are not known.
        kept: where vectors are kept for a run that continues this one after a kill.
        report: gets a sentence on how long a step will take.

    Raises:
        DataError: no matching pair; no such split, column or value.
        ModelError: a model gives NaN or vectors that are not normalized.
        UsageError: masks for a model that has none.
    """
    options = options or DiagnoseOptions()
    evaluation = evaluation or EvaluationOptions()
    rows, split = choose_rows(table, evaluation.split)
    table, sentences = _evaluated(rows, rows_in_words or split, evaluation, options)
    evaluation = replace(evaluation, split="all", hold_out=occurring(evaluation.hold_out, table))
    kept = kept or KeptVectors()
    encoders = [
        Remembering(
            kept.by_role(
                number, encode_function(matcher), progress=f"encode, {called}" if show_progress else None
            ),
            name=called,
        )
        for number, (matcher, called) in enumerate(((model, name), (against, against_name)))
    ]
    texts = [*table.anchors, *table.positives, *(table.corpus.texts if table.corpus else ())]
    seconds = 2 * len({*texts}) * text_seconds(encode_function(model), texts)
    report(f"encoding {len({*texts}):,} texts with each of 2 models takes about {in_words(seconds)}")
    measured = evaluate(
        encoders[0],
        table,
        options=evaluation,
        against=encoders[1],
        name=name,
        against_name=against_name,
        train_label_counts=train_label_counts,
    )
    measured = replace(
        measured,
        split=sentences[0].removeprefix("rows: "),
        notes=tuple(dict.fromkeys([*notes, *measured.notes])),
    )
    parts = make_slices(table, evaluation)
    readers = [as_readers(matcher) for matcher in (model, against)]
    sides, matching = (table.anchors, table.positives), np.flatnonzero(table.labels == 1)
    pace = measure_pace(readers, sides, matching, options)
    options = _within(pace, options, kept, table)
    readers = [kept.readers(number, sided) for number, sided in enumerate(readers)]
    assert options.budget is not None
    sample = sample_pairs(
        readers[0],
        sides,
        matching,
        strata_of(parts, len(table)),
        max_pairs=options.max_pairs,
        max_words=options.max_words,
        budget=options.budget,
        seed=options.seed,
    )
    tokens = sample.tokens + options.shown * pace.tokens_a_pair
    report(
        f"looking at the words of {len(sample.rows):,} sampled pairs and {options.shown:,} shown ones takes "
        f"about {in_words(tokens * pace.seconds)}: {tokens:,.0f} tokens for each of 2 models"
    )
    look = _Looker(table, readers, (name, against_name), options, show_progress)
    importances = look.at(sample.rows, max_units=options.max_words)
    bootstrap = Bootstrap(options.confidence, options.resamples, options.seed)
    symmetric = is_symmetric(table, evaluation.symmetric)
    scores = scores_of(encoders[0], table), scores_of(encoders[1], table)
    ranks = ranks_of(encoders[0], table, symmetric), ranks_of(encoders[1], table, symmetric)
    shown = worth_looking_at(
        table.labels, *scores, *ranks, most=options.shown, usual=_shuffled(sample.rows, options.seed)
    )
    judged = _judged(look, sample, importances, options)
    return Diagnosis(
        name=name,
        against=against_name,
        source=table.source,
        sampling=(*sentences, sample.sentence, *_cut(importances, options)),
        evaluation=measured,
        parts=_by_part(parts, sample, importances, bootstrap),
        words=tuple(
            word_drift(*importances, weights=sample.weights, min_pairs=options.min_pairs, bootstrap=bootstrap)
        ),
        faithfulness=judged,
        pairs=shown_pairs(
            table, parts, shown, scores, ranks, look.at(np.array(list(shown), np.int64), options.max_words)
        ),
        options=options,
        advice=(*advice(measured, average=average, steps=steps), *_more_words(sample, matching, options)),
    )


def encode_function(model: Any) -> RoleEncoder:
    """Anything that :func:`diagnose` takes, as an encoder by role."""
    if is_sentence_transformer(model):
        model = TorchEncoder.from_model(model, name="model")
    has_roles = hasattr(model, "encode_query") and hasattr(model, "encode_document")
    return RoleEncoder(model if has_roles or callable(model) else model.encode)


def _within(pace: Pace, options: DiagnoseOptions, kept: KeptVectors, table: PairTable) -> DiagnoseOptions:
    """The options with a number of tokens; that of an unfinished run, where there is one."""
    if options.budget is not None:
        return options
    facts = {"options": asdict(options), "rows": table.fingerprint()}
    budget = kept.number("budget", facts, lambda: timed_budget(pace, options.minutes))
    shown = kept.number("shown", facts, lambda: timed_shown(pace, options.minutes, options.shown))
    return replace(options, budget=budget, shown=shown)


class _Looker:
    """Importance of some rows' words under both models."""

    def __init__(
        self,
        table: PairTable,
        readers: list[Any],
        names: tuple[str, str],
        options: DiagnoseOptions,
        show_progress: bool,
    ) -> None:
        self.table, self.readers, self.names = table, readers, names
        self.options, self.show_progress = options, show_progress

    def at(self, rows: NDArray[np.int64], max_units: int | None = None) -> Both:
        anchors = [self.table.anchors[row] for row in rows.tolist()]
        positives = [self.table.positives[row] for row in rows.tolist()]
        model, base = [
            importance(
                reader,
                anchors,
                positives,
                intervention=self.options.intervention,
                max_units=max_units,
                seed=self.options.seed,
                show_progress=f"importance, {name}" if self.show_progress else False,
            )
            for reader, name in zip(self.readers, self.names, strict=True)
        ]
        return model, base


def _evaluated(
    rows: PairTable, split: str, evaluation: EvaluationOptions, options: DiagnoseOptions
) -> tuple[PairTable, list[str]]:
    """The rows that are evaluated, and what was left out, in sentences."""
    chosen = sample_rows(strata_of(make_slices(rows, evaluation), len(rows)), options.max_rows, options.seed)
    if len(chosen) == len(rows):
        sentences, table = [f"rows: {split}"], rows
    else:
        sentences, table = [f"rows: a random sample of {len(chosen):,} of {split}"], rows.take(chosen)
    if table.corpus is not None and len(table.corpus) > 2 * options.max_rows:
        sentences.append(
            f"candidates: positives of these rows, not the corpus of {len(table.corpus):,} items"
        )
        table = PairTable(table.to_arrow(), source=table.source)
    return table, sentences


def _by_part(
    parts: list[Slice], sample: PairSample, importances: Both, bootstrap: Bootstrap
) -> dict[str, PartDrift]:
    result = {}
    for part in parts:
        pairs = np.flatnonzero(np.isin(sample.rows, part.rows))
        if len(pairs):
            result[part.name] = part_drift(*importances, pairs, weights=sample.weights, bootstrap=bootstrap)
    return result


def _judged(
    look: _Looker, sample: PairSample, importances: Both, options: DiagnoseOptions
) -> dict[str, Faithfulness] | None:
    whole = np.logical_and(
        *[
            importance.complete().all(axis=0) & (importance.counts.sum(axis=0) > 0)
            for importance in importances
        ]
    )
    rows = _shuffled(sample.rows[whole], options.seed)[:JUDGED_PAIRS]
    if not len(rows):
        return None
    again = look.at(rows)
    return {
        key: faithfulness(reader, importance, seed=options.seed)
        for key, reader, importance in zip(("model", "base"), look.readers, again, strict=True)
    }


def _shuffled(rows: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).permutation(rows)


def _more_words(sample: PairSample, matching: NDArray[np.int64], options: DiagnoseOptions) -> list[str]:
    """Advice where too few pairs' words were looked at to name one."""
    looked_at = len(sample.rows)
    if looked_at >= min(len(matching), FEW_PAIRS):
        return []
    wanted = max(1, round(options.minutes * FEW_PAIRS / max(1, looked_at)))
    return [
        f"The words of only {looked_at:,} of {len(matching):,} matching pairs were looked at, too few to "
        f"name one: give it more time (diagnose --minutes {wanted})."
    ]


def _cut(importances: Both, options: DiagnoseOptions) -> list[str]:
    notes = []
    partly = int((~importances[0].complete()).sum())
    if partly:
        notes.append(
            f"long texts: {partly:,} have more than {options.max_words} words; as many words were drawn from "
            "each, and they do not count for the concentration"
        )
    read: Callable[[TokenImportance], int] = lambda importance: int(  # noqa: E731
        sum(
            importance.read[side, pair] < len(importance.text(pair, side).rstrip())
            for side in (0, 1)
            for pair in range(len(importance.scores))
        )
    )
    unread = max(read(importance) for importance in importances)
    if unread:
        notes.append(f"cut off: the models do not read the end of {unread:,} texts; it has no importance")
    return notes
