"""What the native runtime cannot run goes to sentence-transformers, and a warning says so."""

from __future__ import annotations

import warnings
from pathlib import Path

from leanmatch.errors import MissingExtraError, ModelError
from leanmatch.models import TorchEncoder


class FallbackWarning(RuntimeWarning):
    """A model runs on sentence-transformers instead of the native runtime."""


class FallbackEncoder(TorchEncoder):
    """A model on sentence-transformers, because the native runtime has no code for it.

    Attributes:
        reason: why the native runtime did not take it.
    """

    choices = ()

    def __init__(self, encoder: TorchEncoder, reason: str) -> None:
        super().__init__(
            encoder.model, name=encoder.name, provenance=encoder.provenance, folder=encoder.folder
        )
        self.reason = reason

    def __repr__(self) -> str:
        return f"FallbackEncoder({self.name!r}, dimension={self.dimension})"


def fall_back(
    name_or_folder: str | Path, reason: ModelError, *, revision: str | None = None
) -> FallbackEncoder:
    """Load a model with sentence-transformers and warn.

    Raises:
        ModelError: sentence-transformers is not installed, or cannot load it either.
    """
    from leanmatch.formats.reader import load_encoder

    try:
        encoder = load_encoder(name_or_folder, revision=revision)
    except MissingExtraError as error:
        raise ModelError(
            f"{name_or_folder}: {reason.problem}, and sentence-transformers, which might run it, "
            "is not installed",
            remedy=error.remedy,
        ) from reason
    warnings.warn(
        f"{name_or_folder} runs on sentence-transformers, not on the native runtime: {reason.problem}",
        FallbackWarning,
        stacklevel=3,
    )
    return FallbackEncoder(encoder, reason.problem)
