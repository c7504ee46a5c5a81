"""Texts per second of several models, with sentence-transformers and with leanmatch's own runtime."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

STOCK, OWN = "sentence-transformers", "leanmatch"
ROUNDS = {STOCK: 3, OWN: 9}
"""How often each engine encodes the texts with each model: the quick one more often, against noise."""


def texts_a_second(models: Mapping[str, str], texts: Sequence[str]) -> dict[str, dict[str, float]]:
    """The median of some rounds (:data:`ROUNDS`), one engine after the other; each round times every model.

    Both engines use all cores and batches of 64, and both sort texts by length.

    Args:
        models: folders or names, by what to call them.
        texts: distinct texts.

    Returns:
        texts a second by model, then engine.
    """
    speeds: dict[str, dict[str, float]] = {name: {} for name in models}
    for engine, open_model in ENGINES.items():
        encoders = {name: open_model(model) for name, model in models.items()}
        for encode in encoders.values():
            encode(texts[:64])
        taken: dict[str, list[float]] = {name: [] for name in models}
        for _ in range(ROUNDS[engine]):
            for name, encode in encoders.items():
                begun = time.perf_counter()
                encode(texts)
                taken[name].append(time.perf_counter() - begun)
        for name, seconds in taken.items():
            speeds[name][engine] = round(len(texts) / statistics.median(seconds), 1)
    return speeds


def _stock(model: str) -> Callable[[Sequence[str]], Any]:
    from leanmatch.formats.reader import load_encoder

    return load_encoder(model, device="cpu").encode


def _own(model: str) -> Callable[[Sequence[str]], Any]:
    from leanmatch.runtime import load

    return load(model, runtime="native").encode


ENGINES = {STOCK: _stock, OWN: _own}
