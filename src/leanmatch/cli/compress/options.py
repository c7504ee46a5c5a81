"""What ``leanmatch compress`` is told, in words, as numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from leanmatch.compression.planner.candidates import METHODS
from leanmatch.compression.planner.plan import Budget
from leanmatch.compression.planner.training import TrainingOptions
from leanmatch.compression.spec import CompressionSpec
from leanmatch.errors import UsageError

TASKS = ("match", "classify")
UNITS = {"": 1, "b": 1, "kb": 1000, "mb": 1000**2, "gb": 1000**3, "kib": 1024, "mib": 1024**2, "gib": 1024**3}
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


def parse_share(text: str) -> float:
    """A share: 0.99 or 99%.

    >>> parse_share("99%")
    0.99
    """
    number = _number("keep", text.removesuffix("%"), "a share such as 0.99 or 99%")
    return number / 100 if text.endswith("%") else number


def parse_ratio(text: str) -> float:
    """How many times fewer: 2.67x or 2.67.

    >>> parse_ratio("2.67x")
    2.67
    """
    return _number("macs", text.lower().removesuffix("x"), "a ratio such as 2.67x")


def parse_size(text: str) -> int:
    """Bytes: 10MB is ten million, 10MiB 10 * 2^20.

    >>> parse_size("10MB"), parse_size("1.5 KiB"), parse_size("9000")
    (10000000, 1536, 9000)
    """
    found = re.fullmatch(r"\s*([0-9.]+)\s*([a-zA-Z]*)\s*", text)
    unit = found[2].lower() if found else "?"
    if found is None or unit not in UNITS:
        raise UsageError(f"--size must be a size such as 10MB (found {text!r})")
    return int(_number("size", found[1], "a size such as 10MB") * UNITS[unit])


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


def _number(name: str, text: str, wanted: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(f"--{name} must be {wanted} (found {text!r})")
    return number
