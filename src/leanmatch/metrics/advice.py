"""What to do about an evaluation: sentences from what it found."""

from __future__ import annotations

import math
from collections.abc import Sequence

from leanmatch.metrics.names import MAIN_METRICS
from leanmatch.metrics.results import BETTER, WORSE, Evaluation, MetricResult, SliceResult

OUT, IN, OVERALL = "out of distribution", "in distribution", "overall"
WORTH_SEEING = 0.01
"""A difference (1 point) that a test set should be able to show."""
FEWEST_PAIRS = 200
"""Test pairs are never asked for in smaller numbers than this."""


def main_metric(evaluation: Evaluation) -> str:
    """The metric that verdicts are given in."""
    present = list(dict.fromkeys(name for part in evaluation.slices.values() for name in part.metrics))
    return next((name for name in MAIN_METRICS if name in present), present[0])


def compared_slices(evaluation: Evaluation) -> list[tuple[SliceResult, MetricResult]]:
    """The slices that differ in their rows and were compared, each with its main metric.

    All rows together are one only where they are not cut into in and out of distribution.
    """
    metric = main_metric(evaluation)
    compared = [
        (part, part.metrics[metric])
        for part in evaluation.slices.values()
        if metric in part.metrics and part.metrics[metric].verdict is not None
        if part.same_as is None or part.kind in (IN, OUT)
    ]
    cut = any(part.kind in (IN, OUT) for part, _ in compared)
    return [(part, result) for part, result in compared if not (cut and part.kind == OVERALL)]


def warnings(evaluation: Evaluation) -> list[str]:
    """A loud sentence for each slice on which the model is significantly worse."""
    return [
        f"WARNING: {part.name}: {result.sentence}"
        for part, result in compared_slices(evaluation)
        if result.verdict == WORSE
    ]


def advice(evaluation: Evaluation, *, average: float | None = None, steps: int | None = None) -> list[str]:
    """What to do now, most urgent first.

    Args:
        evaluation: a model against the base that it was trained from.
        average: share of the trained weights in the model, where it is known.
        steps: training steps, where they are known.
    """
    if average == 0:
        return [
            "The result is the base model itself: no average with the trained parameters did better on the "
            "validation pairs. Check the pairs (leanmatch data check), then train with a lower --lr, fewer "
            f"steps {f'(--max-steps {steps // 2}) ' if steps and steps > 1 else ''}or more pairs."
        ]
    slices = compared_slices(evaluation)
    worse = [part for part, result in slices if result.verdict == WORSE]
    better = [part for part, result in slices if result.verdict == BETTER]
    sentences = []
    if any(part.kind == OUT for part in worse):
        sentences.append(
            f"It lost {OUT}: train again with texts from there, which need no labels (--target FILE), or "
            f"closer to the base, with {_closer(average, steps)}, or add training pairs that are like the "
            "rows it lost on."
        )
    elif worse and any(part.kind in (IN, OVERALL) for part in worse):
        sentences.append(
            "It lost on rows like those it was trained on: do not use it. Check the pairs (leanmatch data "
            f"check), then train with {_closer(average, steps)} or a lower --lr."
        )
    named = [part.name for part in worse if part.kind not in (OUT, IN, OVERALL)]
    if named:
        sentences.append(
            f"It lost on {joined(named)}: add training pairs of these, or hold them out "
            f"(--hold-out {named[0]}), so that the choice of the average sees such a loss."
        )
    if slices and not worse and not better:
        part, result = next(((p, r) for p, r in slices if p.kind == OVERALL), slices[0])
        sentences.append(
            "Nothing is significant: the model is neither better nor worse than its base on these rows. "
            f"{_more_pairs(part, result)}"
        )
    elif not worse and better:
        sentences.append(
            f"It gained {_places(better)} and lost nowhere: compress it (leanmatch compress), or index and "
            "serve it as it is."
        )
        unseen = [(part, result) for part, result in slices if part.kind == OUT and result.verdict != BETTER]
        sentences += [f"No difference was seen {OUT}. {_more_pairs(part, result)}" for part, result in unseen]
    if slices and not any(part.kind == OUT for part, _ in slices):
        sentences.append(
            f"No row is {OUT}, so nothing is known of new categories or later months: hold some out "
            "(train --hold-out COLUMN=VALUE, or --after DATE)."
        )
    return sentences


def _closer(average: float | None, steps: int | None) -> str:
    share = f"--average {round(average / 2, 2) if average else 0.5:g}"
    fewer = f"fewer steps (--max-steps {max(1, steps // 2)})" if steps and steps > 1 else "fewer steps"
    return f"a smaller share of the training ({share}), {fewer}"


def _more_pairs(part: SliceResult, result: MetricResult) -> str:
    """How many queries would show a difference of a point, by the width of the interval that there is."""
    if result.difference_low is None or result.difference_high is None or not part.n_queries:
        return "Give more test pairs."
    half = (result.difference_high - result.difference_low) / 2
    needed = math.ceil(part.n_queries * (half / WORTH_SEEING) ** 2)
    if needed <= part.n_queries < FEWEST_PAIRS:
        return f"{part.n_queries:,} queries are few: give at least {FEWEST_PAIRS} test pairs."
    if needed <= part.n_queries:
        return f"{part.n_queries:,} queries would have shown a difference of {100 * WORTH_SEEING:g} point."
    needed = max(FEWEST_PAIRS, needed)
    rounded = int(float(f"{needed:.2g}"))
    return (
        f"{part.n_queries:,} queries show differences above {100 * half:.1f} points; for "
        f"{100 * WORTH_SEEING:g} point give about {rounded:,} test pairs."
    )


def _places(parts: Sequence[SliceResult]) -> str:
    """Slices in a sentence.

    >>> from types import SimpleNamespace as Part
    >>> _places([Part(name=IN, kind=IN), Part(name="shop=A", kind="column value")])
    'in distribution and on shop=A'
    """
    return joined([part.name if part.kind in (IN, OUT, OVERALL) else f"on {part.name}" for part in parts])


def joined(names: Sequence[str]) -> str:
    """Names in a sentence.

    >>> joined(["a", "b", "c"]), joined(["a"])
    ('a, b and c', 'a')
    """
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
