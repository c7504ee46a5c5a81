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

from leanmatch.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
