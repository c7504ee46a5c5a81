"""OutReg: keep the scores near the base model's. ITVReg's rival without interventions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

from leanmatch.errors import UsageError
from leanmatch.training.base_scores import FrozenBase
from leanmatch.training.features import Features
from leanmatch.training.losses.contrastive import PlainLoss
from leanmatch.training.options import DEFAULT_WEIGHT, PAIRS, RegularizerOptions

if TYPE_CHECKING:
    from torch import Tensor


class RegularizedLoss(PlainLoss):
    """Abstract: contrastive loss plus ``weight`` times a penalty that compares with the frozen base.

    Args:
        model: the ``SentenceTransformer`` in training.
        base: the base ``SentenceTransformer`` (a frozen copy is taken) or a :class:`FrozenBase` to share.
        weight: factor of the penalty, at least 0.
        pairs: ``all`` in-batch pairs or the ``diagonal``.
        contrastive, mini_batch_size, dimensions: see :class:`PlainLoss`. The base keeps its whole vectors.
    """

    def __init__(
        self,
        model: Any,
        base: Any,
        *,
        weight: float = DEFAULT_WEIGHT,
        pairs: str = RegularizerOptions.pairs,
        contrastive: nn.Module | Callable[[Any], nn.Module] | None = None,
        mini_batch_size: int | None = None,
        dimensions: Sequence[int] | None = None,
    ) -> None:
        super().__init__(
            model, contrastive=contrastive, mini_batch_size=mini_batch_size, dimensions=dimensions
        )
        if not weight >= 0:
            raise UsageError(f"weight must be at least 0 (found {weight!r})")
        if pairs not in PAIRS:
            raise UsageError(f"unknown pairs {pairs!r}", remedy=f"one of {', '.join(PAIRS)}")
        self.weight = weight
        self.pairs = pairs
        # FrozenBase is a plain object, so nn.Module does not register its weights
        self.base = base if isinstance(base, FrozenBase) else FrozenBase(base)

    def combine(self, contrastives: Sequence[Tensor], penalties: Sequence[Tensor]) -> Tensor:
        """``contrastive + weight * penalty``, each a mean; the parts are kept in ``components``."""
        contrastive, penalty = torch.stack(list(contrastives)).mean(), torch.stack(list(penalties)).mean()
        self.components = {"contrastive": contrastive.detach(), "penalty": penalty.detach()}
        return contrastive + self.weight * penalty

    def score(self, left: Tensor, right: Tensor) -> Tensor:
        """Cosines of normalized rows: ``(n, m)`` for all pairs, ``(n, 1)`` for the diagonal."""
        if self.pairs == "all":
            return left @ right.T
        return (left * right).sum(1, keepdim=True)

    def get_config_dict(self) -> dict[str, Any]:
        """Settings for the model card."""
        return {**super().get_config_dict(), "weight": self.weight, "pairs": self.pairs}


class OutReg(RegularizedLoss):
    """``L + weight * mean((s - s0)^2) / var(s0)``: drift of the scores in units of the base scores' spread.

    ``s`` are the cosines of anchors with positives (and negatives) in the batch, ``s0`` the base model's.
    Of the diagonal alone the variance is taken over the batch's pairs.
    """

    def forward(self, sentence_features: Iterable[Features], labels: Tensor | None = None) -> Tensor:
        """The loss of one batch."""
        columns = list(sentence_features)
        embeddings = self.encode(columns)
        base = self.base.embed(columns, embeddings[0].device)
        scores0 = self.score(*anchors_and_documents(base, self.pairs))
        spread = scores0.var(correction=0).clamp(min=1e-6)
        contrastives, penalties = [], []
        for some in self.prefixes(embeddings):
            scores = self.score(*anchors_and_documents(some, self.pairs))
            contrastives.append(self.contrast(some, labels))
            penalties.append((scores - scores0).square().mean() / spread)
        return self.combine(contrastives, penalties)


def anchors_and_documents(embeddings: Sequence[Tensor], pairs: str) -> tuple[Tensor, Tensor]:
    """Normalized anchors ``(n, d)`` and documents: positives, for all pairs negatives too ``(m, d)``."""
    documents = torch.cat(list(embeddings[1:])) if pairs == "all" else embeddings[1]
    return functional.normalize(embeddings[0].float(), dim=1), functional.normalize(documents.float(), dim=1)
