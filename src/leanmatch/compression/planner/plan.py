"""The budget planner: measure each layer, choose within a budget, train, check on held-out pairs, try again.

::

    measure     time of each form on this machine                           planner.clock, candidates
                harm of each form of each layer, and of fewer encoder layers        planner.sensitivity
    choose      a form for each layer, and depth, least harm in budget     planner.choice, allocation
    make        healing, first factors, training for some minutes           planner.states
    check       the metric and agreement with the dense model               planner.quality, evidence

With ``keep`` alone the leanest rung is looked for whose trained model keeps that share of the metric. What
the first factors of one rung lose tells what its harm costs, and so which rung to take; at most
:data:`MOST_RUNGS` rungs get first factors. One-shot models count as well: the result is the best of all
states that were evaluated (:func:`leanmatch.compression.planner.attempts.best_attempt`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from torch import nn

from leanmatch.compression.convert import compressed_layers
from leanmatch.compression.layer_specs import LayerSpec, RoundingSpec
from leanmatch.compression.patterns import default_spec, model_type
from leanmatch.compression.planner.attempts import (
    LEAST_PRICE,
    PRICE,
    TRAINING_LEAVES,
    Attempt,
    best_attempt,
    leanest_rung,
)
from leanmatch.compression.planner.budget import Budget
from leanmatch.compression.planner.candidates import Group, dense_layers, groups_of
from leanmatch.compression.planner.choice import Choices, Plan
from leanmatch.compression.planner.clock import Clock
from leanmatch.compression.planner.depth import (
    Depth,
    architecture_of,
    encoder_layer_count,
    inside_transformer,
    layer_number,
)
from leanmatch.compression.planner.menu import Menu, make_menu
from leanmatch.compression.planner.sensitivity import (
    CALIBRATION_TEXTS,
    Sensitivity,
    calibration_of,
)
from leanmatch.compression.planner.states import States
from leanmatch.compression.planner.tasks import Task
from leanmatch.compression.planner.training import TrainingOptions
from leanmatch.compression.spec import CompressionSpec
from leanmatch.errors import ModelError, UsageError
from leanmatch.factorization.cost import STORED_FLOAT_BITS, dense_cost
from leanmatch.files import write_json
from leanmatch.metrics.pace import in_words
from leanmatch.models.architectures import ARCHITECTURES

MACS_RUNGS = (6.0, 5.0, 4.3, 3.7, 3.2, 2.9, 2.67, 2.4, 2.2, 2.0, 1.8, 1.6, 1.4, 1.2)
"""Ratios of multiply-adds that ``keep`` tries without a clock, the leanest first."""
SPEED_RUNGS = (3.0, 2.6, 2.3, 2.0, 1.8, 1.6, 1.45, 1.3, 1.15)
"""How many times as fast as int8: the ladder of ``keep`` with a clock."""
BYTE_RUNGS = (2.0, 1.75, 1.5, 1.3, 1.15, 1.0)
"""Ratios to the bytes of int8: where nothing saves time, or the method saves bytes only."""
WORTH = 1.05
"""Factors pay where the quickest model of them is at least so many times as fast as int8."""
MOST_RUNGS = 2
"""Rungs of ``keep`` that get first factors, and are trained."""
FACTORS_TO_MEASURING = 1.5
"""First factors take about so many times as long as measuring the layers: 0.6 to 3 in runs that were seen."""
Measured: TypeAlias = dict[str, list[dict[str, Any]]]
"""Harm and costs of each group's candidates, by group."""


@dataclass
class Planned:
    """The outcome.

    Attributes:
        model: the compressed model, final.
        chosen: the state that ``model`` has: no other one that meets the request is better.
        attempts: every state that was evaluated, in order; some after one shot, some after training.
        reached: the best estimate of the quality is what was asked for, or none was asked for.
        measured: harm of each group's candidates, by group.
        seconds: by the clock, of all calls of the run, for each part of the work.
        cpu_seconds: the same of processor time.
    """

    model: Any
    chosen: Attempt
    attempts: list[Attempt]
    reached: bool
    measured: Measured = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    cpu_seconds: dict[str, float] = field(default_factory=dict)


