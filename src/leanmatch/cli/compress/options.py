"""What ``leanmatch compress`` is told, in words, as numbers."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from leanmatch.cli.compress.amounts import parse_ratio, parse_share, parse_size
from leanmatch.cli.compress.request import CompressRequest
from leanmatch.compression.planner.budget import Budget
from leanmatch.compression.planner.candidates import LINEAR_CANDIDATES
from leanmatch.compression.planner.clock import Workload, workload
from leanmatch.compression.planner.training import TrainingOptions
from leanmatch.compression.spec import CompressionSpec
from leanmatch.errors import UsageError

TASKS = ("match", "classify")
DEFAULT_MACS, DEFAULT_FASTER = 2.67, 1.5
DEFAULT_MINUTES = 10.0


@dataclass(frozen=True)
class CompressOptions:
    """Everything but model and data.

    Attributes:
        budget: size, multiply-adds, time, quality.
        workload: what time is measured on.
        spec: a specification instead.
        training: how long and how.
        asked: the budget for the record.
        identity: whatever decides the outcome; JSON values.
    """

    budget: Budget
    workload: Workload
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
    faster = None if request.faster is None else parse_ratio(request.faster, "faster")
    spec = None if request.spec is None else read_spec(request.spec)
    _check_menu(request)
    if request.start is not None:
        _check_start(request)
    if request.method == "int8":
        if macs is not None or faster is not None:
            raise UsageError(
                "int8 saves bytes, not multiply-adds or time",
                remedy="leave --macs and --faster out, or use --size",
            )
        if keep is None and size is None and spec is None:
            keep = 0.99
    minutes = request.minutes
    if minutes is None:
        minutes = 0.0 if request.method == "int8" else DEFAULT_MINUTES
    training = TrainingOptions(minutes=minutes, batch_size=request.batch_size, seed=request.seed)
    if request.lr is not None:
        training = replace(training, lr=request.lr)
    budget = Budget(keep=keep, size=size, macs=macs, faster=faster)
    chosen = workload(request.workload)
    options = {
        "task": request.task,
        "method": request.method,
        "budget": budget.to_json(),
        "workload": chosen.name,
        "spec": None if spec is None else spec.to_json(),
        "training": {name: value for name, value in asdict(training).items() if name != "checkpoint_seconds"},
    }
    return CompressOptions(budget, chosen, spec, training, budget.to_json(), {"options": options})


def default_budget(options: CompressOptions, clocked: bool) -> CompressOptions:
    """The options with a budget where the user gave none: less time; without a clock fewer multiply-adds."""
    if options.budget != Budget() or options.spec is not None:
        return options
    budget = Budget(faster=DEFAULT_FASTER) if clocked else Budget(macs=DEFAULT_MACS)
    return replace(options, budget=budget, asked=budget.to_json())


def _check_menu(request: CompressRequest) -> None:
    if request.plot is not None and not request.menu:
        raise UsageError("--plot draws the menu", remedy="add --menu")
    if request.menu and request.pick is not None:
        raise UsageError("--menu shows the rows, --pick takes one", remedy="give one of the two")
    if (request.menu or request.pick is not None) and request.spec is not None:
        raise UsageError("a specification leaves nothing to choose", remedy="leave --spec out")
    if (request.menu or request.pick is not None) and request.method not in ("stf", "post"):
        raise UsageError(
            f"the menu is for the methods stf and post (found {request.method})",
            remedy="leave --method out",
        )


def _check_start(request: CompressRequest) -> None:
    given = {
        "--size": request.size is not None,
        "--macs": request.macs is not None,
        "--faster": request.faster is not None,
        "--spec": request.spec is not None,
        "--menu": request.menu,
        "--pick": request.pick is not None,
        "--method": request.method != "stf",
    }
    refused = [name for name, is_given in given.items() if is_given]
    if refused:
        raise UsageError(
            f"a model to go on from (--from) keeps the forms of its layers, and so its bytes and its speed: "
            f"{', '.join(refused)} cannot change them",
            remedy=f"leave {', '.join(refused)} out, or --from",
        )


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
