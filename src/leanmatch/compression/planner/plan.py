"""The budget planner: measure each layer, choose within a budget, train, check on held-out pairs, try again.

::

    measure     harm of each choice of each layer, alone                        planner.sensitivity
    choose      one a layer, least harm within the budget                       planner.allocation
    train       straight-through factorization or a rival, for some minutes     planner.training
    check       the metric on held-out pairs against the dense model's

With ``keep`` the leanest rung of :data:`RUNGS` is looked for whose trained model keeps that share of the
metric: the first guess comes from one-shot models, a rung that misses is followed by a roomier one. One-shot
models count as well: the result is the best of all states that were evaluated (attempts).
"""

from __future__ import annotations

import copy
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch

from leanmatch.compression.calibration import Calibration
from leanmatch.compression.convert import Factored, compressed_layers, factorize, finalize
from leanmatch.compression.layer_specs import RoundingSpec
from leanmatch.compression.matrices import FactoredMatrix
from leanmatch.compression.patterns import default_spec
from leanmatch.compression.planner.allocation import allocate
from leanmatch.compression.planner.attempts import Attempt, best_attempt, rungs_to_train
from leanmatch.compression.planner.candidates import Group, groups_of
from leanmatch.compression.planner.quality import compare
from leanmatch.compression.planner.sensitivity import (
    CALIBRATION_TEXTS,
    Sensitivity,
    calibration_of,
    group_spec,
)
from leanmatch.compression.planner.tasks import Task
from leanmatch.compression.planner.training import TrainingOptions, train_factors
from leanmatch.compression.spec import CompressionSpec
from leanmatch.compression.stf.factorizer import STF
from leanmatch.errors import ModelError, UsageError
from leanmatch.factorization.cost import STORED_FLOAT_BITS, dense_cost
from leanmatch.files import write_json
from leanmatch.metrics.pace import in_words
from leanmatch.trainer.checkpoints import load_weights, save_weights

Rung: TypeAlias = tuple[str, CompressionSpec]
"""A budget in words, and what it is met with."""
RUNGS = (6.0, 5.0, 4.3, 3.7, 3.2, 2.9, 2.67, 2.4, 2.2, 2.0, 1.8, 1.6, 1.4, 1.2)
"""Ratios of multiply-adds that ``keep`` tries, the leanest first."""
BYTE_RUNGS = (2.0, 1.75, 1.5, 1.3, 1.15, 1.0)
"""The same for ``int8``, which saves bytes only: ratios to the bytes of int8 throughout."""
RECOVERED = 4.0
"""First guess of ``keep``: training wins back all but this part of what one shot loses."""
MOST_ATTEMPTS = 3
PARTS = ("measuring", "factors", "training", "judging")
"""What the planner's time goes to."""
TIE = 1e-12
"""Harm of a byte: between equally harmless choices the smaller one is taken."""


@dataclass(frozen=True)
class Budget:
    """What the user asks for; at least one field, or a specification beside it.

    Attributes:
        keep: share of the metric that must remain, above 0 and at most 1.
        size: bytes of all weights, those left alone included.
        macs: how many times fewer multiply-adds the encoder's linear layers take, above 1.
    """

    keep: float | None = None
    size: int | None = None
    macs: float | None = None

    def __post_init__(self) -> None:
        if self.keep is not None and not 0 < self.keep <= 1:
            raise UsageError(
                f"keep must be above 0 and at most 1 (found {self.keep})", remedy="for example 0.99"
            )
        if self.size is not None and self.size <= 0:
            raise UsageError(
                f"there is no room for weights in the size that was asked for ({self.size:,} bytes)"
            )
        if self.macs is not None and not 1 < self.macs < float("inf"):
            raise UsageError(
                f"macs must be above 1 and finite (found {self.macs})", remedy="for example 2.67x"
            )


