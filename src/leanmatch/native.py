"""The compiled extension ``leanmatch._native``: loading it, what the CPU can do, which levels may run.

Kernels come in one file per instruction set; each belongs to a *level* ("portable", "avx2", ...), and the
best level that the CPU can run is chosen when a kernel is called. The environment variable ``LEANMATCH_CPU``
limits that choice to a level and those before it, so that tests can pin each one in turn; it is read at
every call.
"""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass
from types import ModuleType

from leanmatch.errors import LeanmatchError, UsageError

LIMIT_VARIABLE = "LEANMATCH_CPU"

_EXTENSION = "leanmatch._native"


class NativeError(LeanmatchError):
    """The compiled extension is not there or does not load."""


@dataclass(frozen=True)
class Variant:
    """One instruction-set level.

    Attributes:
        needs: features that the CPU must have, named as in Linux's ``/proc/cpuinfo``.
        runs: whether kernels of this level may run here and now.
        why_not: the reason where ``runs`` is false, else None.
    """

    needs: tuple[str, ...]
    runs: bool
    why_not: str | None = None


def load() -> ModuleType:
    """Import ``leanmatch._native``.

    Raises:
        NativeError: it was never built (a plain checkout), or it does not load; the message says which.
    """
    try:
        module = importlib.import_module(_EXTENSION)
        if module.__file__ is None:  # a folder of type stubs alone, which Python takes for a package
            raise ModuleNotFoundError(f"No module named {_EXTENSION!r}", name=_EXTENSION)
        return module
    except ModuleNotFoundError as error:
        if error.name != _EXTENSION:
            raise
        raise NativeError(
            f"the compiled extension {_EXTENSION} is not in {os.path.dirname(__file__)}: "
            "leanmatch runs from a source tree, or its files were copied without being built",
            remedy="pip install . in the source tree (needs a C++17 compiler)",
        ) from error
    except ImportError as error:
        raise NativeError(
            f"the compiled extension {_EXTENSION} does not load: {error}",
            remedy="build it again on this machine: pip install --force-reinstall --no-deps .",
        ) from error


def cpu_features() -> dict[str, bool]:
    """Feature name to whether it is usable: the CPU has it and the operating system saves its registers.

    Names are those of Linux's ``/proc/cpuinfo``. Empty on an architecture that has no probe.

    Raises:
        NativeError: the extension does not load.

    >>> set(cpu_features().values()) <= {True, False}
    True
    """
    features: dict[str, bool] = load().cpu_features()
    return features


def variants() -> dict[str, Variant]:
    """The levels of this build, slowest first, and which of them may run.

    A level runs when the CPU has everything it needs and ``LEANMATCH_CPU`` does not exclude it.

    Raises:
        NativeError: the extension does not load.
        UsageError: ``LEANMATCH_CPU`` names no level, or one that this CPU cannot run.

    >>> variants()["portable"]
    Variant(needs=(), runs=True, why_not=None)
    """
    module = load()
    return resolve_variants(module.levels(), module.cpu_features(), os.environ.get(LIMIT_VARIABLE))


def resolve_variants(
    levels: dict[str, tuple[str, ...]], features: dict[str, bool], limit: str | None
) -> dict[str, Variant]:
    """Apply features and a limit to a table of levels; the arithmetic behind :func:`variants`.

    Args:
        levels: level name to the features it needs, slowest first.
        features: feature name to usable.
        limit: the value of ``LEANMATCH_CPU``; None or "" for no limit.

    Raises:
        UsageError: ``limit`` is not in ``levels``, or the features do not allow it.

    >>> table = {"portable": (), "avx2": ("avx2", "fma"), "avx512": ("avx512f",)}
    >>> resolve_variants(table, {"avx2": True, "fma": True, "avx512f": True}, limit="avx2")["avx512"].why_not
    'excluded by LEANMATCH_CPU=avx2'
    """
    resolved: dict[str, Variant] = {}
    for name, needs in levels.items():
        missing = [feature for feature in needs if not features.get(feature, False)]
        why_not = f"the CPU or the operating system lacks {', '.join(missing)}" if missing else None
        resolved[name] = Variant(needs, runs=not missing, why_not=why_not)
    if not limit:
        return resolved
    choices = ", ".join(name for name, variant in resolved.items() if variant.runs)
    remedy = f"unset it, or choose one of: {choices}"
    if limit not in resolved:
        raise UsageError(f"{LIMIT_VARIABLE}={limit!r} is not a level of this build", remedy=remedy)
    if not resolved[limit].runs:
        raise UsageError(
            f"{LIMIT_VARIABLE}={limit} cannot run here: {resolved[limit].why_not}", remedy=remedy
        )
    names = list(resolved)
    for name in names[names.index(limit) + 1 :]:
        if resolved[name].runs:
            resolved[name] = Variant(levels[name], False, f"excluded by {LIMIT_VARIABLE}={limit}")
    return resolved
