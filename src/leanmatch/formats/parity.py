"""Do two models give the same vectors? The check behind every save."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from leanmatch.errors import FormatError
from leanmatch.types import Vectors

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

MIN_COSINE = 0.9999

ODD_TEXTS: tuple[str, ...] = (
    "usb c dock with two hdmi ports",
    "How do I mount an external drive on startup?",
    "",
    " ",
    "\n\t",
    "a",
    ".",
    "MiXeD CaSe TEXT",
    "naïve café, İstanbul, STRASSE, Straße, \ufb01ne",
    "\U0001f600 \U0001f3f3\ufe0f\u200d\U0001f308 \U0001f469\u200d\U0001f52c",
    "日本語のテキストと한국어와中文",
    "العربية עברית हिन्दी",
    "zero\u200bwidth and e\u0301 combining",
    "a\x00b\x7fc",
    "[CLS] [MASK] [SEP] [PAD] <s> </s>",
    "  leading and trailing  ",
    "x" * 3000,
    "long text " * 1500,
)
"""Texts that layouts and tokenizers trip over: blank, very long, other scripts, control characters."""


@dataclass(frozen=True)
class Parity:
    """How close two models' vectors are: the smallest cosine, over how many texts, and where."""

    min_cosine: float
    texts: int
    worst_text: str


def compare_vectors(first: Vectors, second: Vectors, texts: Sequence[str]) -> Parity:
    """The smallest cosine between rows, in float64.

    Two zero rows agree (1.0), a zero row and another do not (0.0).

    Args:
        first: shape ``(texts, dimension)``.
        second: the same shape.
        texts: what the rows stand for.

    Raises:
        FormatError: the shapes differ, or a number is not finite.
    """
    if first.shape != second.shape:
        raise FormatError(f"the reloaded model gives vectors of shape {second.shape}, not {first.shape}")
    for name, vectors in (("model", first), ("reloaded model", second)):
        bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if bad.size:
            raise FormatError(
                f"the {name} gives NaN or infinite numbers for {bad.size} of {len(texts)} texts, "
                f"the first being {texts[bad[0]]!r:.80}",
                remedy="training has diverged: lower the learning rate",
            )
    left, right = first.astype(np.float64), second.astype(np.float64)
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    both_zero = ~left.any(axis=1) & ~right.any(axis=1)
    cosines = np.where(both_zero, 1.0, (left * right).sum(axis=1) / np.where(norms > 0, norms, 1.0))
    worst = int(np.argmin(cosines))
    return Parity(min(1.0, float(cosines[worst])), len(texts), texts[worst])


def check_parity(model: SentenceTransformer, other: SentenceTransformer, texts: Sequence[str]) -> Parity:
    """Encode :data:`ODD_TEXTS` and ``texts`` with both models and compare.

    Raises:
        FormatError: a cosine under :data:`MIN_COSINE`, or vectors that are not finite.
    """
    from leanmatch.models.adapter import evaluation_mode

    probes = list(dict.fromkeys((*ODD_TEXTS, *texts)))
    vectors = []
    for matcher in (model, other):
        with evaluation_mode(matcher):
            encoded = matcher.encode(probes, batch_size=32, convert_to_numpy=True, show_progress_bar=False)
        vectors.append(np.asarray(encoded, dtype=np.float32))
    parity = compare_vectors(vectors[0], vectors[1], probes)
    if parity.min_cosine < MIN_COSINE:
        raise FormatError(
            f"the saved model, reloaded, gives a cosine of {parity.min_cosine:.6f} to the model in memory "
            f"for {parity.worst_text!r:.80} (at least {MIN_COSINE} is asked)",
            remedy="nothing was written; report this with the model's modules: print(model)",
        )
    return parity
