"""The web runtime under Node: what its tests call."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leanmatch.runtime.loading import load_with_ranges
from leanmatch.runtime.tokenization import pack

ROOT = Path(__file__).parents[2]
NODE = os.environ.get("NODE", "node")
STATIC = Path(str(files("leanmatch").joinpath("web", "static")))
needs_node = pytest.mark.skipif(
    shutil.which(NODE) is None,
    reason=f"THE WEB RUNTIME IS NOT TESTED: {NODE} was not found (Node.js 20 or newer)",
)


def in_node(*calls: dict[str, Any], build: str | None = None, options: tuple[str, ...] = ()) -> list[Any]:
    done = subprocess.run(
        [
            NODE,
            *options,
            str(Path(__file__).parent / "web_runtime.mjs"),
            str(STATIC),
            *([build] if build else ()),
        ],
        input=json.dumps(calls),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def encoded(folder: Path, ids: np.ndarray, offsets: np.ndarray) -> tuple[dict[str, Any], np.ndarray]:
    """What the web runtime says of a model, and its vectors."""
    told, numbers = in_node(
        {"do": "create", "folder": str(folder)},
        {"do": "encode", "ids": ids.tolist(), "offsets": offsets.tolist()},
    )
    assert "error" not in told, told
    assert "error" not in numbers, numbers
    return told, np.float32(numbers).reshape(len(offsets) - 1, -1)


def tokens(folder: Path, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    encoder, _ = load_with_ranges(folder, name="tokens", precision="int8")
    return pack([encoding.ids for encoding in encoder.encodings(texts)])


def least_cosine(first: np.ndarray, second: np.ndarray) -> float:
    sizes = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    assert (sizes > 0).any()
    return float(np.where(sizes > 0, (first * second).sum(axis=1) / np.maximum(sizes, 1e-30), 1.0).min())
