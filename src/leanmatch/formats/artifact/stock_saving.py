"""A compressed model that sentence-transformers saves itself, module by module, into a folder of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from leanmatch.files import write_json
from leanmatch.formats.artifact import tensor_file
from leanmatch.formats.artifact.gather import gather
from leanmatch.formats.artifact.reader import KIND
from leanmatch.formats.artifact.writer import save_architecture, section_of, write_tensors
from leanmatch.formats.hashing import weights_sha256
from leanmatch.formats.provenance import FILE_NAME, GIVEN, checked_provenance
from leanmatch.formats.writer import common_fields


def write_module(module: Any, folder: Path) -> None:
    """Write a module's configuration and tokenizer, without weights.

    Args:
        module: a Transformer, Dense or LayerNorm of sentence-transformers.
        folder: the module's, which is there.
    """
    inner = getattr(module, "auto_model", None)
    if inner is not None:
        save_architecture(inner, folder)
        module.tokenizer.save_pretrained(str(folder))
    module.save_config(str(folder))


def write_weights(model: Any, folder: Path, earlier: Mapping[str, Any]) -> None:
    """Write the weight file and ``leanmatch.json``.

    Args:
        model: a ``SentenceTransformer`` with compressed layers.
        folder: its folder, where the configurations lie.
        earlier: the ``leanmatch.json`` that the model was read with. Where the weights are the same, all of
            it holds still; else what was measured of them (quality, errors of layers) does not.
    """
    gathered = gather(model, {})
    write_tensors(gathered, folder)
    written = weights_sha256(folder, name=tensor_file.FILE_NAME)
    if written == earlier["weights_sha256"]:
        write_json(folder / FILE_NAME, dict(earlier))
        return
    kept, _ = checked_provenance({name: earlier[name] for name in GIVEN})
    spec = earlier["artifact"].get("spec")
    section = {**section_of(model, gathered, folder), "quality": {}, "spec": spec}
    content = {**common_fields(folder, kept, []), "weights_sha256": written, "parity": {}}
    write_json(folder / FILE_NAME, {**content, "kind": KIND, "artifact": section})
