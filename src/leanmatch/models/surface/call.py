"""One call of ``encode``: its options, checked, and what belongs to several runtimes beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from leanmatch.errors import UsageError
from leanmatch.models.surface.similarity import SIMILARITIES
from leanmatch.models.tokens import TokenTally
from leanmatch.types import Vectors

BATCH_TEXTS = 64


@dataclass(frozen=True)
class EncodeCall:
    """How to encode a list of texts.

    Attributes:
        role: ``query``, ``document`` or None.
        prompt: the text to put before each text.
        batch_size: texts a forward pass.
        normalize: divide by the L2 norm; a zero vector stays zero.
        dimensions: leading dimensions to keep, None for all. The rest is cut off before normalization.
        show_progress_bar: a bar on stderr.
        threads: threads of the computation, None for the runtime's own choice.
        tally: gets the token counts of the distinct texts.
        placement: ``device``, ``pool`` and ``chunk_size`` as they were given, where they were.
    """

    role: str | None
    prompt: str
    batch_size: int = BATCH_TEXTS
    normalize: bool = False
    dimensions: int | None = None
    show_progress_bar: bool = False
    threads: int | None = None
    tally: TokenTally | None = None
    placement: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class CardData:
    """What sentence-transformers' evaluators and MTEB ask of ``model_card_data``.

    Attributes:
        model_name, base_model, base_model_revision: as sentence-transformers has them.
        evaluations: the results of evaluators that were run on the model, in their order.
    """

    model_name: str | None = None
    base_model: str | None = None
    base_model_revision: str | None = None
    evaluations: list[dict[str, Any]] = field(default_factory=list)

    def set_evaluation_metrics(
        self, evaluator: Any, metrics: Mapping[str, Any], epoch: int = 0, step: int = 0
    ) -> None:
        """Keep an evaluator's results."""
        name = str(getattr(evaluator, "name", "") or type(evaluator).__name__)
        self.evaluations.append({"name": name, "metrics": dict(metrics), "epoch": epoch, "step": step})


def at_least_1(value: int, name: str) -> int:
    """The number.

    Raises:
        UsageError: it is below 1 or no whole number.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise UsageError(f"{name} is {value!r}", remedy="give a whole number from 1")
    return int(value)


def checked_dimensions(value: int | None) -> int | None:
    """A value for ``truncate_dim``.

    Raises:
        UsageError: it is below 1 or no whole number.
    """
    return None if value is None else at_least_1(value, "truncate_dim")


def checked_similarity(value: Any) -> str:
    """The name of a similarity; None is the cosine, and members of an enumeration have it as ``value``.

    Raises:
        UsageError: no such similarity.
    """
    name = "cosine" if value is None else getattr(value, "value", value)
    if name not in SIMILARITIES:
        raise UsageError(f"there is no similarity {name!r}", remedy=f"one of {', '.join(SIMILARITIES)}")
    return str(name)


def normalized(vectors: Vectors) -> Vectors:
    """Rows divided by their L2 norms; rows of zeros stay."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(norms > 0, norms, 1), np.float32)


def progress(total: int | None, shown: bool, doing: str = "encoding", unit: str = "texts") -> Any:
    """A bar on stderr that counts texts, or what ``unit`` names."""
    from tqdm import tqdm

    return tqdm(total=total, unit=f" {unit}", desc=doing, disable=not shown)
