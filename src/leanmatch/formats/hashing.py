"""The hash of a model folder's weights; :mod:`leanmatch.formats.fingerprint` has that of the whole model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from leanmatch.errors import ModelError

WEIGHT_SUFFIXES = (".safetensors", ".bin")


def weights_sha256(
    folder: str | Path, suffixes: Iterable[str] = WEIGHT_SUFFIXES, *, name: str | None = None
) -> str:
    """SHA-256 over the weight files of a folder: each one's relative path, size and bytes, in path order.

    Args:
        folder: the model's.
        suffixes: which files are weights.
        name: the one weight file of a compressed model; other files beside it count for nothing.

    Raises:
        ModelError: there is no weight file.
    """
    root = Path(folder)
    paths = root.rglob("*") if name is None else [root / name]
    files = sorted(
        (path.relative_to(root).as_posix(), path)
        for path in paths
        if path.suffix in suffixes and path.is_file()
    )
    if not files:
        raise ModelError(
            f"no file ending in {', '.join(suffixes)} under {root}", remedy="name a saved model's folder"
        )
    total = hashlib.sha256()
    for relative, path in files:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        total.update(f"{relative}\0{path.stat().st_size}\0{digest}\n".encode())
    return total.hexdigest()
