"""What makes sentence-transformers open a compressed folder: types in ``modules.json``, and a requirement."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from leanmatch.files import write_json
from leanmatch.formats.layout import COMPRESSED, module_kind
from leanmatch.models.prompts import CONFIG_FILE

REQUIREMENTS = "requirements"
"""Key of ``config_sentence_transformers.json``; sentence-transformers 6 checks it first of all."""
REQUIREMENT = {
    "leanmatch": {
        "specifier": ">=0.1",
        "reason": 'The model is compressed: pip install "leanmatch[train]" opens it here, and '
        "leanmatch.load runs it fast and without torch.",
    }
}


def name_compressed_modules(folder: Path, numbers: Iterable[int]) -> None:
    """Give modules of a folder the types of :mod:`leanmatch.integrations.sentence_transformers`.

    Args:
        folder: of a sentence encoder, as sentence-transformers wrote it.
        numbers: of the modules whose weights are in the artifact.
    """
    path = folder / "modules.json"
    entries = json.loads(path.read_text(encoding="utf-8"))
    for number in numbers:
        entries[number]["type"] = f"{COMPRESSED}{module_kind(entries[number]['type'])}"
    write_json(path, entries)
    require_leanmatch(folder)


def require_leanmatch(folder: Path) -> None:
    """Say in a folder that it needs leanmatch, in the words of sentence-transformers."""
    path = folder / CONFIG_FILE
    write_json(path, {**json.loads(path.read_text(encoding="utf-8")), REQUIREMENTS: REQUIREMENT})


def without_requirement(path: Path) -> dict[str, Any]:
    """The content of ``config_sentence_transformers.json`` for a folder with stock modules."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return {name: value for name, value in content.items() if name != REQUIREMENTS}
