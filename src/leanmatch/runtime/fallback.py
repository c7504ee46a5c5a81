"""What the native runtime cannot run goes to sentence-transformers, and a warning says so."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from leanmatch.errors import MissingExtraError, ModelError
from leanmatch.models import TorchEncoder
from leanmatch.runtime.encoder import BATCH_TEXTS, usable_threads
from leanmatch.types import Vectors


class FallbackWarning(RuntimeWarning):
    """A model runs on sentence-transformers instead of the native runtime."""


class FallbackEncoder(TorchEncoder):
    """A model on sentence-transformers, called as :class:`leanmatch.runtime.NativeEncoder` is.

    Attributes:
        reason: why the native runtime did not take it.
    """

    precision = "torch"
    choices = ()

    def __init__(self, encoder: TorchEncoder, reason: str) -> None:
        super().__init__(
            encoder.model, name=encoder.name, provenance=encoder.provenance, folder=encoder.folder
        )
        self.reason = reason

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of the sentence-transformers model."""
        return self.model.tokenizer

    def encode(
        self,
        texts: Sequence[str],
        batch_size: int = BATCH_TEXTS,
        normalize: bool = True,
        threads: int | None = None,
        show_progress: bool = False,
        **options: Any,
    ) -> Vectors:
        """As :meth:`leanmatch.runtime.NativeEncoder.encode`; ``threads`` sets torch's during the call."""
        with _torch_threads(threads):
            return super().encode(
                texts, batch_size=batch_size, normalize=normalize, show_progress=show_progress, **options
            )

    def encode_query(self, texts: Sequence[str], threads: int | None = None, **options: Any) -> Vectors:
        """:meth:`encode` for queries: with their prompt, where no other is given."""
        with _torch_threads(threads):
            return super().encode_query(texts, **options)

    def encode_document(self, texts: Sequence[str], threads: int | None = None, **options: Any) -> Vectors:
        """:meth:`encode` for documents: with their prompt, where no other is given."""
        with _torch_threads(threads):
            return super().encode_document(texts, **options)

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


@contextmanager
def _torch_threads(threads: int | None) -> Iterator[None]:
    if threads is None:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(usable_threads(threads))
    try:
        yield
    finally:
        torch.set_num_threads(before)
