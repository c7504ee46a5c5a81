"""The contrastive part, and what all losses share: encoding a batch's columns."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

from leanmatch.errors import UsageError
from leanmatch.interventions.edits import is_bag
from leanmatch.models import DOCUMENT, QUERY, Prompts
from leanmatch.models.tokens import prompt_tokens
from leanmatch.models.torch_encoder import model_dimension
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
            ``-log(exp(20 s(a_i, p_i)) / sum_j exp(20 s(a_i, d_j)))``, mean over the batch. For negatives of
            all processes: ``partial(MultipleNegativesRankingLoss, gather_across_devices=True)``.
        mini_batch_size: texts whose activations are held at once (gradient caching), None for all.
        dimensions: Matryoshka training (Kusupati et al., arXiv 2205.13147): the loss is the mean over the
            first ``d`` numbers of the vectors, normalized, for each ``d`` here and for the whole vectors.
            None for the whole vectors alone.

    Shapes: ``forward(sentence_features, labels)`` takes one feature dict a column, ``n`` texts each, and
    returns a scalar. ``labels`` go to the contrastive loss, which by default ignores them.
    """

    def __init__(
        self,
        model: Any,
        *,
        contrastive: nn.Module | Callable[[Any], nn.Module] | None = None,
        mini_batch_size: int | None = None,
        dimensions: Sequence[int] | None = None,
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
        self.dimensions = prefix_lengths(dimensions, model)
        self.components: dict[str, Tensor] = {}
        self._draw: tuple[Any, Any] = (lambda: None, None)

    def forward(self, sentence_features: Iterable[Features], labels: Tensor | None = None) -> Tensor:
        """The loss of one batch; its parts stay readable in ``components``."""
        embeddings = self.encode(list(sentence_features))
        loss = torch.stack([self.contrast(some, labels) for some in self.prefixes(embeddings)]).mean()
        self.components = {"contrastive": loss.detach()}
        return loss

    def contrast(self, embeddings: Sequence[Tensor], labels: Tensor | None) -> Tensor:
        """The contrastive loss of the columns' embeddings."""
        contrastive: Any = self.contrastive
        loss: Tensor = contrastive.compute_loss_from_embeddings(list(embeddings), labels)
        return loss

    def prefixes(self, embeddings: Sequence[Tensor]) -> Iterator[list[Tensor]]:
        """The columns' embeddings in each of the dimensions, normalized; as they are without any."""
        if not self.dimensions:
            yield list(embeddings)
        for kept in self.dimensions:
            yield [functional.normalize(vectors[:, :kept], dim=1) for vectors in embeddings]

    def drawn(self, draw: Callable[[], Any]) -> Any:
        """What is drawn at random for a batch.

        ``MatryoshkaLoss`` calls a loss once for each dimension and gives all calls but the first the
        embeddings of the first, cut. The edits behind them must then be those of the first call.

        Raises:
            UsageError: a wrapped model, or gradient caching, which ``MatryoshkaLoss`` would cut at the wrong
                place.
        """
        models = (self.model, unwrapped(self.model))
        decorators = [vars(model).get("forward") for model in models]
        decorator = next((found for found in decorators if hasattr(found, "set_dim")), None)
        if decorator is None:
            return draw()
        if models[0] is not models[1] or self.mini_batch_size is not None:
            raise UsageError(
                "MatryoshkaLoss around this loss works in one process and without mini_batch_size",
                remedy=f"use {type(self).__name__}(..., dimensions=...) without MatryoshkaLoss",
            )
        if self._draw[0]() is not decorator:
            self._draw = (weakref.ref(decorator), draw())
        return self._draw[1]

    def encode(self, columns: Sequence[Features]) -> list[Tensor]:
        """Embeddings of every column, sharing forward passes; with gradient caching where asked."""
        columns = for_model(columns, unwrapped(self.model))
        if self.mini_batch_size is None or is_bag(columns[0]):
            return encode_columns(
                self._encode, columns, device_type=self._device.type, encode_last=self._encode_last
            )
        embeddings_of: dict[int, Tensor] = {}
        groups = by_prompt_length(columns)
        for group in groups:
            some = [columns[number] for number in group]
            last = self._encode_last if group is groups[-1] else None
            embeddings = encode_cached(self._encode, join(some), self.mini_batch_size, encode_last=last)
            counts = [len(column["input_ids"]) for column in some]
            embeddings_of.update(zip(group, torch.split(embeddings, counts), strict=True))
        return [embeddings_of[number] for number in range(len(columns))]

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
        length = prompt_length(column)
        prompt = prompts.of_role(DOCUMENT if side else QUERY)
        return length or prompt_tokens(unwrapped(self.model).tokenizer, prompt)

    def get_config_dict(self) -> dict[str, Any]:
        """Settings for the model card."""
        contrastive: Any = self.contrastive
        inner = contrastive.get_config_dict() if hasattr(contrastive, "get_config_dict") else {}
        return {
            "contrastive": type(self.contrastive).__name__,
            **inner,
            "mini_batch_size": self.mini_batch_size,
            "dimensions": list(self.dimensions),
        }

    @property
    def citation(self) -> str:
        """BibTeX of the method."""
        return CONTRASTIVE_CITATION


def prefix_lengths(dimensions: Sequence[int] | None, model: Any) -> tuple[int, ...]:
    """The dimensions to train in, the largest first, with that of the model's whole vectors.

    Raises:
        UsageError: a dimension that is no whole number from 1 to that of the model, or stands twice.
    """
    if dimensions is None:
        return ()
    whole = model_dimension(model)
    for kept in dimensions:
        if isinstance(kept, bool) or not isinstance(kept, int) or not 1 <= kept <= whole:
            raise UsageError(
                f"dimensions has {kept!r}, and the model's vectors have {whole} dimensions",
                remedy=f"give whole numbers from 1 to {whole}",
            )
    if not dimensions or len({*dimensions}) < len(dimensions):
        raise UsageError(f"dimensions is {list(dimensions)}", remedy="give each of them once, or None")
    return tuple(sorted({*dimensions, whole}, reverse=True))
