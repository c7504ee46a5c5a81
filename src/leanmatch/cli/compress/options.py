"""What ``leanmatch compress`` is told, in words, as numbers."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from leanmatch.cli.compress.amounts import parse_ratio, parse_share, parse_size
from leanmatch.cli.compress.request import CompressRequest
from leanmatch.compression.planner.candidates import LINEAR_CANDIDATES
from leanmatch.compression.planner.plan import Budget
from leanmatch.compression.planner.training import TrainingOptions
from leanmatch.compression.spec import CompressionSpec
from leanmatch.errors import UsageError

TASKS = ("match", "classify")
DEFAULT_MACS = 2.67
DEFAULT_MINUTES = 10.0


@dataclass(frozen=True)
class CompressOptions:
    """Everything but model and data.

    Attributes:
        budget: size, multiply-adds, quality.
        spec: a specification instead.
        training: how long and how.
        asked: the budget for the record.
        identity: whatever decides the outcome; JSON values.
    """

    budget: Budget
    spec: CompressionSpec | None
    training: TrainingOptions
    asked: dict[str, Any]
    identity: dict[str, Any]


def gather_options(request: CompressRequest) -> CompressOptions:
    """Check the request.

    Raises:
        UsageError: one that is out of range or not understood.
    """
    methods = tuple(LINEAR_CANDIDATES)
    for name, given, valid in (("task", request.task, TASKS), ("method", request.method, methods)):
        if given not in valid:
            raise UsageError(f"there is no {name} {given!r}", remedy=f"one of {', '.join(valid)}")
    keep = None if request.keep is None else parse_share(request.keep)
    size = None if request.size is None else parse_size(request.size)
    macs = None if request.macs is None else parse_ratio(request.macs)
    spec = None if request.spec is None else read_spec(request.spec)
    if keep is None and size is None and macs is None and spec is None and request.method != "int8":
        macs = DEFAULT_MACS
    if request.method == "int8":
        if macs is not None:
            raise UsageError("int8 saves bytes, not multiply-adds", remedy="leave --macs out, or use --size")
        if keep is None and size is None and spec is None:
            keep = 0.99
    minutes = request.minutes
    if minutes is None:
        minutes = 0.0 if request.method == "int8" else DEFAULT_MINUTES
    training = TrainingOptions(minutes=minutes, batch_size=request.batch_size, seed=request.seed)
    if request.lr is not None:
        training = replace(training, lr=request.lr)
    budget = Budget(keep=keep, size=size, macs=macs)
    options = {
        "task": request.task,
        "method": request.method,
        "budget": asdict(budget),
        "spec": None if spec is None else spec.to_json(),
        "training": {name: value for name, value in asdict(training).items() if name != "checkpoint_seconds"},
    }
    return CompressOptions(budget, spec, training, asdict(budget), {"options": options})


def read_spec(path: Path) -> CompressionSpec:
    """A specification file, JSON or YAML.

    Raises:
        UsageError: no such file, or none of a specification.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))  # JSON is YAML
    except FileNotFoundError:
        raise UsageError(f"there is no specification file {path}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is neither JSON nor YAML: {error}") from error
    return CompressionSpec.from_json(content)
