"""What an export takes over from its artifact: provenance, tokenizer."""

from __future__ import annotations

from typing import Any

from leanmatch.errors import ModelError
from leanmatch.formats.artifact.contents import Artifact
from leanmatch.formats.provenance import GIVEN


def provenance_of(artifact: Artifact, target: str) -> dict[str, Any]:
    """The artifact's provenance for its export, with a pointer to where it came from."""
    kept = {name: artifact.provenance.get(name) for name in GIVEN}
    origin = {
        "target": target,
        "from": str(artifact.folder),
        "compressed_bytes": artifact.report["bytes"]["total"],
    }
    return {**kept, "exported": origin}


def tokenizer_of(artifact: Artifact) -> Any:
    """The tokenizer of an artifact.

    Raises:
        ModelError: it has none.
    """
    from transformers import AutoTokenizer

    if artifact.tokenizer_file is None:
        raise ModelError(f"{artifact.folder} has no tokenizer", remedy="compress the model again")
    return AutoTokenizer.from_pretrained(str(artifact.folder), local_files_only=True)
