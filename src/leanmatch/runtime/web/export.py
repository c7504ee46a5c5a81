"""``export_web_model``: a model folder to the files that the runtime in a web page loads.

``model.bin`` holds the arrays, ``model.json`` what they are and how they make a graph, ``tokenizer.json`` the
tokenizer, cutting at the model's length.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leanmatch import __version__
from leanmatch.errors import LeanmatchError, ModelError
from leanmatch.files import atomic_folder
from leanmatch.formats.provenance import read_provenance
from leanmatch.formats.reader import model_folder
from leanmatch.runtime.encoder import NativeEncoder
from leanmatch.runtime.loading import load_with_ranges, open_model
from leanmatch.runtime.web.plan import write_plan
from leanmatch.runtime.web.tensors import TensorWriter

FORMAT, FORMAT_VERSION, ODD_VERSION = "leanmatch-web-model", 1, 2
"""Models with odd codes have version 2: scripts that know only version 1 would misread them."""
MODEL_FILE, WEIGHTS_FILE, TOKENIZER_FILE = "model.json", "model.bin", "tokenizer.json"


@dataclass(frozen=True)
class SavedWebModel:
    """What was exported.

    Attributes:
        folder: where.
        bytes: size of each file, by name.
        encoder: the model on the native runtime at ``precision="int8"``; the web runtime gives its vectors.
    """

    folder: Path
    bytes: dict[str, int]
    encoder: NativeEncoder


def export_web_model(model: str | Path, folder: str | Path, *, overwrite: bool = False) -> SavedWebModel:
    """Write a model for the web runtime: any that :func:`leanmatch.load` runs natively.

    Weights of a stock model are rounded to 8 bits, as ``load(..., precision="int8")`` does; a compressed
    model's keep their form.

    Args:
        model: folder or name.
        folder: where to; it takes its place when every file is written.
        overwrite: replace a web model that is there.

    Raises:
        ModelError: no such model, or the native runtime cannot run it.
        FormatError: a damaged artifact.
        LeanmatchError: ``folder`` is there and ``overwrite`` is false, or it is no web model.
    """
    target = Path(folder)
    if overwrite and target.exists() and any(target.iterdir()) and not (target / MODEL_FILE).is_file():
        raise LeanmatchError(f"{target} exists and is no web model", remedy="name another folder")
    with atomic_folder(target, overwrite=overwrite) as temporary:
        encoder = write_web_model(model, temporary)
        sizes = {path.name: path.stat().st_size for path in sorted(temporary.iterdir())}
    return SavedWebModel(target, sizes, encoder)


def write_web_model(model: str | Path, folder: Path) -> NativeEncoder:
    """Write the three files into a folder that is there; returns the model on the native runtime.

    Raises:
        ModelError, FormatError: as :func:`export_web_model`.
    """
    source = model_folder(model)
    encoder, ranges = load_with_ranges(source, name=str(model), precision="int8")
    try:
        with ExitStack() as files, (folder / WEIGHTS_FILE).open("wb") as weights:
            opened = open_model(source, files)
            writer = TensorWriter(weights)
            plan = write_plan(opened, ranges, writer, encoder.max_tokens)
            vocabulary = int(opened.source.matrix(opened.words).shape[0])
    except (ValueError, TypeError, KeyError) as error:
        raise ModelError(f"{model}: {error}", remedy="save or copy the model's folder again") from error
    tokenizer = _short_vocabulary(json.loads(encoder.tokenizer.to_str(pretty=False)))
    (folder / TOKENIZER_FILE).write_text(_compact(tokenizer), encoding="utf-8")
    has_odd = any(entry.get("odd") for entry in writer.entries.values())
    content = {
        "format": FORMAT,
        "format_version": ODD_VERSION if has_odd else FORMAT_VERSION,
        "leanmatch_version": __version__,
        "name": Path(str(model)).name,
        "base": (read_provenance(source) or {}).get("base"),
        "dimension": encoder.dimension,
        "truncate_dim": encoder.truncate_dim,
        "max_tokens": encoder.max_tokens,
        "vocabulary": vocabulary,
        "add_special_tokens": not opened.layout.is_static,
        "prompts": dict(encoder.prompts),
        "default_prompt": encoder.prompts.default_name,
        "files": {name: _described(folder / name) for name in (WEIGHTS_FILE, TOKENIZER_FILE)},
        "plan": plan,
        "tensors": writer.entries,
    }
    (folder / MODEL_FILE).write_text(_compact(content), encoding="utf-8")
    return encoder


def _compact(content: Any) -> str:
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _short_vocabulary(tokenizer: dict[str, Any]) -> dict[str, Any]:
    """WordPiece's vocabulary as a list in the order of its ids: a browser reads it in a fifth of the time."""
    model = tokenizer["model"]
    vocabulary = model["vocab"]
    if model["type"] != "WordPiece" or sorted(vocabulary.values()) != list(range(len(vocabulary))):
        return tokenizer
    return {**tokenizer, "model": {**model, "vocab": sorted(vocabulary, key=vocabulary.__getitem__)}}


def _described(path: Path) -> dict[str, Any]:
    """Size and SHA-256 of a file."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}
