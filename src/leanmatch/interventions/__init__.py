"""Token edits and their effect on a relevance score.

An intervention ``do(x_t)`` changes one token (or one whole word) of a text ``x``: it is replaced by
``[MASK]``, deleted, or replaced by a token drawn from the corpus. The *importance* of ``t`` for a pair is
the signed effect on its score, ``TI(t; x, z) = s(x, z) - s(do(x_t), z)``.

The idea is that of Bansal, Prabhu, Kiciman and Sharma, *Using Interventions to Improve
Out-of-Distribution Generalization of Text-Matching Recommendation Systems* (arXiv 2210.10636). The formulas
here are built on the definitions in its abstract; they are not copied from the paper's body.
"""

from leanmatch.interventions.edits import INTERVENTIONS, UNITS, Edited, edit_texts
from leanmatch.interventions.effects import drift, effects, relative_drift
from leanmatch.interventions.vocabulary import TokenVocabulary

__all__ = [
    "INTERVENTIONS",
    "UNITS",
    "Edited",
    "TokenVocabulary",
    "drift",
    "edit_texts",
    "effects",
    "relative_drift",
]
