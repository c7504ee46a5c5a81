"""Fingerprints of a model folder: of its weights alone, and of everything that decides its vectors."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from leanmatch.errors import ModelError

WEIGHT_SUFFIXES = (".safetensors", ".bin")
_DECIDES_VECTORS = (*WEIGHT_SUFFIXES, ".json", ".txt", ".model")
_DESCRIBES_ONLY = ("leanmatch.json", "model.safetensors.index.json", "data_config.json")


def weights_sha256(folder: str | Path, suffixes: Iterable[str] = WEIGHT_SUFFIXES) -> str:
    """SHA-256 over the weight files of a folder: each one's relative path, size and bytes, in path order.

    Raises:
        ModelError: there is no weight file.
    """
    return _sha256(Path(folder), suffixes)


def model_fingerprint(folder: str | Path) -> str:
    """SHA-256 over weights, tokenizer and configuration: equal fingerprints give equal vectors.

    Provenance (``leanmatch.json``) is left out: it does not change what the model computes.

    Raises:
        ModelError: there is no such file.
    """
    return _sha256(Path(folder), _DECIDES_VECTORS)


def _sha256(folder: Path, suffixes: Iterable[str]) -> str:
    files = sorted(
        (path.relative_to(folder).as_posix(), path)
        for path in folder.rglob("*")
        if path.suffix in suffixes and path.name not in _DESCRIBES_ONLY and path.is_file()
    )
    if not files:
        raise ModelError(
            f"no file ending in {', '.join(suffixes)} under {folder}", remedy="name a saved model's folder"
        )
    total = hashlib.sha256()
    for name, path in files:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        total.update(f"{name}\0{path.stat().st_size}\0{digest}\n".encode())
    return total.hexdigest()
