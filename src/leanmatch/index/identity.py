"""Which model an encoder is, so that vectors of two models are never mixed."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from leanmatch.errors import ModelError
from leanmatch.formats.hashing import model_fingerprint
from leanmatch.index.storage.manifest import ModelIdentity
from leanmatch.types import EncodeFunction

TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "sentencepiece.bpe.model", "spiece.model", "merges.txt")


def identity_of(encoder: Any) -> ModelIdentity:
    """Name, fingerprints, dimension and precision of an encoder.

    It comes from the encoder's ``folder``, or from its attributes ``fingerprint`` and, where there is one,
    ``tokenizer_fingerprint``; the precision from its attribute ``weights``.

    Raises:
        ModelError: the encoder has neither, or makes vectors of an odd shape.
    """
    name = str(getattr(encoder, "name", type(encoder).__name__))
    folder, weights = getattr(encoder, "folder", None), str(getattr(encoder, "weights", ""))
    if folder is not None:
        return ModelIdentity(
            str(Path(folder).resolve()) if Path(name).exists() else name,
            model_fingerprint(folder),
            tokenizer_fingerprint(folder),
            dimension_of(encoder),
            weights,
        )
    fingerprint = getattr(encoder, "fingerprint", None)
    if not isinstance(fingerprint, str) or not fingerprint:
        raise ModelError(
            f"{name} lies in no folder and has no fingerprint that tells its vectors from others'",
            remedy="save the model to a folder and load it from there",
        )
    tokenizer = str(getattr(encoder, "tokenizer_fingerprint", ""))
    return ModelIdentity(name, fingerprint, tokenizer, dimension_of(encoder), weights)


def tokenizer_fingerprint(folder: str | Path) -> str:
    """SHA-256 over the tokenizer's files under a model folder; empty where there is none."""
    files = sorted(
        (path.relative_to(folder).as_posix(), path)
        for path in Path(folder).rglob("*")
        if path.name in TOKENIZER_FILES and path.is_file()
    )
    if not files:
        return ""
    total = hashlib.sha256()
    for name, path in files:
        total.update(f"{name}\0{path.stat().st_size}\0".encode())
        total.update(path.read_bytes())
    return total.hexdigest()


def dimension_of(encoder: EncodeFunction) -> int:
    """Length of an encoder's vectors; it is asked for one where it does not say."""
    said = getattr(encoder, "dimension", None)
    if isinstance(said, int) and said > 0:
        return said
    vectors = np.asarray(encoder(["dimension"]))
    if vectors.ndim != 2 or not vectors.shape[1]:
        raise ModelError(f"one text gives vectors of shape {vectors.shape}", remedy="(texts, dimension)")
    return int(vectors.shape[1])
