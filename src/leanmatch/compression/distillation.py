"""Learning from the dense model: pure losses, and a wrapper that adds them to a task's own loss.

For matchers see :class:`leanmatch.training.losses.DistillationLoss`, which builds on these.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

from leanmatch.compression.calibration import output_tensors
from leanmatch.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor


def embedding_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """``mean_i (1 - cos(s_i, t_i))`` over rows ``(texts, dimension)``."""
    return (1 - functional.cosine_similarity(student.float(), teacher.float(), dim=1)).mean()


def similarity_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """``mean_ij (cos(s_i, s_j) - cos(t_i, t_j))^2`` over a batch's pairs (Tung, Mori, arXiv 1907.09682)."""
    s, t = functional.normalize(student.float(), dim=1), functional.normalize(teacher.float(), dim=1)
    return (s @ s.T - t @ t.T).square().mean()


def hidden_loss(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error of hidden states ``(texts, tokens, width)`` over real tokens, over the teacher's
    mean square.

    Args:
        student, teacher: hidden states of one layer.
        mask: ``(texts, tokens)``, 0 for padding.
    """
    real = mask.bool()
    s, t = student[real].float(), teacher[real].float()
    return (s - t).square().mean() / t.square().mean().clamp_min(1e-12)


def logit_loss(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """``T^2 KL(softmax(t / T) | softmax(s / T))``, mean over rows (Hinton et al., arXiv 1503.02531)."""
    s = functional.log_softmax(student.float() / temperature, dim=-1)
    t = functional.log_softmax(teacher.float() / temperature, dim=-1)
    return functional.kl_div(s, t, log_target=True, reduction="batchmean") * temperature**2


@dataclass(frozen=True)
class DistillationStrengths:
    """How much each part of :class:`Distilled`'s loss counts.

    Attributes:
        task: the model's own loss on labels.
        logits: :func:`logit_loss` of every output.
        hidden: :func:`hidden_loss`, mean over layers.
        temperature: of the logits.
    """

    task: float = 0.5
    logits: float = 0.5
    hidden: float = 0.0
    temperature: float = 2.0

    def __post_init__(self) -> None:
        for name in ("task", "logits", "hidden"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise UsageError(f"{name} must be at least 0 and finite (found {getattr(self, name)})")
        if self.task + self.logits + self.hidden == 0:
            raise UsageError(
                "all parts of the distillation have the strength 0", remedy="give one of them more"
            )
        if not 0 < self.temperature < float("inf"):
            raise UsageError(f"temperature must be above 0 and finite (found {self.temperature})")


class Distilled(nn.Module):
    """A classifier or question-answering model whose loss also looks at a frozen teacher's outputs.

    Give it to ``transformers.Trainer`` in the model's place, with ``remove_unused_columns=False`` because
    the trainer can't read its columns off this wrapper; ``self.model`` is the student. The teacher is no
    submodule: neither checkpoints nor optimizers see it.

    Args:
        model: the student, in training.
        teacher: the dense model; a frozen copy is taken.
        strengths: see :class:`DistillationStrengths`.
    """

    accepts_loss_kwargs = False
    """The trainer divides the loss by the number of accumulated batches."""

    def __init__(
        self, model: nn.Module, teacher: nn.Module, strengths: DistillationStrengths | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.strengths = strengths or DistillationStrengths()
        self.config: Any = getattr(model, "config", None)
        frozen = copy.deepcopy(teacher).eval()
        for parameter in frozen.parameters():
            parameter.requires_grad_(False)
        self._teacher = [frozen]

    def forward(self, **inputs: Any) -> Any:
        """The student's outputs, with the mixed loss in ``loss`` while it trains."""
        if not self.training:
            return self.model(**inputs)
        strengths = self.strengths
        wanted = {"output_hidden_states": True} if strengths.hidden else {}
        outputs = self.model(**inputs, **wanted)
        teacher = self._teacher[0]
        teacher.to(output_tensors(outputs)[0].device)
        unlabelled = {
            k: v for k, v in inputs.items() if k not in ("labels", "start_positions", "end_positions")
        }
        with torch.no_grad():
            target = teacher(**unlabelled, **wanted)
        loss: Any = 0.0
        if strengths.task:
            if outputs.get("loss") is None:
                raise UsageError("the task's loss needs labels", remedy="give labels, or task=0")
            loss = strengths.task * outputs["loss"]
        if strengths.logits:
            pairs = zip(output_tensors(outputs), output_tensors(target), strict=True)
            parts = [logit_loss(s, t, strengths.temperature) for s, t in pairs]
            loss = loss + strengths.logits * torch.stack(parts).mean()
        if strengths.hidden:
            mask = inputs["attention_mask"]
            states = zip(outputs["hidden_states"], target["hidden_states"], strict=True)
            loss = loss + strengths.hidden * torch.stack([hidden_loss(s, t, mask) for s, t in states]).mean()
        outputs["loss"] = loss
        if wanted:
            outputs["hidden_states"] = None
        return outputs
