"""What ``leanmatch train`` is told: a configuration file, and flags that override it."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from leanmatch.cli.train.request import TrainRequest
from leanmatch.data import SplitOptions
from leanmatch.errors import UsageError
from leanmatch.training.options import RegularizerOptions, ScheduleOptions, TrainOptions

# What a configuration file may hold beside the sections, as the command has it among its options.
REGULARIZER = tuple(field.name for field in fields(RegularizerOptions) if field.name != "kind")
SCHEDULE = tuple(field.name for field in fields(ScheduleOptions))
SPLIT = tuple(field.name for field in fields(SplitOptions) if field.name != "seed")
SPLIT_NUMBERS = ("valid_fraction", "test_fraction")
SPLIT_TRUTHS = ("near_duplicates", "shared_positives")


def gather_options(request: TrainRequest) -> tuple[TrainOptions, SplitOptions]:
    """Options of the configuration file, overridden by those that were typed.

    The file has the names of :class:`~leanmatch.training.TrainOptions`, ``regularizer`` and ``schedule``
    being mappings (what they hold may also stand beside them), and those of :data:`SPLIT`. The seed serves
    the split, too.

    Raises:
        UsageError: unknown keys, values of the wrong type or out of range.
    """
    values = _read_config(request.config)
    names = [*(field.name for field in fields(TrainOptions)), *SPLIT, *REGULARIZER, *SCHEDULE]
    for name in values:
        if name not in names:
            raise UsageError(
                f"unknown option {name!r} in {request.config}", remedy=f"one of {', '.join(names)}"
            )
    split = {name: _split_value(name, values.pop(name)) for name in SPLIT if values.get(name) is not None}
    regularizer = _section(values, "regularizer", REGULARIZER) | _typed(request.regularizer)
    schedule = _section(values, "schedule", SCHEDULE) | _typed(request.schedule)
    top = {name: value for name, value in values.items() if name not in SPLIT} | _typed(request.options)
    sections = {
        "regularizer": regularizer,
        "schedule": schedule,
        "prompts": _section(top, "prompts", ()) | _typed(request.prompts),
    }
    options = TrainOptions.from_json({**top, **sections})
    return options, SplitOptions(**(split | _typed(request.split)), seed=options.schedule.seed)


def _typed(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were typed."""
    return {name: value for name, value in options.items() if value not in (None, [])}


def _section(values: dict[str, Any], name: str, members: Sequence[str]) -> dict[str, Any]:
    """A section, with what stands at the top level of the file; both are taken out of ``values``."""
    section = values.pop(name, None)
    if section is None:
        section = {}
    if not isinstance(section, dict):
        examples = {"regularizer": "kind: itv", "schedule": "epochs: 1", "prompts": "query: 'query: '"}
        example = examples[name]
        raise UsageError(
            f"option {name!r} must be a mapping (found {section!r})", remedy=f"{name}: {{{example}}}"
        )
    beside = {member: values.pop(member) for member in members if member in values}
    twice = sorted(beside.keys() & section.keys())
    if twice:
        raise UsageError(f"option {twice[0]!r} stands both in {name!r} and beside it", remedy="keep one")
    return {**section, **beside}


def _split_value(name: str, value: Any) -> Any:
    """A value as YAML gives it, as :class:`~leanmatch.data.SplitOptions` takes it."""
    if name == "hold_out":
        conditions = value if isinstance(value, list) else [value]
        if all(isinstance(condition, str) for condition in conditions):
            return tuple(conditions)
        wanted = "COLUMN=VALUE or a list of those"
    elif name in SPLIT_NUMBERS:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        wanted = "a number"
    elif name in SPLIT_TRUTHS:
        if isinstance(value, bool):
            return value
        wanted = "true or false"
    else:
        if isinstance(value, datetime.date):  # YAML makes dates of what looks like one
            return value.isoformat()
        if isinstance(value, str) or (name == "after" and type(value) in (int, float)):
            return str(value)
        wanted = "a date" if name == "after" else "a word"
    raise UsageError(f"option {name!r} must be {wanted} (found {value!r})")


def _read_config(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"there is no configuration file {path}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not YAML: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UsageError(f"{path} must hold a mapping of options (found {type(values).__name__})")
    return {name: _plain_number(value) for name, value in values.items()}


def _plain_number(value: Any) -> Any:
    """YAML 1.1 takes ``2e-5`` for text: it wants a point in the number."""
    if isinstance(value, dict):
        return {name: _plain_number(entry) for name, entry in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"the configuration has {value}, which is no finite number")
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", value):
        return float(value)
    return value
