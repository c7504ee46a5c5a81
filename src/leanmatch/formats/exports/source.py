"""What is exported: a compressed model, or any model that sentence-transformers opens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from leanmatch.errors import ModelError
from leanmatch.formats.artifact.contents import Artifact
from leanmatch.formats.artifact.loader import build
from leanmatch.formats.artifact.reader import is_artifact, read_artifact
from leanmatch.formats.exports.dense import densify
from leanmatch.formats.provenance import GIVEN, checked_provenance, read_provenance
from leanmatch.formats.reader import load_matcher, model_folder
from leanmatch.types import JsonValue


@dataclass(frozen=True)
class Source:
    """A model to export; it is built when it is first used.

    Attributes:
        name: the folder or name that was given.
        folder: where it lies.
        artifact: of a compressed model; None for a stock one, which is always a matcher.
    """

    name: str
    folder: Path
    artifact: Artifact | None

    @property
    def is_matcher(self) -> bool:
        """A sentence encoder: texts to vectors."""
        return self.artifact is None or self.artifact.task == "matcher"

    @cached_property
    def model(self) -> Any:
        """The model as it is used: with compressed layers, where it has any."""
        return load_matcher(self.folder, "cpu") if self.artifact is None else build(self.artifact, "cpu")

    @cached_property
    def dense(self) -> Any:
        """The same model with stock layers."""
        return self.model if self.artifact is None else densify(self.model)

    @property
    def inner(self) -> Any:
        """The transformers model; None of a static encoder."""
        return getattr(self.model[0], "auto_model", None) if self.is_matcher else self.model

    @cached_property
    def tokenizer(self) -> Any:
        """Its tokenizer: of transformers, or of ``tokenizers`` for a static encoder.

        Raises:
            ModelError: it has none.
        """
        if self.is_matcher:
            return self.model.tokenizer
        from transformers import AutoTokenizer

        if self.artifact is None or self.artifact.tokenizer_file is None:
            raise ModelError(f"{self.folder} has no tokenizer", remedy="compress the model again")
        return AutoTokenizer.from_pretrained(str(self.folder), local_files_only=True)

    def provenance(self, target: str) -> dict[str, Any]:
        """The model's provenance for its export, with a pointer to where it came from."""
        known: Mapping[str, JsonValue] = (
            self.artifact.provenance if self.artifact is not None else read_provenance(self.folder) or {}
        )
        kept = {name: known[name] for name in GIVEN if name in known}
        origin: dict[str, Any] = {"target": target, "from": self.name}
        if self.artifact is not None:
            origin["compressed_bytes"] = self.artifact.report["bytes"]["total"]
        base = None if self.artifact is not None else self.name
        stored, _ = checked_provenance({"base": base, **kept, "exported": origin})
        return stored


def open_source(name_or_folder: str | Path) -> Source:
    """What a name or folder stands for, without building it.

    Raises:
        ModelError, MissingExtraError: as :func:`leanmatch.load`.
        FormatError: a damaged artifact.
    """
    folder = model_folder(name_or_folder)
    return Source(str(name_or_folder), folder, read_artifact(folder) if is_artifact(folder) else None)
