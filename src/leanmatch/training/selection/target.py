"""Unlabelled texts of where the model will be used, as evidence for the choice.

No pair is known there, but the two halves of a text belong together, and a model that has lost the words of
the target loses this match, too. Of the evidence that was tried without labels it was the best
(docs/results/ood.md): dropping words at random as the query was harmful.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from leanmatch.data import PairTable
from leanmatch.errors import DataError

FEWEST_WORDS = 4
FEWEST_TEXTS = 50
"""Fewer texts that can be halved say too little."""
MOST_TEXTS = 1000


def clean_target(texts: Sequence[str]) -> list[str]:
    """Distinct texts without blanks at the ends, sorted, so that their order in a file decides nothing.

    Raises:
        DataError: fewer than two are left.
    """
    kept = sorted({text.strip() for text in texts} - {""})
    if texts and len(kept) < 2:
        raise DataError(
            f"the target has {len(kept)} distinct texts of {len(texts):,}",
            remedy="give the texts of the catalogue, of new categories, or of recent queries",
        )
    return kept


def halves(texts: Sequence[str], seed: int = 0) -> PairTable | None:
    """First and second halves of texts as pairs: at most :data:`MOST_TEXTS`, drawn at random.

    A text is cut between words; one in a script without spaces between characters. Texts of fewer than
    :data:`FEWEST_WORDS` words (or characters twice as many) are left out.

    Returns:
        The pairs, or None where fewer than :data:`FEWEST_TEXTS` texts can be cut.
    """
    cuts: dict[tuple[str, str], None] = {}
    for text in texts:
        words, joint = text.split(), " "
        if len(words) < FEWEST_WORDS and _is_dense(text) and len(text) >= 2 * FEWEST_WORDS:
            words, joint = list(text), ""
        if len(words) >= FEWEST_WORDS:
            middle = -(-len(words) // 2)
            cut = joint.join(words[:middle]), joint.join(words[middle:])
            if cut[0] != cut[1] and all(part.strip() for part in cut):
                cuts.setdefault(cut)
    if len(cuts) < FEWEST_TEXTS:
        return None
    pairs = list(cuts)
    rows = np.sort(np.random.default_rng(seed).permutation(len(pairs))[:MOST_TEXTS]).tolist()
    return PairTable.from_columns(
        {"anchor": [pairs[row][0] for row in rows], "positive": [pairs[row][1] for row in rows]}
    )


def _is_dense(text: str) -> bool:
    """Whether most characters are of scripts without spaces: from U+2E80 on, and Thai, Lao and Khmer."""
    dense = sum(c >= "\u2e80" or "\u0e00" <= c <= "\u0eff" or "\u1780" <= c <= "\u17ff" for c in text)
    return 2 * dense > len(text)
