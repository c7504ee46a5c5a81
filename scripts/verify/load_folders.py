"""Load every folder of make_folders.py with the sentence-transformers at hand; the vectors must be equal.

    python scripts/verify/load_folders.py FOLDERS WANTED_VERSION

A compressed folder is no stock folder. Without leanmatch it must be refused, never loaded with other weights;
with leanmatch it must give our vectors.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import sentence_transformers
from sentence_transformers import SentenceTransformer

MOST = 2e-6
"""Largest difference of a coordinate; torch's kernels may differ in the last bits with batch shapes."""


class _Hidden:
    """Finds no leanmatch, though it is installed."""

    def find_spec(self, name: str, *_: Any) -> None:
        if name.partition(".")[0] == "leanmatch":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@contextmanager
def without_leanmatch() -> Iterator[None]:
    """leanmatch cannot be imported here; it must not have been so far."""
    assert not [name for name in sys.modules if name.partition(".")[0] == "leanmatch"]
    hidden: Any = _Hidden()
    sys.meta_path.insert(0, hidden)
    try:
        yield
    finally:
        sys.meta_path.remove(hidden)


def refused(folder: Path, texts: list[str]) -> str:
    """The first line of the error with which sentence-transformers refuses a folder."""
    try:
        SentenceTransformer(str(folder), device="cpu", local_files_only=True).encode(texts)
    except Exception as error:
        return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]:.120}"
    raise SystemExit(f"sentence-transformers loads {folder} without leanmatch and takes it for a stock one")


def main(folders: Path, wanted: str) -> None:
    found = sentence_transformers.__version__
    assert wanted in ("current", found), f"this is sentence-transformers {found}, not {wanted}"
    texts = json.loads((folders / "texts.json").read_text(encoding="utf-8"))
    vectors = np.load(folders / "vectors.npz")
    for name in vectors.files:
        if name == "compressed":
            with without_leanmatch():
                print(f"{found}: {name} without leanmatch refused: {refused(folders / name, texts)}")
            from leanmatch.integrations.sentence_transformers import register

            register()
        model = SentenceTransformer(str(folders / name), device="cpu", local_files_only=True)
        ours = vectors[name]
        theirs = model.encode(texts, normalize_embeddings=True)
        difference = float(np.abs(theirs - ours).max())
        print(f"{found}: {name}: {ours.shape[1]} dimensions, largest difference {difference:.1e}")
        assert difference <= MOST, f"{name} differs by {difference}"
        assert np.abs(ours - ours.mean(axis=0)).max() > 0.01, "the vectors differ between texts"


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