class Planner:
    """Compresses a model within a budget.

    Args:
        model: the dense model.
        task: texts, loss and score.
        folder: for measurements and checkpoints; the same call continues what is there.
        method: one of :data:`leanmatch.compression.planner.candidates.LINEAR_CANDIDATES`.
        training: how long and how.
        clock: measures time on this machine; None leaves time out.
        report: gets a sentence whenever something was decided.
        progress: bars on stderr.
        start: a compressed model to go on from, for :meth:`take`.

    Raises:
        ModelError: the model is compressed already, or has no quality that could be kept.
    """

    def __init__(
        self,
        model: Any,
        task: Task,
        folder: Path,
        *,
        method: str = "stf",
        training: TrainingOptions | None = None,
        clock: Clock | None = None,
        report: Callable[[str], None] = lambda message: None,
        progress: bool = True,
        start: Any = None,
    ) -> None:
        if compressed_layers(model):
            raise ModelError(
                f"the model is compressed already ({len(compressed_layers(model))} layers)",
                remedy="compress the model that it was made from",
            )
        self.model, self.task, self.folder, self.method = model, task, folder, method
        self.clock, self.report, self.progress = clock, report, progress
        self.states = States(
            model,
            task,
            folder,
            method=method,
            training=training or TrainingOptions(),
            report=report,
            progress=progress,
            start=start,
        )

    def run(self, budget: Budget, spec: CompressionSpec | None = None) -> Planned:
        """Plan, train and check.

        Args:
            budget: see :class:`Budget`.
            spec: compress as it says, nothing is planned; ``budget`` may ask for a quality only.

        Raises:
            UsageError: nothing is asked for, or a budget that no choice of candidates meets.
        """
        if spec is not None:
            if budget.limited:
                raise UsageError(
                    "a specification leaves nothing to plan", remedy="leave size, macs and faster out"
                )
            return self._best_of([Plan("as specified", spec)], budget.keep)
        if budget == Budget():
            raise UsageError(
                "there is no budget", remedy="give keep, size, macs or faster, or a specification"
            )
        rungs, measured = self._planned(budget)
        if budget.limited:
            self.report(f"plan: {self.words(rungs[0])}")
        planned = self._best_of(rungs, budget.keep, climb=not budget.limited)
        planned.measured = measured
        return planned

    def _planned(self, budget: Budget) -> tuple[list[Plan], Measured]:
        """One plan within the limits, or a ladder of them, and what they were chosen from.

        They are kept in the folder: times differ from one measurement to the next, and another plan would
        begin again where the first one was nearly trained.
        """
        limits = {name: getattr(budget, name) for name in ("size", "macs", "faster")}
        workload = None if self.clock is None else str(self.clock.workload)
        asked = json.dumps([limits, self.method, self.states.trains, workload], sort_keys=True)
        file = self.folder / f"plans-{hashlib.sha256(asked.encode()).hexdigest()[:12]}.json"
        if not file.exists():
            choices = self._choices(budget)
            plans = [choices.within(budget)] if budget.limited else self._ladder(choices)
            content = {"plans": [plan.to_json() for plan in plans], "measured": _measured(choices)}
            write_json(file, content)
        stored = json.loads(file.read_text(encoding="utf-8"))
        return [Plan.from_json(values) for values in stored["plans"]], stored["measured"]

    def menu(self, budget: Budget) -> Menu:
        """What could be had within the limits of ``budget``, before any training; :meth:`take` makes a row.

        It is kept in the folder: a second call gives the same rows.

        Raises:
            UsageError: a budget that no choice of candidates meets.
        """
        file = self.folder / "menu.json"
        if not file.exists():
            write_json(file, make_menu(self._choices(budget, menu=True), budget, self.states).to_json())
        return Menu.from_json(json.loads(file.read_text(encoding="utf-8")))

    def take(self, plan: Plan, keep: float | None = None) -> Planned:
        """Train and check one plan: a row of the menu, or that of a model to go on from."""
        return self._best_of([plan], keep)

    def words(self, plan: Plan) -> str:
        """A plan, for people."""
        dropped = (
            f", without encoder layers {', '.join(map(str, sorted(plan.dropped)))}" if plan.dropped else ""
        )
        time = ""
        if plan.faster is not None and self.clock is not None:
            time = f", {plan.faster:.2f}x as fast as int8 here ({self.clock.workload}, one core)"
        return f"{plan.label}: weights of {plan.bytes:,} bytes{time}{dropped}"

    def _choices(self, budget: Budget, *, menu: bool = False) -> Choices:
        if budget.faster is not None and self.clock is None:
            raise UsageError(
                "time can be planned for sentence encoders that the native runtime runs: this model is none",
                remedy="ask for macs, size or keep",
                command="use --macs, --size or --keep",
            )
        by_time = self.clock is not None and (menu or budget.faster is not None or not budget.limited)
        spec = planned_layers(self.model)
        with self.states.timed("measuring"):
            groups = groups_of(self.model, spec, self.method, self.clock if by_time else None)
            stay = dense_layers(self.model, groups)
            if stay:
                more = f" and {len(stay) - 3} more" if len(stay) > 3 else ""
                self.report(f"linear layers that stay dense: {', '.join(stay[:3])}{more}")
            if budget.size is None and not menu and self.method != "int8":
                groups = [_rounded(group) if group.embedding else group for group in groups]
            texts, tokenizer = self.states.sample(CALIBRATION_TEXTS), self.task.tokenizer
            sensitivity = Sensitivity(self.model, texts, self.folder, tokenizer=tokenizer)
            fisher = self.method == "fwsvd"
            counted = any(group.embedding and len(group.candidates) > 1 for group in groups)
            calibration = calibration_of(
                self.model,
                groups,
                texts,
                tokenizer=tokenizer,
                fisher=fisher,
                token_counts=self.states.token_counts if counted else None,
            )
            harm = sensitivity.measure(groups, calibration, progress=self.progress)
            heals = self.states.trains and self.method == "stf" and (menu or budget.limited)
            depths = sensitivity.depths(progress=self.progress) if heals else [Depth()]
        choices = Choices(
            groups=groups,
            harm=harm,
            depths=depths,
            other_bytes={len(depth.dropped): self._other_bytes(groups, depth) for depth in depths},
            architecture=architecture_of(self.model),
            encoder_layers=encoder_layer_count(self.model),
            clock=self.clock,
            measure=None if self.clock is None else self._faster,
        )
        if by_time and not choices.factors_pay(WORTH):
            self.report(
                "factors save no time on this CPU: "
                + (
                    "fewer encoder layers and fewer bytes are what remains"
                    if len(depths) > 1
                    else "bytes remain"
                )
            )
        return choices

    def _ladder(self, choices: Choices) -> list[Plan]:
        """Plans for ``keep`` alone, the leanest first."""
        whole = choices.int8_bytes
        budgets = [Budget(macs=ratio) for ratio in MACS_RUNGS]
        if self.method == "int8" or (choices.timed and not choices.factors_pay(WORTH)):
            budgets = [Budget(size=int(whole / ratio)) for ratio in BYTE_RUNGS]
        elif choices.timed:
            budgets = [Budget(faster=ratio) for ratio in SPEED_RUNGS]
        plans: dict[str, Plan] = {}
        for budget in budgets:
            try:
                plan = choices.within(budget, dropped=0, measure=False)
            except UsageError:  # leaner than any choice of candidates
                continue
            plans.setdefault(plan.key, plan)
        return list(plans.values())

    def _best_of(self, rungs: list[Plan], keep: float | None, *, climb: bool = False) -> Planned:
        """Evaluate rungs after one shot and after training; the best state of all is the result.

        Args:
            rungs: the leanest first.
            keep: share of the metric that is asked for.
            climb: the leanest rung that keeps so much is wanted, and a rung that does so needs no training.
        """
        states = self.states
        attempts: dict[tuple[int, bool], Attempt] = {}
        self._say_expected(MOST_RUNGS if climb else len(rungs))
        if climb:
            self._climb(rungs, keep or 1.0, attempts)
        else:
            for rung, plan in enumerate(rungs):
                self._one_shot(rung, plan, attempts)
                if states.trains:
                    attempts[rung, True] = states.trained(rung, plan)
        chosen = best_attempt(list(attempts.values()), keep, leanest=climb)
        if self.clock is not None:  # what the ladder expected from single layers, and plans of others
            chosen = replace(chosen, plan=replace(chosen.plan, faster=self._faster(chosen.plan)))
        if len(attempts) > 1:
            how = "trained" if chosen.trained else "one shot"
            self.report(f"of {len(attempts)} evaluated states the result is: {chosen.plan.label}, {how}")
        model = states.model_of(chosen)
        spent = ", ".join(f"{part} {seconds:.0f} s" for part, seconds in states.spent.seconds.items())
        self.report(f"time: {spent}")
        evaluated = [
            chosen if (rung, trained) == (chosen.rung, chosen.trained) else attempt
            for (rung, trained), attempt in attempts.items()
        ]
        return Planned(
            model,
            chosen,
            evaluated,
            chosen.meets(keep),
            seconds=dict(states.spent.seconds),
            cpu_seconds=dict(states.spent.cpu_seconds),
        )

    def _faster(self, plan: Plan) -> float:
        """How many times as fast as int8 the plan's model runs here."""
        assert self.clock is not None
        architecture = ARCHITECTURES[model_type(self.model)]
        left = encoder_layer_count(self.model) - len(plan.dropped)
        specs: dict[str, LayerSpec] = {}
        for name, module in self.model.named_modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                number, spec = layer_number(name, architecture), plan.spec.layer(name)
                if spec is not None and (number is None or number < left):
                    specs[inside_transformer(name, architecture)] = spec
        with self.states.timed("measuring"):
            return self.clock.faster(specs, left)

    def _say_expected(self, rungs: int) -> None:
        """How long one plan takes, and as many as there may be."""
        measuring = 0.0 if self.method == "int8" else self.states.spent.seconds["measuring"]
        factors = 0.0 if self.states.start is not None else FACTORS_TO_MEASURING * measuring
        training = self.states.training
        learning = 60 * training.minutes if self.states.trains and training.steps is None else 0.0
        parts = [f"first factors about {in_words(factors)}"] if factors else []
        parts += [f"training {in_words(learning)}"] if learning else []
        if parts:
            most = f"; at most {rungs} plans, {in_words(rungs * (factors + learning))}" if rungs > 1 else ""
            self.report(f"expected time: {', '.join(parts)}{most}")

    def _climb(self, rungs: list[Plan], keep: float, attempts: dict[tuple[int, bool], Attempt]) -> None:
        """Evaluate at most :data:`MOST_RUNGS` rungs: one of them is to keep ``keep``, as lean as may be."""
        harms, allowed, leaves = [plan.harm for plan in rungs], 1 - keep, 1.0
        if self.states.trains:
            leaves = TRAINING_LEAVES
        first = leanest_rung(harms, PRICE / TRAINING_LEAVES * leaves, allowed)
        price = _price(self._one_shot(first, rungs[first], attempts), harms[first])
        rung = leanest_rung(harms, leaves * price, allowed)
        if rung > first:  # there will be no further one: it must not need training
            rung = leanest_rung(harms, price, allowed)
        if self._reaches(rung, rungs, keep, attempts) or rung > first:
            return
        if rung == first:  # the next one is the last: it must not need training, either
            first = min(max(rung + 1, leanest_rung(harms, price, allowed)), len(rungs) - 1)
        if first != rung:
            self._reaches(first, rungs, keep, attempts)

    def _reaches(
        self, rung: int, rungs: list[Plan], keep: float, attempts: dict[tuple[int, bool], Attempt]
    ) -> bool:
        """Whether the rung keeps so much; it is trained only where its first factors do not."""
        shot = self._one_shot(rung, rungs[rung], attempts)
        if shot.meets(keep):
            self.report(f"{shot.plan.label}: no training is needed")
            return True
        if not self.states.trains:
            return False
        attempts[rung, True] = attempt = self.states.trained(rung, rungs[rung])
        return attempt.meets(keep)

    def _one_shot(self, rung: int, plan: Plan, attempts: dict[tuple[int, bool], Attempt]) -> Attempt:
        """The rung's first factors, evaluated once; ``attempts`` gets the result."""
        if (rung, False) not in attempts:
            attempts[rung, False] = self.states.one_shot(rung, plan)
        return attempts[rung, False]

    def _other_bytes(self, groups: Sequence[Group], depth: Depth) -> int:
        """Bytes in an artifact of the parameters that no group holds."""
        inside = {f"{name}.weight" for group in groups for name in group.names}
        architecture = architecture_of(self.model)
        seen: set[int] = set()
        total = 0
        for name, value in self.model.named_parameters():
            gone = architecture is not None and layer_number(name, architecture) in depth.dropped
            if name not in inside and not gone and ".pooler." not in f".{name}" and id(value) not in seen:
                total += dense_cost(1, value.numel(), float_bits=STORED_FLOAT_BITS).bytes
                seen.add(id(value))
        return total


def _price(attempt: Attempt, harm: float) -> float:
    """What a unit of harm cost of the metric."""
    return max(LEAST_PRICE, (1 - attempt.quality.reaches) / max(harm, 1e-9))


def _measured(choices: Choices) -> Measured:
    """Harm and costs of all candidates, by group."""
    return {
        group.name: [
            {
                "harm": float(loss),
                "bytes": c.bytes,
                "macs": c.macs,
                "seconds": c.seconds,
                "spec": c.spec.to_json(),
            }
            for loss, c in zip(losses, group.candidates, strict=True)
        ]
        for group, losses in zip(choices.groups, choices.harm, strict=True)
    }


def _rounded(group: Group) -> Group:
    """The table with int8 as its only candidate."""
    return replace(group, candidates=tuple(c for c in group.candidates if c.spec == RoundingSpec()))


def planned_layers(model: Any) -> CompressionSpec:
    """Everything that is compressed by default: the encoder's linear layers, word and position embeddings."""
    table = RoundingSpec()
    return default_spec(model, embeddings=table, positions=table)
