"""Token edits, their effect on a relevance score, and what a score hangs on.

An intervention ``do(x_t)`` changes one token (or one whole word) of a text ``x``: it is replaced by
``[MASK]``, deleted, or replaced by a token drawn from the corpus. The *importance* of ``t`` for a pair is
the signed effect on its score, ``TI(t; x, z) = s(x, z) - s(do(x_t), z)``.

The idea is that of Bansal, Prabhu, Kiciman and Sharma, *Using Interventions to Improve
Out-of-Distribution Generalization of Text-Matching Recommendation Systems* (arXiv 2210.10636). The formulas
here are built on the definitions in its abstract; they are not copied from the paper's body.

Training edits tensors and needs torch; :func:`importance` and what is built on it need a function from texts
to vectors, and no torch. What needs torch is loaded when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from leanmatch.interventions.adapt import as_reader
from leanmatch.interventions.effects import drift, effects, relative_drift
from leanmatch.interventions.faithfulness import Faithfulness, faithfulness
from leanmatch.interventions.importance import importance
from leanmatch.interventions.interactions import Interactions, interactions
from leanmatch.interventions.names import INTERVENTIONS, SIDES, UNITS
from leanmatch.interventions.results import TokenImportance
from leanmatch.interventions.words import split_words
from leanmatch.lazy import find_name

if TYPE_CHECKING:
    from leanmatch.interventions.edits import Edited as Edited
    from leanmatch.interventions.edits import edit_texts as edit_texts
    from leanmatch.interventions.vocabulary import TokenVocabulary as TokenVocabulary

_NEED_TORCH = {"Edited": "edits", "TokenVocabulary": "vocabulary", "edit_texts": "edits"}
__all__ = [
    "INTERVENTIONS",
    "SIDES",
    "UNITS",
    "Edited",
    "Faithfulness",
    "Interactions",
    "TokenImportance",
    "TokenVocabulary",
    "as_reader",
    "drift",
    "edit_texts",
    "effects",
    "faithfulness",
    "importance",
    "interactions",
    "relative_drift",
    "split_words",
]


def __getattr__(name: str) -> Any:
    return find_name(__name__, _NEED_TORCH, name)
