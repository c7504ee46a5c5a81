"""The torch-free encoder on the native kernels. ``leanmatch.load`` is the way in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from leanmatch.lazy import find_name

if TYPE_CHECKING:
    from leanmatch.runtime.encoder import Encoder as Encoder
    from leanmatch.runtime.fallback import FallbackEncoder as FallbackEncoder
    from leanmatch.runtime.fallback import FallbackWarning as FallbackWarning
    from leanmatch.runtime.loading import load as load
    from leanmatch.runtime.path_choice import LayerChoice as LayerChoice
    from leanmatch.runtime.paths import PRECISIONS as PRECISIONS
    from leanmatch.runtime.tables import runtime_choices as runtime_choices

_HOMES = {
    "PRECISIONS": "paths",
    "Encoder": "encoder",
    "FallbackEncoder": "fallback",
    "FallbackWarning": "fallback",
    "LayerChoice": "leanmatch.runtime.path_choice",
    "load": "loading",
    "runtime_choices": "tables",
}
__all__ = [
    "PRECISIONS",
    "Encoder",
    "FallbackEncoder",
    "FallbackWarning",
    "LayerChoice",
    "load",
    "runtime_choices",
]


def __getattr__(name: str) -> Any:
    return find_name(__name__, _HOMES, name)
