"""ITVReg: keep each token's causal effect on the relevance score near the base model's."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

from leanmatch.errors import UsageError
from leanmatch.interventions.edits import Edited, check_edit, edit_texts
from leanmatch.interventions.effects import DRIFTS, drift, effects, relative_drift
from leanmatch.interventions.words.vocabulary import TokenVocabulary
from leanmatch.models import Prompts
from leanmatch.models.adapter import transformer_of
from leanmatch.training.features import Features
from leanmatch.training.losses.contrastive import CONTRASTIVE_CITATION
from leanmatch.training.losses.outreg import RegularizedLoss, anchors_and_documents
from leanmatch.training.options import DEFAULT_WEIGHT, SIDES, RegularizerOptions

if TYPE_CHECKING:
    from torch import Tensor


class ITVReg(RegularizedLoss):
    r"""``L + weight * R``, with ``R`` the relative drift of token effects from the base model.

    For every text of the chosen side, ``per_text`` tokens are intervened on. With
    ``TI(t; x, z) = s(x, z) - s(do(x_t), z)`` under the model and ``TI0`` under the frozen base,

    .. math:: R = \sum (TI - TI0)^2 / \sum TI0^2

    over the drawn tokens and over all in-batch pairs ``(x, z)`` (or the matching ones only). See
    :func:`leanmatch.interventions.effects.drift` for the variants ``score`` and ``one-sided``.

    The formulas are ours, built on the definitions in the abstract of arXiv 2210.10636.

    Args:
        model: the ``SentenceTransformer`` in training.
        base: the base ``SentenceTransformer`` (a frozen copy is taken) or a ``FrozenBase`` to share.
        weight: factor of ``R``, which has no unit: at ``R = 1`` effects moved by as much as they are large.
        interventions: ``mask``, ``delete``, ``replace``, or ``auto`` (mask where the encoder is contextual
            and its tokenizer has a mask token, delete otherwise).
        per_text: edited copies of each text. One costs about half a plain step for each side.
        unit: ``token`` or ``word``.
        matching: ``score`` (ahead of the others in docs/results/ood.md), ``effect`` or ``one-sided``.
        pairs: ``all`` or ``diagonal``.
        sides: ``anchor``, ``positive``, ``both``, or ``alternate``: one of the two, drawn for each step.
        contrastive, mini_batch_size: see :class:`~leanmatch.training.losses.PlainLoss`.
        prompts: what the trainer puts before anchors (queries) and positives (documents), None for nothing.
            Their tokens are never intervened on.
    """

    def __init__(
        self,
        model: Any,
        base: Any,
        *,
        weight: float = DEFAULT_WEIGHT,
        interventions: str = RegularizerOptions.interventions,
        per_text: int = RegularizerOptions.per_text,
        unit: str = RegularizerOptions.unit,
        matching: str = RegularizerOptions.matching,
        pairs: str = RegularizerOptions.pairs,
        sides: str = RegularizerOptions.sides,
        contrastive: nn.Module | Callable[[Any], nn.Module] | None = None,
        mini_batch_size: int | None = None,
        prompts: Prompts | None = None,
    ) -> None:
        super().__init__(
            model, base, weight=weight, pairs=pairs, contrastive=contrastive, mini_batch_size=mini_batch_size
        )
        if matching not in DRIFTS:
            raise UsageError(f"unknown matching {matching!r}", remedy=f"one of {', '.join(DRIFTS)}")
        if sides not in SIDES:
            raise UsageError(f"unknown sides {sides!r}", remedy=f"one of {', '.join(SIDES)}")
        self.vocabulary = TokenVocabulary.from_model(self.base.model)
        self.interventions = (
            default_intervention(self.base.model) if interventions == "auto" else interventions
        )
        check_edit(self.interventions, per_text, unit)
        if self.interventions == "mask" and self.vocabulary.mask_id is None:
            raise UsageError("the intervention 'mask' needs a mask token", remedy="use 'delete' or 'replace'")
        self.prompts = prompts or Prompts()
        self.per_text, self.unit, self.matching, self.sides = per_text, unit, matching, sides

    def forward(self, sentence_features: Iterable[Features], labels: Tensor | None = None) -> Tensor:
        """The loss of one batch: one encoding of texts and edited copies together, base from its cache."""
        columns = list(sentence_features)
        sides = self._draw_sides()
        edited = [
            edit_texts(
                columns[side],
                self.vocabulary,
                kind=self.interventions,
                per_text=self.per_text,
                unit=self.unit,
                protected=self.protected(columns[side], side, self.prompts),
            )
            for side in sides
        ]
        copies = [copy.features for copy in edited]
        embeddings = self.encode([*columns, *copies])
        now, after = embeddings[: len(columns)], embeddings[len(columns) :]
        device = embeddings[0].device
        base, after0 = self.base.embed(columns, device), self.base.embed(copies, device, remember=False)
        contrastive = self.contrast(now, labels)
        penalties = [
            self._penalty(side, edited[i], now, base, after[i], after0[i]) for i, side in enumerate(sides)
        ]
        return self.combine(contrastive, torch.stack(penalties).mean())

    def _draw_sides(self) -> tuple[int, ...]:
        if self.sides == "both":
            return (0, 1)
        if self.sides == "alternate":
            return (int(torch.randint(2, ())),)
        return (("anchor", "positive").index(self.sides),)

    def _penalty(
        self, side: int, edited: Edited, now: list[Tensor], base: list[Tensor], after: Tensor, after0: Tensor
    ) -> Tensor:
        """Relative drift over the texts of one side that could be edited."""
        measured = []
        for embeddings, intervened in ((now, after), (base, after0)):
            anchors, documents = anchors_and_documents(embeddings, self.pairs)
            # the text that is edited, and what it is matched with
            texts, others = (anchors, documents) if side == 0 else (documents[: len(anchors)], anchors)
            copies = functional.normalize(intervened.float(), dim=1)
            width = 1 if self.pairs == "diagonal" else len(others)
            against = others.repeat_interleave(self.per_text, 0) if self.pairs == "diagonal" else others
            scores = self.score(texts, others)
            measured += [scores, self.score(copies, against).view(len(scores), self.per_text, width)]
        scores, intervened, scores0, intervened0 = measured
        squared = drift(self.matching, scores, intervened, scores0, intervened0)
        if self.matching == "score":
            reference = intervened0 - intervened0.mean()
        else:
            reference = effects(scores0, intervened0)
        changed = edited.changed.view(len(scores), self.per_text)
        if not bool(changed.any()):
            return squared.sum() * 0.0
        return relative_drift(squared[changed], reference[changed])

    def get_config_dict(self) -> dict[str, Any]:
        """Settings for the model card."""
        names = ("interventions", "per_text", "unit", "matching", "sides")
        return {**super().get_config_dict(), **{name: getattr(self, name) for name in names}}

    @property
    def citation(self) -> str:
        """BibTeX of the idea and of the contrastive loss."""
        return (
            CONTRASTIVE_CITATION
            + """
@misc{bansal2022interventions,
    title={Using Interventions to Improve Out-of-Distribution Generalization of Text-Matching
           Recommendation Systems},
    author={Parikshit Bansal and Yashoteja Prabhu and Emre Kiciman and Amit Sharma},
    year={2022}, eprint={2210.10636}, archivePrefix={arXiv}
}
"""
        )


def default_intervention(model: Any) -> str:
    """``mask`` for contextual encoders with a mask token, ``delete`` for all others."""
    contextual = transformer_of(model) is not None
    return "mask" if contextual and TokenVocabulary.from_model(model).mask_id is not None else "delete"
