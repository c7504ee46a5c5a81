"""The contrastive part, and what all losses share: encoding a batch's columns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from leanmatch.errors import UsageError
from leanmatch.interventions.edits import is_bag
from leanmatch.models import DOCUMENT, QUERY, Prompts
from leanmatch.models.tokens import prompt_tokens
from leanmatch.trainer.parallel import unwrapped
from leanmatch.training.features import (
    Features,
    by_prompt_length,
    encode_columns,
    for_model,
    join,
    prompt_length,
)
from leanmatch.training.gradient_cache import encode_cached

if TYPE_CHECKING:
    from torch import Tensor

CONTRASTIVE_CITATION = """
@misc{oord2018cpc,
    title={Representation Learning with Contrastive Predictive Coding},
    author={Aaron van den Oord and Yazhe Li and Oriol Vinyals},
    year={2018}, eprint={1807.03748}, archivePrefix={arXiv}
}
"""


class PlainLoss(nn.Module):
    """Contrastive loss over (anchor, positive[, negative ...]) columns, with in-batch and given negatives.

    Args:
        model: the ``SentenceTransformer`` in training.
        contrastive: a sentence-transformers loss that offers ``compute_loss_from_embeddings(embeddings,
            labels)``, or a function that makes one from the model; None takes
            ``MultipleNegativesRankingLoss(model)``, that is InfoNCE at temperature 0.05:
            ``-log(exp(20 s(a_i, p_i)) / sum_j exp(20 s(a_i, d_j)))``, mean over the batch.
        mini_batch_size: texts whose activations are held at once (gradient caching), None for all.

    Shapes: ``forward(sentence_features, labels)`` takes one feature dict a column, ``n`` texts each, and
    returns a scalar. ``labels`` go to the contrastive loss, which by default ignores them.
    """

    def __init__(
        self,
        model: Any,
        *,
        contrastive: nn.Module | Callable[[Any], nn.Module] | None = None,
        mini_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        if contrastive is None:
            from leanmatch.training.stock import MultipleNegativesRankingLoss

            contrastive = MultipleNegativesRankingLoss
        if not isinstance(contrastive, nn.Module):
            contrastive = contrastive(model)
        if not hasattr(contrastive, "compute_loss_from_embeddings"):
            raise UsageError(
                f"{type(contrastive).__name__} cannot be the contrastive part: it has no "
                "compute_loss_from_embeddings(embeddings, labels)",
                remedy="use MultipleNegativesRankingLoss, or a loss with that method",
            )
        if mini_batch_size is not None and mini_batch_size < 1:
            raise UsageError(f"mini_batch_size must be at least 1 (found {mini_batch_size})")
        self.model = model
        self.contrastive = contrastive
        self.mini_batch_size = mini_batch_size
        self.components: dict[str, Tensor] = {}

    def forward(self, sentence_features: Iterable[Features], labels: Tensor | None = None) -> Tensor:
        """The loss of one batch; its parts stay readable in ``components``."""
        embeddings = self.encode(list(sentence_features))
        loss = self.contrast(embeddings, labels)
        self.components = {"contrastive": loss.detach()}
        return loss

    def contrast(self, embeddings: Sequence[Tensor], labels: Tensor | None) -> Tensor:
        """The contrastive loss of the columns' embeddings."""
        contrastive: Any = self.contrastive
        loss: Tensor = contrastive.compute_loss_from_embeddings(list(embeddings), labels)
        return loss

    def encode(self, columns: Sequence[Features]) -> list[Tensor]:
        """Embeddings of every column, sharing forward passes; with gradient caching where asked."""
        columns = for_model(columns, unwrapped(self.model))
        if self.mini_batch_size is None or is_bag(columns[0]):
            return encode_columns(
                self._encode, columns, device_type=self._device.type, encode_last=self._encode_last
            )
        made: dict[int, Tensor] = {}
        groups = by_prompt_length(columns)
        for group in groups:
            some = [columns[number] for number in group]
            last = self._encode_last if group is groups[-1] else None
            embeddings = encode_cached(self._encode, join(some), self.mini_batch_size, encode_last=last)
            counts = [len(column["input_ids"]) for column in some]
            made.update(zip(group, torch.split(embeddings, counts), strict=True))
        return [made[number] for number in range(len(columns))]

    def _encode(self, features: Features) -> Tensor:
        return self._kept(unwrapped(self.model)(features)["sentence_embedding"])

    def _encode_last(self, features: Features) -> Tensor:
        return self._kept(self.model(features)["sentence_embedding"])

    def _kept(self, embeddings: Tensor) -> Tensor:
        """The dimensions that the model keeps (``truncate_dim``)."""
        return embeddings[:, : getattr(unwrapped(self.model), "truncate_dim", None)]

    @property
    def _device(self) -> torch.device:
        device: torch.device = next(self.model.parameters()).device
        return device

    def protected(self, column: Features, side: int, prompts: Prompts) -> int:
        """Tokens at the beginning of a column's texts that belong to its prompt.

        Args:
            column: tokenized texts, which say it themselves with transformers of recent versions.
            side: 0 for anchors, which are queries; all others are documents.
            prompts: what the trainer puts before queries and documents.
        """
        said = prompt_length(column)
        prompt = prompts.of_role(DOCUMENT if side else QUERY)
        return said or prompt_tokens(unwrapped(self.model).tokenizer, prompt)

    def get_config_dict(self) -> dict[str, Any]:
        """Settings for the model card."""
        contrastive: Any = self.contrastive
        inner = contrastive.get_config_dict() if hasattr(contrastive, "get_config_dict") else {}
        return {
            "contrastive": type(self.contrastive).__name__,
            **inner,
            "mini_batch_size": self.mini_batch_size,
        }

    @property
    def citation(self) -> str:
        """BibTeX of the method."""
        return CONTRASTIVE_CITATION
