"""Saved matchers: a folder layout that old and new sentence-transformers read alike, with provenance.

Importing this package is cheap; torch is loaded by the first call that needs a model.
"""

from __future__ import annotations

from leanmatch.formats.artifact import (
    Artifact,
    SavedArtifact,
    is_artifact,
    save_compressed,
)
from leanmatch.formats.fingerprint import model_fingerprint
from leanmatch.formats.hashing import weights_sha256
from leanmatch.formats.hub.push import PushedModel, push_model
from leanmatch.formats.model_card import model_card, rewrite_model_card
from leanmatch.formats.parity import MIN_COSINE, Parity
from leanmatch.formats.provenance import read_provenance
from leanmatch.formats.reader import PACKAGED_MODELS, find_model, is_model_folder
from leanmatch.formats.writer import SavedMatcher, check_target, save_matcher
from leanmatch.models.devices import DEVICES, resolve_device

__all__ = [
    "DEVICES",
    "MIN_COSINE",
    "PACKAGED_MODELS",
    "Artifact",
    "Parity",
    "PushedModel",
    "SavedArtifact",
    "SavedMatcher",
    "check_target",
    "find_model",
    "is_artifact",
    "is_model_folder",
    "model_card",
    "model_fingerprint",
    "push_model",
    "read_provenance",
    "resolve_device",
    "rewrite_model_card",
    "save_compressed",
    "save_matcher",
    "weights_sha256",
]
