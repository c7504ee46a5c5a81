"""Texts per second of several models, with sentence-transformers and with leanmatch's own runtime."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

ROUNDS = 3
STOCK, OWN = "sentence-transformers", "leanmatch"


def texts_a_second(models: Mapping[str, str], texts: Sequence[str]) -> dict[str, dict[str, float]]:
    """The median of :data:`ROUNDS` rounds; in each round every model and engine has its turn.

    Both engines use all cores and batches of 64, and both sort texts by length.

    Args:
        models: folders or names, by what to call them.
        texts: distinct texts.

    Returns:
        texts a second by model, then engine.
    """
    encoders = {
        (name, engine): open_model(model)
        for name, model in models.items()
        for engine, open_model in ENGINES.items()
    }
    for encode in encoders.values():
        encode(texts[:64])
    taken: dict[tuple[str, str], list[float]] = {key: [] for key in encoders}
    for _ in range(ROUNDS):
        for key, encode in encoders.items():
            begun = time.perf_counter()
            encode(texts)
            taken[key].append(time.perf_counter() - begun)
    return {
        name: {engine: round(len(texts) / statistics.median(taken[name, engine]), 1) for engine in ENGINES}
        for name in models
    }


def _stock(model: str) -> Callable[[Sequence[str]], Any]:
    from leanmatch.formats.reader import load_encoder

    return load_encoder(model, device="cpu").encode


def _own(model: str) -> Callable[[Sequence[str]], Any]:
    from leanmatch.runtime import load

    return load(model, runtime="native").encode


ENGINES = {STOCK: _stock, OWN: _own}
