"""What ``leanmatch compress`` is told, in words, as numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from leanmatch.cli.compress.amounts import parse_ratio, parse_share, parse_size
from leanmatch.compression.planner.candidates import METHODS
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


def gather_options(flags: Mapping[str, Any]) -> CompressOptions:
    """Check the flags.

    Raises:
        UsageError: one that is out of range or not understood.
    """
    for name, valid in (("task", TASKS), ("method", tuple(METHODS))):
        if flags[name] not in valid:
            raise UsageError(f"there is no {name} {flags[name]!r}", remedy=f"one of {', '.join(valid)}")
    keep = None if flags["keep"] is None else parse_share(flags["keep"])
    size = None if flags["size"] is None else parse_size(flags["size"])
    macs = None if flags["macs"] is None else parse_ratio(flags["macs"])
    spec = None if flags["spec"] is None else read_spec(flags["spec"])
    if keep is None and size is None and macs is None and spec is None and flags["method"] != "int8":
        macs = DEFAULT_MACS
    if flags["method"] == "int8":
        if macs is not None:
            raise UsageError("int8 saves bytes, not multiply-adds", remedy="leave --macs out, or use --size")
        if keep is None and size is None and spec is None:
            keep = 0.99
    minutes = flags["minutes"]
    if minutes is None:
        minutes = 0.0 if flags["method"] == "int8" else DEFAULT_MINUTES
    chosen = {"lr": flags["lr"]} if flags["lr"] is not None else {}
    training = TrainingOptions(minutes=minutes, batch_size=flags["batch_size"], seed=flags["seed"], **chosen)
    budget = Budget(keep=keep, size=size, macs=macs)
    options = {
        "task": flags["task"],
        "method": flags["method"],
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
