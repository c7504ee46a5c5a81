"""Load every folder of make_folders.py with the sentence-transformers at hand; the vectors must be equal.

    python scripts/verify/load_folders.py FOLDERS WANTED_VERSION

A compressed folder is no stock folder: it must be refused there, never loaded with other weights.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import sentence_transformers
from sentence_transformers import SentenceTransformer

MOST = 2e-6
"""Largest difference of a coordinate; torch's kernels may differ in the last bits with batch shapes."""


def main(folders: Path, wanted: str) -> None:
    found = sentence_transformers.__version__
    assert wanted in ("current", found), f"this is sentence-transformers {found}, not {wanted}"
    texts = json.loads((folders / "texts.json").read_text(encoding="utf-8"))
    vectors = np.load(folders / "vectors.npz")
    for name in vectors.files:
        if name == "compressed":
            try:
                loaded = SentenceTransformer(str(folders / name), device="cpu", local_files_only=True)
                loaded.encode(texts)
            except Exception as error:
                first = (str(error).strip().splitlines() or [""])[0]
                print(f"{found}: {name} refused: {type(error).__name__}: {first:.160}")
                continue
            raise SystemExit(f"{found} loads a compressed folder and takes it for a stock one")
        model = SentenceTransformer(str(folders / name), device="cpu", local_files_only=True)
        ours = vectors[name]
        theirs = model.encode(texts, normalize_embeddings=True)
        difference = float(np.abs(theirs - ours).max())
        print(f"{found}: {name}: {ours.shape[1]} dimensions, largest difference {difference:.1e}")
        assert difference <= MOST, f"{name} differs by {difference}"
        assert np.abs(ours - ours.mean(axis=0)).max() > 0.01, "the vectors differ between texts"


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
