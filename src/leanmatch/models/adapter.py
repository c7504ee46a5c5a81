"""A torch model seen alike, whatever its kind and whatever the versions of its libraries.

A ``SentenceTransformer`` brings its own tokenizer; a bare transformers model is given one. Nothing here loads
torch when it is imported.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from leanmatch.errors import UsageError


def tokenize(
    model: Any,
    texts: Sequence[str],
    *,
    prompt: str = "",
    role: str | None = None,
    tokenizer: Any = None,
    max_length: int | None = None,
) -> dict[str, Any]:
    """Features of texts, as the model's forward pass takes them.

    Args:
        model: a ``SentenceTransformer``, whose method has another name since version 5.4, or a transformers
            model.
        texts: the texts.
        prompt: what goes before each of them.
        role: ``query`` or ``document``, for models that treat the two differently.
        tokenizer, max_length: of a transformers model.

    Raises:
        UsageError: a transformers model without its tokenizer.
    """
    if not hasattr(model, "encode"):
        if tokenizer is None:
            raise UsageError(
                f"texts for a {type(model).__name__} need its tokenizer", remedy="pass tokenizer="
            )
        whole = [prompt + text for text in texts]
        return dict(
            tokenizer(whole, padding=True, truncation=True, max_length=max_length, return_tensors="pt")
        )
    if hasattr(model, "preprocess"):
        task = {} if role is None else {"task": role}
        return dict(model.preprocess(list(texts), prompt=prompt or None, **task))
    return dict(model.tokenize([prompt + text for text in texts]))


def on_device(features: Mapping[str, Any], model: Any) -> dict[str, Any]:
    """Features with their tensors where the model's parameters (or buffers) are."""
    device = next(iter((*model.parameters(), *model.buffers()))).device
    return {name: value.to(device) if hasattr(value, "to") else value for name, value in features.items()}


def transformer_of(model: Any) -> Any:
    """The transformers model inside a ``SentenceTransformer``; None for a static one."""
    return getattr(model[0], "auto_model", None)


def pools_prompt(model: Any) -> bool:
    """Whether the tokens of a prompt take part in a ``SentenceTransformer``'s pooling."""
    return all(getattr(module, "include_prompt", True) for module in model)


@contextmanager
def evaluation_mode(model: Any) -> Iterator[None]:
    """Switch a model to evaluation mode; afterwards every submodule has the mode that it had before."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
