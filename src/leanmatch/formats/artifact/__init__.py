"""Compressed models on disk: one page says how, docs/format.md. Reading them needs no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from leanmatch.lazy import find_name

if TYPE_CHECKING:
    from leanmatch.formats.artifact.contents import Artifact as Artifact
    from leanmatch.formats.artifact.contents import LayerTensors as LayerTensors
    from leanmatch.formats.artifact.contents import ModuleConfig as ModuleConfig
    from leanmatch.formats.artifact.loader import load_compressed as load_compressed
    from leanmatch.formats.artifact.reader import is_artifact as is_artifact
    from leanmatch.formats.artifact.reader import read_artifact as read_artifact
    from leanmatch.formats.artifact.writer import SavedArtifact as SavedArtifact
    from leanmatch.formats.artifact.writer import save_compressed as save_compressed

_HOMES = {
    "Artifact": "contents",
    "LayerTensors": "contents",
    "ModuleConfig": "contents",
    "SavedArtifact": "writer",
    "is_artifact": "reader",
    "load_compressed": "loader",
    "read_artifact": "reader",
    "save_compressed": "writer",
}
__all__ = [
    "Artifact",
    "LayerTensors",
    "ModuleConfig",
    "SavedArtifact",
    "is_artifact",
    "load_compressed",
    "read_artifact",
    "save_compressed",
]


def __getattr__(name: str) -> Any:
    return find_name(__name__, _HOMES, name)
