"""How much of the data a diagnosis looks at, and how."""

from __future__ import annotations

from dataclasses import dataclass

from leanmatch.errors import UsageError
from leanmatch.interventions.names import INTERVENTIONS, check_choice
from leanmatch.metrics.bootstrap import check_bootstrap


@dataclass(frozen=True)
class DiagnoseOptions:
    """Options of :func:`leanmatch.report.diagnose`.

    The defaults take a MiniLM some minutes on two cores, whatever the size of the data: every limit is a
    number of texts or tokens, not of seconds, so that the same call gives the same answer on every machine.

    Args:
        intervention: ``delete``, ``mask`` or ``replace``.
        max_rows: rows that are evaluated (slice table, scores, ranks); a random sample where there are more.
        max_pairs: matching pairs whose words are looked at (drift, concentration).
        budget: tokens that each model may read for the words of those pairs; fewer pairs where it runs out.
        max_words: words of a text that are intervened on; a random sample of them where it has more.
        min_pairs: a word type must stand in so many pairs to be ranked.
        shown: pairs in the explorer.
        confidence, resamples: of the intervals.
        seed: of all random choices.

    Raises:
        UsageError: a value that is out of range or not among the choices.
    """

    intervention: str = "delete"
    max_rows: int = 4000
    max_pairs: int = 1000
    budget: int = 600_000
    max_words: int = 24
    min_pairs: int = 5
    shown: int = 200
    confidence: float = 0.95
    resamples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("intervention", self.intervention, INTERVENTIONS)
        check_bootstrap(self.confidence, self.resamples)
        for name in ("max_rows", "max_pairs", "budget", "max_words", "min_pairs", "shown"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}", remedy="give 1 or more")
