"""Do a model and its reloaded copy compute the same? Any kind of model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from leanmatch.errors import FormatError
from leanmatch.formats.parity import MIN_COSINE, ODD_TEXTS, Parity, check_parity, compare_vectors
from leanmatch.models.architectures import ARCHITECTURES
from leanmatch.types import Vectors

MOST_DIFFERENCE = 0.02
"""Largest relative change of a row of outputs: a cosine cannot see a single class score move."""


def check_outputs(model: Any, other: Any, texts: Sequence[str], tokenizer: Any = None) -> Parity:
    """Compare two models on :data:`leanmatch.formats.parity.ODD_TEXTS` and ``texts``.

    Sentence encoders are compared by their vectors, others by all outputs of all real tokens.

    Raises:
        FormatError: outputs that are not finite, a cosine under 0.9999 or a difference over 2%.
    """
    if tokenizer is None:
        return check_parity(model, other, texts)
    probes = list(dict.fromkeys((*ODD_TEXTS, *texts)))
    first, second = (_outputs(each, tokenizer, probes) for each in (model, other))
    worst = Parity(1.0, len(probes), probes[0])
    for text, ours, theirs in zip(probes, first, second, strict=True):
        parity = compare_vectors(ours[None], theirs[None], [text])
        length = float(np.linalg.norm(ours))
        difference = float(np.linalg.norm(ours - theirs)) / (length if length > 0 else 1.0)
        if parity.min_cosine < MIN_COSINE or difference > MOST_DIFFERENCE:
            raise FormatError(
                f"the saved model, reloaded, gives other outputs for {text!r:.80}: cosine "
                f"{parity.min_cosine:.6f}, relative difference {difference:.4f} (at least {MIN_COSINE} "
                f"and at most {MOST_DIFFERENCE} are asked)",
                remedy="nothing was written; report this with the model's modules: print(model)",
            )
        if parity.min_cosine < worst.min_cosine:
            worst = Parity(parity.min_cosine, len(probes), text)
    return worst


def _outputs(model: Any, tokenizer: Any, texts: list[str]) -> list[Vectors]:
    """All floating outputs of each text, one flat row a text (texts differ in length)."""
    import torch

    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    rows = []
    limit = most_tokens(model, tokenizer)
    device = next(iter(model.buffers()), torch.zeros(0)).device
    try:
        with torch.no_grad():
            for text in texts:
                features = tokenizer(text, truncation=True, max_length=limit, return_tensors="pt").to(device)
                outputs = model(**features)
                values = [value for value in outputs.to_tuple() if isinstance(value, torch.Tensor)]
                rows.append(torch.cat([value.float().flatten() for value in values]).cpu().numpy())
    finally:
        for module, mode in modes:
            module.training = mode
    return rows


def most_tokens(model: Any, tokenizer: Any) -> int:
    """Tokens that both the model and its tokenizer allow."""
    places = getattr(model.config, "max_position_embeddings", None) or 512
    architecture = ARCHITECTURES.get(model.config.model_type)
    if architecture is not None and architecture.counts_from_pad:
        places -= 2  # their places start behind the padding's
    return int(min(places, tokenizer.model_max_length, 512))
