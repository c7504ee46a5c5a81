"""Evaluation of one model in several numbers of dimensions; each text is encoded once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leanmatch.metrics import Evaluation

Measure = Callable[[Any, str, Any, str, bool], "Evaluation"]
"""A matcher and its name, against another and its name (None for no other), to an evaluation; the last says
whether the other ranks as the matcher does (by terms, with a reranker), and not by cosine alone."""


def by_dimension(
    measure: Measure, encoder: Any, rival: Any, dimensions: tuple[int, ...], names: tuple[str, str]
) -> tuple[Evaluation, dict[int, Evaluation]]:
    """Evaluate the first dimensions of a model's vectors, for several numbers of them.

    Args:
        measure: evaluates one matcher.
        encoder: of the model, by role, with vectors of the largest of the dimensions.
        rival: another model, None for none. All dimensions are compared with its whole vectors; without it,
            with the largest of the dimensions.
        dimensions: how many are kept, the largest first.
        names: of the model and of the rival.

    Returns:
        the evaluation in the largest, and those in the others by their number.
    """
    from leanmatch.models import Prefix
    from leanmatch.report.pairs import Remembering

    largest, *others = dimensions
    called = {number: f"{names[0]}, {number} dimensions" for number in dimensions}
    whole = Remembering(encoder, name=names[0])
    against = None if rival is None else Remembering(rival, name=names[1])
    first = measure(whole, called[largest], against, names[1], False)
    own = against is None
    if own:
        against, names = whole, (names[0], called[largest])
    return first, {
        number: measure(Prefix(whole, number), called[number], against, names[1], own) for number in others
    }
