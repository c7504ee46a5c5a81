"""A bar for encoding with sentence-transformers that says what it counts; theirs says "Batches"."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def encoding_bar(model: Any, texts: int, *, shown: bool) -> Iterator[None]:
    """Count the texts that pass through a model while the block runs.

    Args:
        model: a ``SentenceTransformer``.
        texts: how many there are.
        shown: whether there is a bar, on stderr.
    """
    if not shown:
        yield
        return
    from tqdm import tqdm

    with tqdm(total=texts, desc="encoding", unit=" texts") as bar:

        def count(module: Any, inputs: Any, outputs: Any) -> None:
            bar.update(len(outputs["sentence_embedding"]))

        hook = model[-1].register_forward_hook(count)
        try:
            yield
        finally:
            hook.remove()
