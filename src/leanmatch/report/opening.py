"""The page's first sentences: what the tables and charts below do not say by themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leanmatch.metrics.advice import OUT, compared_slices, joined
from leanmatch.metrics.results import BETTER, WORSE

if TYPE_CHECKING:
    from leanmatch.report.diagnosis import Diagnosis

NAMED_WORDS = 4
"""Words that a sentence names."""


def opening(diagnosis: Diagnosis) -> list[str]:
    """Three sentences at most: the judgement, the words that carry it, and how much hangs on one word."""
    sentences = [_judgement(diagnosis)]
    gained, lost = (
        [drift.word for drift in words[:NAMED_WORDS]] for words in (diagnosis.gained(), diagnosis.lost())
    )
    moved = [f"more on {_quoted(gained)}"] if gained else []
    moved += [f"less on {_quoted(lost)}"] if lost else []
    if moved:
        sentences.append(f"A match now hangs {' and '.join(moved)}.")
    else:
        sentences.append("No single word surely gained or lost weight.")
    sentences += _concentration(diagnosis)
    return sentences


def _judgement(diagnosis: Diagnosis) -> str:
    slices = compared_slices(diagnosis.evaluation)
    named = {
        verdict: [part.name for part, result in slices if result.verdict == verdict]
        for verdict in (BETTER, WORSE)
    }
    parts = [f"{verdict} {_where(names)}" for verdict, names in named.items() if names]
    if not parts:
        return f"These rows show no difference between {diagnosis.name} and {diagnosis.against} on any slice."
    return f"{diagnosis.name} is {', and '.join(parts)}."


def _where(names: list[str]) -> str:
    """Slices in a sentence: ``overall and out of distribution``, or ``on shop=A``."""
    plain = [name for name in names if "=" not in name]
    values = [name for name in names if "=" in name]
    shown = plain + ([f"on {joined(values)}"] if 0 < len(values) <= 3 else [])
    if len(values) > 3:
        shown.append(f"on {len(values)} groups")
    return joined(shown)


def _concentration(diagnosis: Diagnosis) -> list[str]:
    part = diagnosis.parts.get(OUT) or next(iter(diagnosis.parts.values()), None)
    if part is None or part.base.value is None or part.model.value is None or part.difference.value is None:
        return []
    low, high = part.difference.low, part.difference.high
    if low is None or high is None or low <= 0 <= high:
        return []
    words = "more" if part.difference.value > 0 else "less"
    return [
        f"The score hangs {words} on a single word than before: the top one carries "
        f"{100 * part.model.value:.0f}% of it, against {100 * part.base.value:.0f}%."
    ]


def _quoted(words: list[str]) -> str:
    return joined([f"\u201c{word}\u201d" for word in words])
