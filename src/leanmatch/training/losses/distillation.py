"""Distillation of a matcher: keep a smaller model's embeddings near those of the model it was made from."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from leanmatch.compression.distillation import embedding_loss, hidden_loss, similarity_loss
from leanmatch.errors import UsageError
from leanmatch.training.base_scores import FrozenBase
from leanmatch.training.features import Features
from leanmatch.training.losses.contrastive import PlainLoss

if TYPE_CHECKING:
    from torch import Tensor


class DistillationLoss(PlainLoss):
    """``embedding L_e + similarity L_s + hidden L_h + task L_c`` against a frozen teacher.

    ``L_e`` is ``1 - cos`` of student and teacher embeddings, ``L_s`` the mean squared difference of all
    in-batch cosines, ``L_h`` the relative squared error of the last hidden states, ``L_c`` the contrastive
    loss on the columns. The teacher's embeddings are computed once a text and cached, so a step costs one
    pass of the student. With ``hidden`` above 0 the teacher runs at every step.

    Args:
        model: the ``SentenceTransformer`` in training.
        teacher: the dense ``SentenceTransformer`` (a frozen copy is taken) or a ``FrozenBase`` to share.
        embedding, similarity, hidden, task: factors, at least 0. ``task`` needs columns of matching pairs;
            the others take any columns of texts, one included.
        contrastive: see :class:`PlainLoss`.
    """

    def __init__(
        self,
        model: Any,
        teacher: Any,
        *,
        embedding: float = 1.0,
        similarity: float = 10.0,
        hidden: float = 0.0,
        task: float = 0.0,
        contrastive: nn.Module | Callable[[Any], nn.Module] | None = None,
    ) -> None:
        super().__init__(model, contrastive=contrastive)
        self.factors = {"embedding": embedding, "similarity": similarity, "hidden": hidden, "task": task}
        for name, factor in self.factors.items():
            if not 0 <= factor < float("inf"):
                raise UsageError(f"{name} must be at least 0 and finite (found {factor})")
        if not any(self.factors.values()):
            raise UsageError("all factors of the distillation are 0", remedy="give one of them a value")
        self.base = teacher if isinstance(teacher, FrozenBase) else FrozenBase(teacher)

    def forward(self, sentence_features: Iterable[Features], labels: Tensor | None = None) -> Tensor:
        """The loss of one batch; its parts stay readable in ``components``."""
        columns = list(sentence_features)
        if self.factors["task"] and len(columns) < 2:
            raise UsageError("task above 0 needs columns of matching pairs (found one column)")
        embeddings = self.encode(columns)
        teacher = self.base.embed(columns, embeddings[0].device)
        student, target = torch.cat(list(embeddings)), torch.cat(teacher)
        parts: dict[str, Tensor] = {}
        if self.factors["embedding"]:
            parts["embedding"] = embedding_loss(student, target)
        if self.factors["similarity"]:
            parts["similarity"] = similarity_loss(student, target)
        if self.factors["hidden"]:
            parts["hidden"] = torch.stack([self._hidden(column) for column in columns]).mean()
        if self.factors["task"]:
            parts["task"] = self.contrast(embeddings, labels)
        self.components = {name: part.detach() for name, part in parts.items()}
        return torch.stack([self.factors[name] * part for name, part in parts.items()]).sum()

    def _hidden(self, column: Features) -> Tensor:
        student = self.model(dict(column))["token_embeddings"]
        with torch.no_grad():
            teacher = self.base.model(dict(column))["token_embeddings"]
        return hidden_loss(student, teacher, column["attention_mask"])

    def get_config_dict(self) -> dict[str, Any]:
        """Settings for the model card."""
        return {**super().get_config_dict(), **self.factors}