@dataclass
class Planned:
    """The outcome.

    Attributes:
        model: the compressed model, final.
        chosen: the state that ``model`` has: no other one that meets the request is better.
        attempts: every state that was evaluated, in order; some after one shot, some after training.
        reached: the quality asked for was reached, or none was asked for.
        measured: harm of each group's candidates, by group.
        seconds: by the clock, of this call alone, for each of :data:`PARTS`.
    """

    model: Any
    chosen: Attempt
    attempts: list[Attempt]
    reached: bool
    measured: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


class Planner:
    """Compresses a model within a budget.

    Args:
        model: the dense model.
        task: texts, loss and score.
        folder: for measurements and checkpoints; the same call continues what is there.
        method: one of :data:`leanmatch.compression.planner.candidates.LINEAR_CANDIDATES`.
        training: how long and how.
        report: gets a sentence whenever something was decided.
        progress: bars on stderr.

    Raises:
        ModelError: the model is compressed already.
    """

    def __init__(
        self,
        model: Any,
        task: Task,
        folder: Path,
        *,
        method: str = "stf",
        training: TrainingOptions | None = None,
        report: Callable[[str], None] = lambda message: None,
        progress: bool = True,
    ) -> None:
        if compressed_layers(model):
            raise ModelError(
                f"the model is compressed already ({len(compressed_layers(model))} layers)",
                remedy="compress the model that it was made from",
            )
        self.model, self.task, self.folder, self.method = model, task, folder, method
        self.training = training or TrainingOptions()
        self.report, self.progress = report, progress
        self._seconds: dict[str, float] = dict.fromkeys(PARTS, 0.0)
        self._dense = self._baseline()
        self._calibration: Calibration | None = None
        self._factors: Factored = {}

    def run(self, budget: Budget, spec: CompressionSpec | None = None) -> Planned:
        """Plan, train and check.

        Args:
            budget: see :class:`Budget`.
            spec: compress as it says, nothing is planned; ``budget`` may ask for a quality only.

        Raises:
            UsageError: nothing is asked for, or a budget that no choice of candidates meets.
        """
        if spec is not None:
            if budget.size is not None or budget.macs is not None:
                raise UsageError("a specification leaves nothing to plan", remedy="leave size and macs out")
            self._calibrate(spec)
            return self._best_of([("as specified", spec)], budget.keep)
        if budget == Budget():
            raise UsageError("there is no budget", remedy="give keep, size or macs, or a specification")
        groups = groups_of(self.model, planned_layers(self.model), self.method)
        if budget.size is None and self.method != "int8":  # tables cost no multiply-adds: int8 does no harm
            groups = [_rounded(group) if group.embedding else group for group in groups]
        harm = self._measure(groups)
        if budget.size is not None or budget.macs is not None:
            planned = self._best_of([self._rung_within(groups, harm, budget)], budget.keep)
        else:
            planned = self._best_of(self._ladder(groups, harm), budget.keep, climb=True)
        planned.measured = {
            group.name: [
                {"harm": loss, "bytes": c.bytes, "macs": c.macs, "spec": c.spec.to_json()}
                for loss, c in zip(losses, group.candidates, strict=True)
            ]
            for group, losses in zip(groups, harm, strict=True)
        }
        return planned

    def _baseline(self) -> Any:
        self.report(f"measuring the dense model's {self.task.metric} on held-out data")
        scores = self._scores(self.model)
        if not np.isfinite(scores).all() or float(scores.mean()) <= 0:
            raise ModelError(
                f"the dense model's {self.task.metric} on the held-out data is {float(scores.mean()):.4f}",
                remedy="its quality cannot be kept: check model and data",
            )
        return scores

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        begun = time.monotonic()
        yield
        self._seconds[part] += time.monotonic() - begun

    def _scores(self, model: Any) -> Any:
        with self._timed("judging"):
            return self.task.scores(model)

    def _measure(self, groups: Sequence[Group]) -> list[list[float]]:
        with self._timed("measuring"):
            sensitivity = Sensitivity(self.model, self._texts(), self.folder, tokenizer=self.task.tokenizer)
            self._calibration = self._gather(groups)
            return sensitivity.measure(groups, self._calibration, progress=self.progress)

    def _calibrate(self, spec: CompressionSpec) -> None:
        self._calibration = self._gather(groups_of(self.model, spec, "int8"))

    def _gather(self, groups: Sequence[Group]) -> Calibration:
        fisher = self.method == "fwsvd"
        return calibration_of(self.model, groups, self._texts(), tokenizer=self.task.tokenizer, fisher=fisher)

    def _texts(self) -> list[str]:
        """A fixed random sample of the training texts."""
        order = np.random.default_rng(0).permutation(len(self.task.texts))[:CALIBRATION_TEXTS]
        return [self.task.texts[row] for row in order]

    def _rung_within(
        self, groups: Sequence[Group], harm: Sequence[Sequence[float]], budget: Budget
    ) -> tuple[str, CompressionSpec]:
        words = []
        if budget.size is not None:
            words.append(f"{budget.size:,} bytes")
        if budget.macs is not None:
            words.append(f"{budget.macs:g}x fewer multiply-adds")
        size = None if budget.size is None else budget.size - self._other_bytes(groups)
        if size is not None and size <= 0:
            raise UsageError(
                f"{budget.size:,} bytes are fewer than the {self._other_bytes(groups):,} left as they are"
            )
        picks = pick_candidates(groups, harm, size=size, macs=budget.macs)
        return " and ".join(words), _spec_of(groups, picks)

    def _ladder(self, groups: Sequence[Group], harm: Sequence[Sequence[float]]) -> list[Rung]:
        rungs: list[Rung] = []
        whole = sum(next(c.bytes for c in g.candidates if c.spec == RoundingSpec()) for g in groups)
        for ratio in BYTE_RUNGS if self.method == "int8" else RUNGS:
            try:
                if self.method == "int8":
                    size = int(whole / ratio)
                    picks, label = pick_candidates(groups, harm, size=size), f"{size:,} bytes"
                else:
                    picks = pick_candidates(groups, harm, macs=ratio)
                    label = f"{ratio:g}x fewer multiply-adds"
            except UsageError:  # leaner than any choice of candidates
                continue
            rungs.append((label, _spec_of(groups, picks)))
        return rungs

    def _best_of(self, rungs: list[Rung], keep: float | None, *, climb: bool = False) -> Planned:
        """Evaluate rungs after one shot and after training; the best state of all is the result.

        Args:
            rungs: the leanest first.
            keep: share of the metric that is asked for.
            climb: the leanest rung that keeps so much is wanted, and a rung that does so needs no training.
        """
        attempts: dict[tuple[int, bool], Attempt] = {}
        for rung in self._first_guess(rungs, keep or 1.0, attempts) if climb else range(len(rungs)):
            shot = self._one_shot(rung, rungs[rung], attempts)
            if climb and shot.meets(keep):
                self.report(f"{shot.label}: no training is needed")
                break
            if self._trains:
                attempts[rung, True] = attempt = self._attempt(rung, rungs[rung])
                self.report(f"{attempt.label}, trained: {attempt.quality.sentence()}")
                if climb and attempt.meets(keep):
                    break
        chosen = best_attempt(list(attempts.values()), keep, leanest=climb)
        if len(attempts) > 1:
            how = "trained" if chosen.trained else "one shot"
            self.report(f"of {len(attempts)} evaluated states the result is: {chosen.label}, {how}")
        model = self._state(chosen)
        spent = ", ".join(f"{part} {seconds:.0f} s" for part, seconds in self._seconds.items())
        self.report(f"time: {spent}")
        return Planned(
            model, chosen, list(attempts.values()), chosen.meets(keep), seconds=dict(self._seconds)
        )

    @property
    def _trains(self) -> bool:
        steps, minutes = self.training.steps, self.training.minutes
        return bool(minutes if steps is None else steps)

    def _first_guess(
        self, rungs: list[Rung], keep: float, attempts: dict[tuple[int, bool], Attempt]
    ) -> list[int]:
        """Rungs from the leanest that training may lift to ``keep`` on; found by halving, one shot each."""
        allowed = 1 - RECOVERED * (1 - keep) if self._trains else keep
        low, high = 0, len(rungs) - 1
        while low < high:
            middle = (low + high) // 2
            kept = self._one_shot(middle, rungs[middle], attempts).quality.kept
            low, high = (low, middle) if kept >= allowed else (middle + 1, high)
        safe = min((a.rung for a in attempts.values() if a.meets(keep)), default=None)
        return rungs_to_train(low, safe, len(rungs) - 1, MOST_ATTEMPTS)

    def _factorize(self, model: Any, spec: CompressionSpec) -> None:
        with self._timed("factors"):
            factorize(model, spec, calibration=self._calibration, progress=self.progress, cache=self._factors)

    def _one_shot(
        self, rung: int, budget_and_spec: Rung, attempts: dict[tuple[int, bool], Attempt]
    ) -> Attempt:
        """The rung's first factors, evaluated once; ``attempts`` gets the result."""
        if (rung, False) not in attempts:
            label, spec = budget_and_spec
            file = self.folder / f"one-shot-{rung}.json"
            if not file.exists():
                model = copy.deepcopy(self.model)
                self._factorize(model, spec)
                finalize(model)
                errors, scores = layer_errors(self.model, model), self._scores(model)
                write_json(file, {"scores": scores.tolist(), "errors": errors})
            record = json.loads(file.read_text())
            quality = compare(self.task.metric, self._dense, np.array(record["scores"]))
            attempts[rung, False] = Attempt(
                rung, label, spec, quality, record["errors"], {"steps": 0, "loss": None}
            )
            self.report(f"one shot at {label}: {quality.sentence()}")
        return attempts[rung, False]

    def _attempt(self, rung: int, budget_and_spec: Rung) -> Attempt:
        """The rung after training; the state is kept in the folder."""
        label, spec = budget_and_spec
        folder = self.folder / f"attempt-{rung}"
        folder.mkdir(exist_ok=True)
        done, result = folder / "final.safetensors", folder / "training.json"
        model = copy.deepcopy(self.model)
        self._factorize(model, spec)
        if done.exists():
            self._load(model, done)
            history = json.loads(result.read_text())
        else:
            learned = self.method == "stf" and any(
                isinstance(layer.factors, FactoredMatrix) and hasattr(layer, "in_features")
                for layer in compressed_layers(model).values()
            )
            if self.training.steps is None:
                self.report(f"{label}: training takes about {in_words(60 * self.training.minutes)}")
            with self._timed("training"):
                history = train_factors(
                    model,
                    self.model,
                    self.task,
                    self.training,
                    folder,
                    stf=(lambda factored, steps: STF(factored, total_steps=steps)) if learned else None,
                    description=f"training, {label}",
                )
            finalize(model)
            write_json(result, history)
            save_weights(done, model.state_dict())
            for checkpoint in folder.glob("checkpoint-*"):
                shutil.rmtree(checkpoint)
        quality = compare(self.task.metric, self._dense, self._scores(model))
        return Attempt(rung, label, spec, quality, layer_errors(self.model, model), history)

    def _state(self, attempt: Attempt) -> Any:
        """The model of an attempt, made again: factors are kept, trained weights lie in the folder."""
        model = copy.deepcopy(self.model)
        self._factorize(model, attempt.spec)
        if attempt.trained:
            self._load(model, self.folder / f"attempt-{attempt.rung}" / "final.safetensors")
        else:
            finalize(model)
        return model.eval()

    @staticmethod
    def _load(model: Any, file: Path) -> None:
        finalize(model)
        model.load_state_dict(load_weights(file))

    def _other_bytes(self, groups: Sequence[Group]) -> int:
        """Bytes in an artifact of the parameters that no group holds."""
        inside = {f"{name}.weight" for group in groups for name in group.names}
        seen: set[int] = set()
        total = 0
        for name, value in self.model.named_parameters():
            if name not in inside and ".pooler." not in f".{name}" and id(value) not in seen:
                total += dense_cost(1, value.numel(), float_bits=STORED_FLOAT_BITS).bytes
                seen.add(id(value))
        return total


