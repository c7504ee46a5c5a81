"""Effects of interventions on scores, and how far two models' effects lie apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leanmatch.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

DRIFTS = ("effect", "score", "one-sided")
"""``effect``: match effects; ``score``: match intervened scores; ``one-sided``: effects may shrink."""


def effects(scores: Tensor, intervened: Tensor) -> Tensor:
    """Signed importance ``TI[i, c, j] = s[i, j] - s'[i, c, j]``.

    Args:
        scores: ``(n, m)``, score of text ``i`` with text ``j``.
        intervened: ``(n, c, m)``, the same after copy ``c``'s intervention on text ``i``.
    """
    return scores[:, None, :] - intervened


def drift(kind: str, scores: Tensor, intervened: Tensor, scores0: Tensor, intervened0: Tensor) -> Tensor:
    """Elementwise squared drift from the base model, shape ``(n, c, m)``.

    With ``TI`` the model's effects and ``TI0`` the base model's:

    - ``effect``: ``(TI - TI0)^2``. A uniform shift of scores costs nothing.
    - ``score``: ``(s' - s0')^2`` on the intervened scores.
    - ``one-sided``: ``max(0, |TI| - |TI0|)^2``. An importance may fall, not rise.

    Raises:
        UsageError: unknown ``kind``.
    """
    if kind == "score":
        return (intervened - intervened0).square()
    model, base = effects(scores, intervened), effects(scores0, intervened0)
    if kind == "effect":
        return (model - base).square()
    if kind == "one-sided":
        return (model.abs() - base.abs()).clamp(min=0).square()
    raise UsageError(f"unknown drift {kind!r}", remedy=f"one of {', '.join(DRIFTS)}")


def relative_drift(squared: Tensor, reference: Tensor) -> Tensor:
    """``mean(squared) / mean(reference^2)``: drift in units of the base model's own effects.

    A value of 1 means that the effects moved by as much as they are large, whatever the encoder, the text
    length and the kind of intervention; that is what makes one default weight serve them all.
    """
    return squared.mean() / reference.detach().square().mean().clamp(min=1e-8)
