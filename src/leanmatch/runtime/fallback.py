"""What the native runtime cannot run goes to sentence-transformers, and a warning says so."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from leanmatch.errors import MissingExtraError, ModelError
from leanmatch.runtime.encoder import BATCH_TEXTS, distinct, usable_threads
from leanmatch.types import Vectors

if TYPE_CHECKING:
    from leanmatch.formats.encoder import Encoder as TorchEncoder


class FallbackWarning(RuntimeWarning):
    """A model runs on sentence-transformers instead of the native runtime."""


class FallbackEncoder:
    """A model on sentence-transformers, with the interface of :class:`leanmatch.runtime.Encoder`.

    Attributes:
        reason: why the native runtime did not take it.
    """

    weights = "torch"
    choices = ()

    def __init__(self, encoder: TorchEncoder, reason: str) -> None:
        self._encoder = encoder
        self.reason = reason
        self.name = encoder.name
        self.folder = encoder.folder
        self.dimension = encoder.dimension
        self.provenance = encoder.provenance

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of the sentence-transformers model."""
        return self._encoder._model.tokenizer

    def encode(
        self,
        texts: Sequence[str],
        batch_size: int = BATCH_TEXTS,
        normalize: bool = True,
        threads: int | None = None,
        show_progress: bool = False,
    ) -> Vectors:
        """As :meth:`leanmatch.runtime.Encoder.encode`; ``threads`` sets torch's for the time of the call."""
        with _torch_threads(threads):
            if normalize:
                return self._encoder.encode(texts, batch_size=batch_size, show_progress=show_progress)
            rows = distinct(texts)
            if not rows:
                return np.zeros((0, self.dimension), dtype=np.float32)
            found = self._encoder._model.encode(
                list(rows), batch_size=batch_size, convert_to_numpy=True, show_progress_bar=show_progress
            )
        return np.asarray(found, dtype=np.float32)[[rows[text] for text in texts]]

    def __call__(self, texts: Sequence[str]) -> Vectors:
        """:meth:`encode` with its defaults."""
        return self.encode(texts)

    def __repr__(self) -> str:
        return f"FallbackEncoder({self.name!r}, dimension={self.dimension})"


def fall_back(name_or_folder: str | Path, reason: ModelError) -> FallbackEncoder:
    """Load a model with sentence-transformers and warn.

    Raises:
        ModelError: sentence-transformers is not installed, or cannot load it either.
    """
    from leanmatch.formats.reader import load_encoder

    try:
        encoder = load_encoder(name_or_folder)
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
