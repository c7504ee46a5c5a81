"""The Straight-Through Factorizer: supports that are learned with values and atoms, on the task's loss.

Values and atoms are trained at every step, like any parameter. Supports change at refreshes. Between two
refreshes a shadow weight ``W^ + step`` gathers the straight-through gradient ``dL/dW^``, including the part
that the present atoms cannot express. A refresh pursues the shadow and takes a new support for the rows and
blocks that gain most, a bounded share of them.

After ``freeze`` of the run supports are final and only values and atoms are trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from leanmatch.compression.fitting.blocks import blocks_of, rows_of
from leanmatch.compression.layers import CompressedLayer
from leanmatch.compression.matrices import FactoredMatrix
from leanmatch.compression.stf.evidence import Evidence
from leanmatch.compression.stf.support import propose
from leanmatch.errors import ModelError, UsageError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class STFSchedule:
    """When supports change, and by how much.

    Attributes:
        every: steps between refreshes.
        freeze: share of the run after which supports are final.
        share: largest share of rows and blocks that swap at the first refresh; falls linearly to 0 at
            ``freeze``. 0 swaps nothing and gathers no evidence.
        margin: least gain of a swap, relative to the squared size of the row's block.
        step: length of the shadow's step: standard deviations of a block's weights for one standard deviation
            of the summed gradient.
    """

    every: int = 20
    freeze: float = 0.6
    share: float = 0.01
    margin: float = 0.01
    step: float = 0.1

    def __post_init__(self) -> None:
        if self.every < 1:
            raise UsageError(f"every must be at least 1 (found {self.every})")
        for name in ("freeze", "share"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} must be between 0 and 1 (found {getattr(self, name)})")
        for name in ("margin", "step"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise UsageError(f"{name} must be at least 0 and finite (found {getattr(self, name)})")


class STF:
    """Refreshes the supports of a model's factored linear layers while it is trained.

    Call :meth:`step` after every optimizer step, or give :meth:`callback` to a trainer. All state travels in
    the model's state dict: a run that loads it (and the optimizer's) goes on as it would have.

    Args:
        model: a model after :func:`leanmatch.compression.factorize`.
        schedule: when, and how much.
        total_steps: optimizer steps of the whole run; a trainer's callback knows them by itself.

    Raises:
        ModelError: the model has no trainable factored linear layer.
    """

    def __init__(
        self, model: nn.Module, schedule: STFSchedule | None = None, *, total_steps: int | None = None
    ) -> None:
        self.schedule = schedule or STFSchedule()
        self.total_steps = total_steps
        self.matrices: dict[str, FactoredMatrix] = {}
        for name, module in model.named_modules():
            if isinstance(module, CompressedLayer) and isinstance(module.factors, FactoredMatrix):
                if module.factors.finalized or not hasattr(module, "in_features"):
                    continue
                self.matrices[name] = module.factors
        if not self.matrices:
            raise ModelError(
                "the model has no factored linear layer in training",
                remedy="call factorize(model, spec) with method 'dense-sparse' or 'nm' first",
            )
        first = next(iter(self.matrices.values()))
        first.register_buffer("stf_steps", torch.zeros((), dtype=torch.int64))
        self._clock = first
        self.history: list[dict[str, float]] = []
        for matrix in self.matrices.values():
            if self.schedule.share and matrix.evidence is None:
                matrix.evidence = Evidence(matrix.shape, matrix.metric_or_identity())

    @property
    def steps(self) -> int:
        """Optimizer steps so far."""
        return int(self._clock.stf_steps)

    def step(self, optimizer: Any = None) -> None:
        """Count an optimizer step; refresh supports where one is due.

        Args:
            optimizer: the one that just stepped. The moments (Adam) of values whose atom changed start anew.
        """
        if self.total_steps is None:
            raise UsageError("STF needs the length of the run", remedy="STF(model, total_steps=...)")
        self._clock.stf_steps += 1
        done = self.steps
        last = int(self.schedule.freeze * self.total_steps)
        if done > last or (done % self.schedule.every and done != last):
            return
        self.refresh(done / max(1, last), optimizer)
        if done == last:
            for matrix in self.matrices.values():
                matrix.evidence = None

    def callback(self) -> Any:
        """A ``TrainerCallback`` that calls :meth:`step`, for ``transformers.Trainer`` and its descendants."""
        from leanmatch.compression.trainers import STFCallback

        return STFCallback(self)

    @torch.no_grad()
    def refresh(self, progress: float, optimizer: Any = None) -> dict[str, float]:
        """Change supports now.

        Args:
            progress: 0 at the start of the phase in which supports change, 1 at its end.
            optimizer: see :meth:`step`.
        """
        swapped = entries = 0
        for matrix in self.matrices.values():
            if self.schedule.share and matrix.evidence is not None and progress < 1:
                swapped += self._swap(matrix, progress, optimizer)
            entries += matrix.shape[0] * matrix.indices.shape[1]
        record = {"step": self.steps, "swapped": swapped / entries}
        self.history.append(record)
        return record

    def _swap(self, matrix: FactoredMatrix, progress: float, optimizer: Any) -> int:
        evidence = matrix.evidence
        assert evidence is not None
        weight = matrix.weight()
        swap = propose(
            weight,
            shadow_step(weight, evidence, self.schedule.step),
            matrix.indices,
            matrix.atoms_or_identity(),
            evidence.metric,
            margin=self.schedule.margin,
            share=self.schedule.share * (1 - progress),
        )
        evidence.reset()
        changed = swap.changed[..., None]
        moved = changed & (swap.indices != matrix.indices)
        matrix.values.copy_(torch.where(changed, swap.values, matrix.values))
        matrix.set_support(torch.where(changed, swap.indices, matrix.indices))
        forget_moments(optimizer, matrix.values, moved)
        return int(swap.changed.sum())


def shadow_step(weight: Tensor, evidence: Evidence, step: float) -> Tensor:
    """Where the gathered straight-through gradient wants the weight to go, ``(m, n)``.

    In the metric ``L``, ``z = sum_t G_t L^-T / sqrt(power)`` has standard deviation 1 in every entry where
    the gradients are noise, and grows with the number of steps where they agree. The step is ``-step rms(w
    L) z`` with the rms of each row and block, taken back by ``L^-1``. It does not depend on the loss's scale.
    """
    block = evidence.metric.shape[1]
    white = torch.bmm(blocks_of(weight, block), evidence.metric)
    total = blocks_of(evidence.total, block)
    # G L^-T: solve X L^T = G
    total = torch.linalg.solve_triangular(evidence.metric.transpose(1, 2), total, upper=True, left=False)
    spread = white.square().mean(2).sqrt() / evidence.power.T.sqrt().clamp_min(1e-30)
    moved = -step * total * spread[:, :, None]
    return rows_of(torch.linalg.solve_triangular(evidence.metric, moved, upper=False, left=False))


def forget_moments(optimizer: Any, parameter: nn.Parameter, entries: Tensor) -> None:
    """Reset an optimizer's state of some entries: momentum to 0, squares to the parameter's mean."""
    state = getattr(optimizer, "state", {}).get(parameter, {}) if optimizer is not None else {}
    for name, value in state.items():
        if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
            value[entries] = value.mean() if "sq" in name else 0.0
