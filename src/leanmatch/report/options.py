"""How much of the data a diagnosis looks at, and how."""

from __future__ import annotations

from dataclasses import dataclass

from leanmatch.errors import UsageError
from leanmatch.interventions.names import INTERVENTIONS, check_choice
from leanmatch.metrics.bootstrap import check_bootstrap


@dataclass(frozen=True)
class DiagnoseOptions:
    """Options of :func:`leanmatch.report.diagnose`.

    Words are looked at for about ``minutes``: a few pairs are timed, and the number of tokens that fit
    becomes the ``budget``, which the result names. A call with that ``budget`` (and ``shown``) gives the same
    answer on every machine.

    Args:
        intervention: ``delete``, ``mask`` or ``replace``.
        max_rows: rows that are evaluated (slice table, scores, ranks); a random sample where there are more.
        max_pairs: matching pairs whose words are looked at (drift, concentration).
        budget: tokens that each model may read for the words of those pairs; fewer pairs where it runs out.
            None: as many as fit into ``minutes``.
        minutes: for the words of the sampled pairs and of the explorer's, where ``budget`` is None.
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
    budget: int | None = None
    minutes: float = 3.0
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
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} is {value}", remedy="give 1 or more")
        if not 0 < self.minutes < float("inf"):
            raise UsageError(f"minutes is {self.minutes}", remedy="give a number above 0")
