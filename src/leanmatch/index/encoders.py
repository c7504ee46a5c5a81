"""Opening the encoder of a catalogue."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from leanmatch.errors import MissingExtraError, ModelError
from leanmatch.index.identity import identity_of, known_as
from leanmatch.index.storage.manifest import ModelIdentity
from leanmatch.models import PromptOptions, SentenceEncoder


def open_encoder(name_or_folder: str | Path, *, device: str = "auto", precision: str = "stored") -> Any:
    """An encoder: leanmatch's own runtime, which needs no torch, or sentence-transformers on request.

    What the runtime cannot run goes to sentence-transformers too, with a warning (:func:`leanmatch.load`).

    Args:
        name_or_folder: a folder, a packaged model or a name on the hub.
        device: ``auto`` for the runtime, on the CPU; ``cpu`` or ``cuda`` for sentence-transformers there.
        precision: precision of the runtime's layers, see :func:`leanmatch.load`.

    Raises:
        UsageError: no such precision, or one for sentence-transformers.
        ModelError: no such model, or a damaged one.
        MissingExtraError: it needs sentence-transformers, which is not installed.
    """
    from leanmatch.runtime import load

    return load(name_or_folder, precision=precision, device=device)


def with_catalogue_settings(encoder: Any, model: ModelIdentity, queries: PromptOptions | None = None) -> Any:
    """The encoder, with the prompts and the dimensions that a catalogue recorded.

    Args:
        encoder: of the catalogue's model.
        model: what the catalogue says of it.
        queries: another prompt for queries, by text or by name; items keep theirs.

    Raises:
        ModelError: an older catalogue, which does not say with which prompt its items were encoded.
        UsageError: a prompt name that the model does not have.
    """
    if isinstance(encoder, SentenceEncoder) and encoder.dimension != model.dimension:
        encoder.truncate_dim = model.dimension
    if not hasattr(encoder, "set_prompts"):
        return encoder
    if model.document_prompt is None and encoder.prompts.any_text:
        raise ModelError(
            f"the catalogue does not say with which prompt its items were encoded, and {encoder.name} has "
            f"prompts: {', '.join(name for name, text in encoder.prompts.items() if text)}",
            remedy="encode all items anew: rebuild_catalogue",
            command="encode all items anew: leanmatch index rebuild CATALOGUE MODEL",
        )
    query = encoder.prompts.overridden(queries).query if queries else model.query_prompt
    encoder.set_prompts(PromptOptions(query=query, document=model.document_prompt))
    return encoder


class HasModel(Protocol):
    """What says which model its items were encoded with: a catalogue's manifest, or what a store holds."""

    @property
    def model(self) -> ModelIdentity:
        """The model."""


def own_precision(manifest: HasModel, device: str) -> str:
    """The ``precision`` that a catalogue's items were encoded with; sentence-transformers has no choice."""
    return manifest.model.precision if device == "auto" else "stored"


def encoder_for(
    manifest: HasModel,
    model: str | None,
    *,
    device: str = "auto",
    precision: str | None = None,
    queries: PromptOptions | None = None,
) -> Any:
    """The encoder that a catalogue was made with, from where it lay then or from ``model``.

    Args:
        manifest: the catalogue's.
        model: the model's folder, where it has moved.
        device: see :func:`open_encoder`.
        precision: another precision than the items were encoded in, which is None. Its queries are compared
            with those items all the same; what is written to the catalogue must have the items' own.
        queries: another prompt for queries than the catalogue's; items keep theirs.

    Raises:
        ModelError: it is not there any more, or is another model now.
    """
    named = model or manifest.model.name
    if precision is None:
        precision = own_precision(manifest, device)
    try:
        encoder = open_encoder(named, device=device, precision=precision)
    except MissingExtraError:
        raise
    except ModelError as error:
        raise ModelError(
            f"the catalogue's model cannot be opened: {error.problem}",
            remedy="name its folder" if model is None else error.remedy,
            command="name its folder with --model" if model is None else error.command,
        ) from error
    actual = known_as(identity_of(encoder), encoder, manifest.model)
    if actual.fingerprint != manifest.model.fingerprint:
        raise ModelError(
            f"the items were encoded with the model {manifest.model.name} "
            f"({manifest.model.fingerprint[:12]}...), and {named} is not it ({actual.fingerprint[:12]}...)",
            remedy="name the right folder; or encode all items anew: rebuild_catalogue, and push them again",
            command="name the right folder with --model; or encode all items anew: "
            "leanmatch index rebuild CATALOGUE MODEL, and push them again if they lie in a database",
        )
    return with_catalogue_settings(encoder, manifest.model, queries)
