"""Which model an encoder is, so that vectors of two models are never mixed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from leanmatch.errors import ModelError
from leanmatch.formats.fingerprint import earlier_fingerprints, model_fingerprint, tokenizer_fingerprint
from leanmatch.index.storage.manifest import ModelIdentity
from leanmatch.models import Prompts
from leanmatch.types import EncodeFunction


def identity_of(encoder: Any) -> ModelIdentity:
    """Name, fingerprints, dimension, precision and prompts of an encoder.

    It comes from the encoder's ``folder``, or from its attributes ``fingerprint`` and, where there is one,
    ``tokenizer_fingerprint``; the precision from its attribute ``precision``.

    Raises:
        ModelError: the encoder has neither, or makes vectors of an odd shape.
    """
    name = str(getattr(encoder, "name", type(encoder).__name__))
    prompts = getattr(encoder, "prompts", None) or Prompts()
    folder, precision = getattr(encoder, "folder", None), str(getattr(encoder, "precision", ""))
    if folder is not None:
        return ModelIdentity(
            str(Path(folder).resolve()) if Path(name).exists() else name,
            model_fingerprint(folder),
            tokenizer_fingerprint(folder),
            dimension_of(encoder),
            precision,
            prompts.query,
            prompts.document,
        )
    fingerprint = getattr(encoder, "fingerprint", None)
    if not isinstance(fingerprint, str) or not fingerprint:
        raise ModelError(
            f"{name} lies in no folder and has no fingerprint that tells its vectors from others'",
            remedy="save the model to a folder and load it from there",
        )
    tokenizer = str(getattr(encoder, "tokenizer_fingerprint", ""))
    return ModelIdentity(
        name, fingerprint, tokenizer, dimension_of(encoder), precision, prompts.query, prompts.document
    )


def known_as(identity: ModelIdentity, encoder: Any, catalogue: ModelIdentity) -> ModelIdentity:
    """The identity with the fingerprint that a catalogue has for the same model.

    Catalogues of earlier versions have fingerprints of another kind, over more files.
    """
    folder = getattr(encoder, "folder", None)
    if folder is None or identity.fingerprint == catalogue.fingerprint:
        return identity
    if catalogue.fingerprint not in earlier_fingerprints(folder):
        return identity
    return replace(identity, fingerprint=catalogue.fingerprint)


def dimension_of(encoder: EncodeFunction) -> int:
    """Length of an encoder's vectors; it is asked for one where it does not say."""
    dimension = getattr(encoder, "dimension", None)
    if isinstance(dimension, int) and dimension > 0:
        return dimension
    vectors = np.asarray(encoder(["dimension"]))
    if vectors.ndim != 2 or not vectors.shape[1]:
        raise ModelError(f"one text gives vectors of shape {vectors.shape}", remedy="(texts, dimension)")
    return int(vectors.shape[1])
