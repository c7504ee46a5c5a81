"""Masking augmentation: ITVReg's rival that intervenes on texts but compares with no base model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from leanmatch.interventions.edits import check_edit, edit_texts
from leanmatch.interventions.words.vocabulary import TokenVocabulary
from leanmatch.models import Prompts
from leanmatch.training.features import Features
from leanmatch.training.losses.contrastive import PlainLoss
from leanmatch.training.losses.itvreg import default_intervention

if TYPE_CHECKING:
    from torch import Tensor


class MaskingLoss(PlainLoss):
    """The contrastive loss on edited copies: in every text one token is masked, deleted or replaced.

    Args:
        model: the ``SentenceTransformer`` in training.
        interventions: ``mask``, ``delete``, ``replace`` or ``auto``, as in :class:`ITVReg`.
        unit: ``token`` or ``word``.
        contrastive, mini_batch_size, dimensions: see :class:`PlainLoss`.
        prompts: as in :class:`ITVReg`.
    """

    def __init__(
        self,
        model: Any,
        *,
        interventions: str = "auto",
        unit: str = "token",
        contrastive: nn.Module | Callable[[Any], nn.Module] | None = None,
        mini_batch_size: int | None = None,
        dimensions: Sequence[int] | None = None,
        prompts: Prompts | None = None,
    ) -> None:
        super().__init__(
            model, contrastive=contrastive, mini_batch_size=mini_batch_size, dimensions=dimensions
        )
        self.vocabulary = TokenVocabulary.from_model(model)
        self.interventions = default_intervention(model) if interventions == "auto" else interventions
        check_edit(self.interventions, 1, unit)
        self.unit, self.prompts = unit, prompts or Prompts()

    def forward(self, sentence_features: Iterable[Features], labels: Tensor | None = None) -> Tensor:
        """The loss of one batch; while the model evaluates (``model.eval()``), of the unedited texts."""
        columns = list(sentence_features)
        if self.training:
            columns = self.drawn(lambda: self._edits(columns))
        return super().forward(columns, labels)

    def _edits(self, columns: list[Features]) -> list[Features]:
        return [
            edit_texts(
                column,
                self.vocabulary,
                kind=self.interventions,
                unit=self.unit,
                protected=self.protected(column, side, self.prompts),
            ).features
            for side, column in enumerate(columns)
        ]

    def get_config_dict(self) -> dict[str, Any]:
        """Settings for the model card."""
        return {**super().get_config_dict(), "interventions": self.interventions, "unit": self.unit}