def _rounded(group: Group) -> Group:
    """The table with int8 as its only candidate."""
    return replace(group, candidates=tuple(c for c in group.candidates if c.spec == RoundingSpec()))


def planned_layers(model: Any) -> CompressionSpec:
    """Everything that is compressed by default: the encoder's linear layers, word and position embeddings."""
    table = RoundingSpec()
    return default_spec(model, embeddings=table, positions=table)


def pick_candidates(
    groups: Sequence[Group],
    harm: Sequence[Sequence[float]],
    *,
    size: int | None = None,
    macs: float | None = None,
) -> list[int]:
    """For each group the number of its candidate, with the least summed harm within the budget.

    With both limits, harm plus a price of multiply-adds is minimized within ``size``; the price is the lowest
    (found by bisection) that meets ``macs``. Without ``size``, tables are rounded to int8.

    Raises:
        UsageError: no choice meets the budget.
    """
    sizes = [[c.bytes for c in group.candidates] for group in groups]
    work = [[c.macs for c in group.candidates] for group in groups]
    losses = [
        [h + TIE * b for h, b in zip(*group_losses, strict=True)]
        for group_losses in zip(harm, sizes, strict=True)
    ]
    most = None if macs is None else int(sum(group.dense_macs for group in groups) / macs)
    if size is None:
        assert most is not None
        fixed = {
            number: next(i for i, c in enumerate(group.candidates) if c.spec == RoundingSpec())
            for number, group in enumerate(groups)
            if group.embedding
        }
        linear = [number for number in range(len(groups)) if number not in fixed]
        picks = allocate([losses[p] for p in linear], [work[p] for p in linear], most)
        return [dict(zip(linear, picks, strict=True)).get(p, fixed.get(p, 0)) for p in range(len(groups))]
    picks = allocate(losses, sizes, size)
    if most is None or _total(work, picks) <= most:
        return picks
    low, high, best = 0.0, 1.0, None
    for _ in range(60):
        price = high if best is None else (low + high) / 2
        priced = [
            [h + price * w for h, w in zip(*both, strict=True)] for both in zip(losses, work, strict=True)
        ]
        picks = allocate(priced, sizes, size)
        if _total(work, picks) <= most:
            best, high = picks, price
        elif best is None:
            low, high = high, 4 * high
        else:
            low = price
    if best is None:
        raise UsageError(
            f"no choice of layers has at most {size:,} bytes and {macs:g}x fewer multiply-adds",
            remedy="give one of the two more room",
        )
    return best


def _total(costs: Sequence[Sequence[int]], picks: Sequence[int]) -> int:
    return sum(cost[pick] for cost, pick in zip(costs, picks, strict=True))


def _spec_of(groups: Sequence[Group], picks: Sequence[int]) -> CompressionSpec:
    return group_spec(
        [(group, group.candidates[pick].spec) for group, pick in zip(groups, picks, strict=True)]
    )


def layer_errors(dense: Any, model: Any) -> dict[str, float]:
    """``|W - W^|^2 / |W|^2`` of each compressed layer, ``W`` being the dense model's weight."""
    errors = {}
    with torch.no_grad():
        for name, layer in compressed_layers(model).items():
            weight = dense.get_submodule(name).weight.float()
            lost = (weight - layer.factors.weight().to(weight)).square().sum()
            errors[name] = float(lost / weight.square().sum().clamp_min(1e-30))
    return errors
