"""ITVReg: keep each token's causal effect on the relevance score near the base model's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

from leanmatch.errors import UsageError
from leanmatch.interventions.edits import Edited, check_edit, edit_texts
from leanmatch.interventions.effects import DRIFTS, drift, effects, relative_drift
from leanmatch.interventions.words.vocabulary import TokenVocabulary
from leanmatch.models import DOCUMENT, Prompts
from leanmatch.models.adapter import tokenize, transformer_of
from leanmatch.trainer.parallel import unwrapped
from leanmatch.training.features import Features, count_rows, take
from leanmatch.training.losses.contrastive import CONTRASTIVE_CITATION
from leanmatch.training.losses.outreg import RegularizedLoss
from leanmatch.training.options import DEFAULT_WEIGHT, SIDES, RegularizerOptions, check_per_text

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class _View:
    """Edited copies of a column's texts; of those in ``rows``, or of all where it is None."""

    side: int
    rows: Tensor | None
    edited: Edited


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
        per_text: edited copies of each text. One costs about half a plain step for each side. Below 1, a
            random share of the batch's texts gets a copy.
        unit: ``token`` or ``word``.
        matching: ``score`` (ahead of the others in docs/results/ood.md), ``effect`` or ``one-sided``.
        pairs: ``all`` or ``diagonal``.
        sides: ``anchor``, ``positive``, ``both``, or ``alternate``: one of the two, drawn for each step.
        contrastive, mini_batch_size, dimensions: see :class:`~leanmatch.training.losses.PlainLoss`. Each
            prefix of the vectors is kept near the effects of the base's whole vectors.
        prompts: what the trainer puts before anchors (queries) and positives (documents), None for nothing.
            Their tokens are never intervened on.
        target: texts without labels. Where there are any, they are regularized on (among themselves) in place
            of the batch's own texts, so that the training pairs may change what they need to.
    """

    def __init__(
        self,
        model: Any,
        base: Any,
        *,
        weight: float = DEFAULT_WEIGHT,
        interventions: str = RegularizerOptions.interventions,
        per_text: float = RegularizerOptions.per_text,
        unit: str = RegularizerOptions.unit,
        matching: str = RegularizerOptions.matching,
        pairs: str = RegularizerOptions.pairs,
        sides: str = RegularizerOptions.sides,
        contrastive: nn.Module | Callable[[Any], nn.Module] | None = None,
        mini_batch_size: int | None = None,
        dimensions: Sequence[int] | None = None,
        prompts: Prompts | None = None,
        target: Sequence[str] = (),
    ) -> None:
        super().__init__(
            model,
            base,
            weight=weight,
            pairs=pairs,
            contrastive=contrastive,
            mini_batch_size=mini_batch_size,
            dimensions=dimensions,
        )
        if matching not in DRIFTS:
            raise UsageError(f"unknown matching {matching!r}", remedy=f"one of {', '.join(DRIFTS)}")
        if sides not in SIDES:
            raise UsageError(f"unknown sides {sides!r}", remedy=f"one of {', '.join(SIDES)}")
        self.vocabulary = TokenVocabulary.from_model(self.base.model)
        self.interventions = (
            default_intervention(self.base.model) if interventions == "auto" else interventions
        )
        check_per_text(per_text)
        check_edit(self.interventions, math.ceil(per_text), unit)
        if self.interventions == "mask" and self.vocabulary.mask_id is None:
            raise UsageError("the intervention 'mask' needs a mask token", remedy="use 'delete' or 'replace'")
        self.prompts = prompts or Prompts()
        self.per_text, self.unit, self.matching, self.sides = per_text, unit, matching, sides
        self.target = list(target)
        if len(self.target) == 1:
            raise UsageError("one target text has nothing to be compared with", remedy="give several")

    def forward(self, sentence_features: Iterable[Features], labels: Tensor | None = None) -> Tensor:
        """The loss of one batch: one encoding of texts and edited copies together, base from its cache."""
        columns = list(sentence_features)
        count = len(columns)
        columns, views = self.drawn(lambda: self._intervene(columns))
        embeddings = self.encode([*columns, *(view.edited.features for view in views)])
        device = embeddings[0].device
        base = [self._base_scores(columns, view, device) for view in views]
        contrastives, penalties = [], []
        for some in self.prefixes(embeddings):
            now, after = some[: len(columns)], some[len(columns) :]
            contrastives.append(self.contrast(now[:count], labels))
            penalties += [
                self._penalty(view, now, copies, *scores)
                for view, copies, scores in zip(views, after, base, strict=True)
            ]
        return self.combine(contrastives, penalties)

    def _intervene(self, columns: list[Features]) -> tuple[list[Features], list[_View]]:
        """The columns, target texts behind them where there are any, and edited copies of some texts."""
        if not self.target:
            return columns, [self._view(columns, side) for side in self._draw_sides()]
        columns = [*columns, self._draw_target(count_rows(columns[0]), columns[0])]
        return columns, [self._view(columns, len(columns) - 1)]

    def _draw_sides(self) -> tuple[int, ...]:
        if self.sides == "both":
            return (0, 1)
        if self.sides == "alternate":
            return (int(torch.randint(2, ())),)
        return (("anchor", "positive").index(self.sides),)

    def _draw_target(self, rows: int, like: Features) -> Features:
        """As many target texts as are regularized on, tokenized as documents."""
        rows = min(max(2, round(self.per_text * rows)), len(self.target))
        drawn = torch.randperm(len(self.target))[:rows].tolist()
        texts = [self.target[number] for number in drawn]
        prompt = self.prompts.of_role(DOCUMENT)
        features = tokenize(unwrapped(self.model), texts, prompt=prompt, role=DOCUMENT)
        return {
            name: value.to(self._device) if isinstance(value, torch.Tensor) else value
            for name, value in features.items()
        }

    def _view(self, columns: list[Features], side: int) -> _View:
        """Edit texts of a column: all, or a random share of them where ``per_text`` is below 1."""
        column, rows = columns[side], None
        if self.per_text < 1 and not self.target:
            texts = count_rows(column)
            rows = torch.randperm(texts)[: max(1, round(self.per_text * texts))].sort().values
            rows = rows.to(self._device)
            column = take(column, rows)
        edited = edit_texts(
            column,
            self.vocabulary,
            kind=self.interventions,
            per_text=max(1, int(self.per_text)),
            unit=self.unit,
            protected=self.protected(columns[side], side, self.prompts),
        )
        return _View(side, rows, edited)

    def _base_scores(
        self, columns: list[Features], view: _View, device: torch.device
    ) -> tuple[list[int], Tensor, Tensor]:
        """The columns that a view's texts are compared with, and the base's scores of texts and copies."""
        others = [view.side] if self.target else [0] if view.side else [*range(1, len(columns))]
        texts = {view.side, *others} if self.matching != "score" else set(others)
        if self.pairs == "diagonal":
            others = others[:1]
        order = sorted(texts)
        *frozen, copies = self.base.embed([columns[i] for i in order], device, edited=[view.edited.features])
        return others, *self._scores(view, others, dict(zip(order, frozen, strict=True)), copies)

    def _penalty(
        self,
        view: _View,
        embeddings: list[Tensor],
        copies: Tensor,
        others: list[int],
        scores0: Tensor,
        intervened0: Tensor,
    ) -> Tensor:
        """Relative drift over the texts of one column that could be edited."""
        scores, intervened = self._scores(view, others, dict(enumerate(embeddings)), copies)
        squared = drift(self.matching, scores, intervened, scores0, intervened0)
        if self.matching == "score":
            reference = intervened0 - intervened0.mean()
        else:
            reference = effects(scores0, intervened0)
        changed = view.edited.changed.view(len(intervened), -1)
        if not bool(changed.any()):
            return squared.sum() * 0.0
        return relative_drift(squared[changed], reference[changed])

    def _scores(
        self, view: _View, others: list[int], embeddings: Mapping[int, Tensor], copies: Tensor
    ) -> tuple[Tensor, Tensor]:
        """``(n, m)`` scores of the texts, which only effects need, and ``(n, c, m)`` of their copies."""
        against = functional.normalize(torch.cat([embeddings[i] for i in others]).float(), dim=1)
        if self.pairs == "diagonal" and view.rows is not None:
            against = against[view.rows]
        each = max(1, int(self.per_text))
        edited = functional.normalize(copies.float(), dim=1)
        matched = against.repeat_interleave(each, 0) if self.pairs == "diagonal" else against
        intervened = self.score(edited, matched).view(len(edited) // each, each, -1)
        if self.matching == "score":
            return intervened[:, 0], intervened
        texts = embeddings[view.side]
        texts = functional.normalize((texts if view.rows is None else texts[view.rows]).float(), dim=1)
        return self.score(texts, against), intervened

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
