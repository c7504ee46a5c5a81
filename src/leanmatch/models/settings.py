"""What a folder's ``config_sentence_transformers.json`` asks of whoever encodes with the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from leanmatch.errors import ModelError
from leanmatch.models.prompts import Prompts

MODEL_TYPE = "SentenceTransformer"


@dataclass(frozen=True)
class SentenceSettings:
    """Settings of a sentence encoder beside its modules.

    Attributes:
        prompts: what goes before texts.
        truncate_dim: dimensions of a vector that are kept, None for all. The rest is cut off before the
            vector is normalized.
        similarity: how two vectors are compared; a name of :mod:`leanmatch.models.surface.similarity`.
        model_type: class in sentence-transformers.
    """

    prompts: Prompts = field(default_factory=Prompts)
    truncate_dim: int | None = None
    similarity: str = "cosine"
    model_type: str = MODEL_TYPE

    @classmethod
    def from_config(cls, config: Mapping[str, Any], source: object) -> SentenceSettings:
        """Read the content of a ``config_sentence_transformers.json``; {} gives the defaults.

        Raises:
            ModelError: a value that the setting cannot have.
        """
        if not isinstance(config, Mapping):
            raise ModelError(
                f"{source} is no JSON object", remedy="correct the file, or save the model again"
            )
        kept = config.get("truncate_dim")
        if kept is not None and (isinstance(kept, bool) or not isinstance(kept, int) or kept < 1):
            raise ModelError(
                f"{source}: truncate_dim is {kept!r}", remedy="a whole number from 1, or null to keep all"
            )
        return cls(
            Prompts.from_config(config, source),
            kept,
            str(config.get("similarity_fn_name") or "cosine"),
            str(config.get("model_type") or MODEL_TYPE),
        )

    @classmethod
    def from_model(cls, model: Any) -> SentenceSettings:
        """The settings of a live ``SentenceTransformer``."""
        similarity = str(getattr(model, "similarity_fn_name", None) or "cosine")
        return cls(Prompts.from_model(model), getattr(model, "truncate_dim", None), similarity)

    def check_similarity(self, name: object, *, normalized: bool) -> None:
        """Refuse a similarity other than the cosine, which is how leanmatch compares vectors.

        The dot product of vectors of length 1 is the cosine, so it is taken where the model normalizes.

        Args:
            name: of the model, for the message.
            normalized: the model's last module is ``Normalize``.

        Raises:
            ModelError: the model compares its vectors in another way.
        """
        unit_length = normalized and self.truncate_dim is None
        if self.similarity == "cosine" or (self.similarity == "dot" and unit_length):
            return
        raise ModelError(
            f"{name} compares vectors by {self.similarity!r} (similarity_fn_name), and leanmatch compares "
            "them by their cosine: it would rank items in another order",
            remedy='to use the cosine all the same, set "similarity_fn_name": "cosine" in a copy\'s '
            "config_sentence_transformers.json: SentenceTransformer(NAME, similarity_fn_name='cosine')"
            ".save_pretrained(FOLDER)",
        )
