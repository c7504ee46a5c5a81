"""An evaluator for ``SentenceTransformerTrainer`` that scores retrieval on a pair table."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from leanmatch.metrics import RetrievalProbe
from leanmatch.models import RoleEncoder
from leanmatch.training.stock import Evaluator

if TYPE_CHECKING:
    from leanmatch.data import PairTable
    from leanmatch.types import EncodeFunction


class PairTableEvaluator(Evaluator):  # type: ignore[misc]
    """Retrieval metric of a model in training.

    Args:
        table: validation pairs.
        metric: a name of :mod:`leanmatch.metrics`, such as ``MRR@10``.
        name: prefix of the reported metric.
        encoder_of: makes the encode function of the model's current weights.

    Example::

        evaluator = PairTableEvaluator(valid)
        trainer = SentenceTransformerTrainer(model, args, train, loss=loss, evaluator=evaluator)
    """

    def __init__(
        self,
        table: PairTable,
        metric: str = "MRR@10",
        name: str = "valid",
        *,
        encoder_of: Callable[[Any], EncodeFunction] | None = None,
    ) -> None:
        super().__init__()
        self.encoder_of = encoder_of or encode_function
        self.probe = RetrievalProbe(table, metric)
        self.greater_is_better = True
        self.primary_metric = f"{name}_{metric}"

    def __call__(
        self, model: Any, output_path: str | None = None, epoch: int = -1, steps: int = -1
    ) -> dict[str, float]:
        """Scores by name, as the trainer wants them."""
        return {self.primary_metric: self.probe(self.encoder_of(model))}


def encode_function(model: Any, batch_size: int = 64) -> RoleEncoder:
    """A ``SentenceTransformer`` as evaluation takes it: by role, each distinct text encoded once."""
    return RoleEncoder(model, batch_size=batch_size)
