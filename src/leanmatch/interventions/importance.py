"""Importance of each token or word for the score of a pair, by intervention."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanmatch.errors import UsageError
from leanmatch.interventions.adapt import as_readers
from leanmatch.interventions.names import side_numbers
from leanmatch.interventions.readers import Content, Reader, Reading, check_intervention
from leanmatch.interventions.results import TokenImportance
from leanmatch.interventions.scoring import Edit, PairScorer, checked_texts

DRAWS = 4
"""Draws from the corpus for each unit that is replaced, where nothing else is asked for."""


def importance(
    model: Any,
    anchors: Sequence[str],
    positives: Sequence[str],
    *,
    intervention: str = "delete",
    unit: str = "word",
    sides: str = "both",
    samples: int | None = None,
    corpus: Sequence[str] | None = None,
    max_units: int | None = None,
    level: str = "auto",
    mask_text: str | None = None,
    seed: int = 0,
    show_progress: bool | str = False,
) -> TokenImportance:
    r"""How much the score of each pair hangs on each token or word.

    .. math:: TI(t; x, z) = s(x, z) - s(do(x_t), z)

    with ``s`` the cosine of the two vectors and ``do(x_t)`` the text ``x`` with unit ``t`` masked, deleted
    or replaced by draws from the corpus (then ``TI`` is the mean over ``samples`` draws). Only one unit of a
    text is changed at a time. Exact: one forward pass for each different edited text.

    Where the model shows its tokens, the token ids that it reads are edited: what was cut off takes no part,
    and a masked word becomes one mask token for each of its pieces. Otherwise words are edited in the text;
    see :func:`leanmatch.interventions.as_reader`.

    Args:
        model: a ``SentenceTransformer``, a ``SentenceEncoder``, or any function from texts to vectors.
        anchors: left texts.
        positives: right texts, as many.
        intervention: ``delete``, ``mask`` or ``replace``. Masks are foreign to most encoders: any mask
            lowers the score somewhat, so that filler words get an effect too; deleting has no such floor.
        unit: ``word`` (pieces merged) or ``token``.
        sides: ``anchor``, ``positive`` or ``both``.
        samples: draws for each unit with ``replace``; 4 where left out.
        corpus: texts to draw replacements from, by frequency; these pairs' texts where left out.
        max_units: at most so many units of a text, drawn at random where it has more; all where left out.
        level: ``auto``, ``tokens`` or ``text``; what to edit.
        mask_text: the mask token of a function of texts.
        seed: of all draws. A text's draws depend on the seed, the corpus and the text alone.
        show_progress: a bar on stderr; text is what it is called.

    Raises:
        UsageError: an unknown choice; masking without a mask token; tokens of a function of texts; texts of
            unequal number; a corpus without words.
        DataError: an entry that is no text.
        ModelError: the model gives NaN, or tokenizes in a way of its own.

    >>> def count_letters(texts):
    ...     return np.array([[text.count(c) for c in "abcdefgh"] for text in texts], np.float32)
    >>> found = importance(count_letters, ["aa b"], ["a"], sides="anchor")
    >>> found.words(), found.effects.round(3).tolist(), found.scores.round(3).tolist()
    (['aa', 'b'], [0.894, -0.106], [0.894])
    """
    checked_texts(anchors, positives)
    numbers = side_numbers(sides)
    readers = as_readers(model, level=level, mask_text=mask_text)
    check_intervention(readers.anchor, intervention)
    draws = _draws(intervention, samples)
    if max_units is not None and max_units < 1:
        raise UsageError(f"max_units is {max_units}", remedy="give 1 or more, or leave it out")
    scorer = PairScorer(readers, anchors, positives, unit)
    pool = replacements(readers.anchor, scorer.readings, corpus, unit) if intervention == "replace" else []
    edited = {int(text) for side in numbers for text in scorer.sides[side]}
    edits: list[Edit] = []
    chosen: dict[int, list[int]] = {}  # units of each text
    first: dict[int, int] = {}  # the text's first edit
    for number in sorted(edited):
        reading = scorer.readings[number]
        generator = np.random.default_rng([seed, zlib.crc32(reading.text.encode("utf-8", "surrogatepass"))])
        chosen[number] = _sample(len(reading.units), max_units, generator)
        first[number] = len(edits)
        for unit_index in chosen[number]:
            for _ in range(draws):
                content = pool[int(generator.integers(len(pool)))] if pool else None
                edits.append(Edit(number, {unit_index: content}))
    rows = [
        (pair, side, unit_number, first[int(text)] + order * draws, int(scorer.sides[1 - side, pair]))
        for pair in range(len(anchors))
        for side in numbers
        for text in [scorer.sides[side, pair]]
        for order, unit_number in enumerate(chosen[int(text)])
    ]
    table = np.array(rows, np.int64).reshape(-1, 5)
    which = (table[:, 3, None] + np.arange(draws)).ravel()
    after = scorer.edited_scores(
        edits,
        which,
        np.repeat(table[:, 4], draws),
        intervention,
        progress=progress_name(show_progress, "importance"),
    )
    pair, side = table[:, 0], table[:, 1]
    units = [scorer.readings[int(scorer.sides[s, p])].units[u] for p, s, u in table[:, :3].tolist()]
    return TokenImportance(
        effects=scorer.scores[pair] - after.reshape(-1, draws).mean(axis=1),
        offsets=np.array([(span.start, span.end) for span in units], np.int64).reshape(-1, 2),
        pair=pair,
        side=side.astype(np.int8),
        scores=scorer.scores,
        anchors=tuple(anchors),
        positives=tuple(positives),
        counts=_over_sides(scorer, numbers, [len(reading.units) for reading in scorer.readings]),
        read=_over_sides(scorer, (0, 1), [reading.end for reading in scorer.readings]),
        intervention=intervention,
        unit=unit,
        level=readers.level,
        samples=draws,
        seed=seed,
    )


def replacements(
    reader: Reader, readings: Sequence[Reading], corpus: Sequence[str] | None, unit: str
) -> list[Content]:
    """Everything that a replaced unit may become: the units of the corpus, as often as they stand there.

    Raises:
        UsageError: the corpus has none, while there is something to replace.
    """
    source = readings if corpus is None else reader.read(list(corpus), unit)
    pool = [content for reading in source for content in reader.contents(reading)]
    if not pool and any(reading.units for reading in readings):
        raise UsageError("the corpus to replace from has no words", remedy="give texts with words in corpus=")
    return pool


def progress_name(wanted: bool | str, usual: str) -> str | None:
    """What a bar is called; None for no bar."""
    return wanted if isinstance(wanted, str) else usual if wanted else None


def _draws(kind: str, samples: int | None) -> int:
    if kind != "replace":
        if samples not in (None, 1):
            raise UsageError(
                f"samples is {samples}, and {kind!r} leaves nothing to draw", remedy="leave samples out"
            )
        return 1
    if samples is not None and samples < 1:
        raise UsageError(f"samples is {samples}", remedy="give 1 or more")
    return DRAWS if samples is None else samples


def _sample(count: int, most: int | None, generator: np.random.Generator) -> list[int]:
    if most is None or count <= most:
        return list(range(count))
    return sorted(generator.choice(count, most, replace=False).tolist())


def _over_sides(scorer: PairScorer, numbers: Sequence[int], values: list[int]) -> NDArray[np.int64]:
    """A value of each text, for each side and pair; 0 on a side that is not looked at."""
    result = np.zeros_like(scorer.sides)
    for side in numbers:
        result[side] = np.array([*values, 0], np.int64)[scorer.sides[side]]
    return result
